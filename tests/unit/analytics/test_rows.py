"""What a row says is the record's own JSON and its place, whatever the record and its spelling."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.rows import Place, canonical, columns, splice, table_of, unstorable, whole
from feeds.codec import Record, decode, encode
from feeds.market_records import CalibrationRecord
from feeds.topics import ATTEMPTS, DECISIONS, FEEDBACK, PRICES, QUOTES, TOPICS, VIEWS, key_of
from tests.fakes import facts

PLACE = Place(log="log-1", life=3, partition=2, first=10, last=90, day="2026-11-24")
OF_PLACE = {
    "_log": "log-1",
    "_life": 3,
    "_partition": 2,
    "_batch_first": 10,
    "_batch_last": 90,
    "_day": "2026-11-24",
}

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
white = st.text(" \t\r\n", max_size=3)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)
offsets = st.integers(min_value=0, max_value=2**63 - 1)


@given(
    st.lists(
        st.tuples(offsets, st.integers(0, 10_000), texts, st.dictionaries(texts, json_values)),
        min_size=1,
        max_size=5,
    ),
    white,
    white,
    st.booleans(),
)
def test_a_row_is_the_payload_with_its_place(
    given_rows: list[tuple[int, int, str, dict[str, Any]]], before: str, after: str, indent: bool
) -> None:
    at, payloads, expected = [], [], []
    for offset, i, reason, unknown in given_rows:
        record = facts.attempt(i)
        record.reason = reason
        fields = {f"x{k}": v for k, v in unknown.items()} | json.loads(encode(record))
        payload = json.dumps(fields, indent=2 if indent else None, ensure_ascii=False)
        payloads.append((before + payload + after).encode())
        at.append(offset)
        expected.append(OF_PLACE | {"_offset": offset} | fields)
    assert _lines(splice(PLACE, at, payloads)) == expected


@given(st.lists(st.tuples(offsets, st.integers(0, 10_000), texts), min_size=1, max_size=5))
def test_a_row_kept_whole_holds_the_payload_as_text(rows: list[tuple[int, int, str]]) -> None:
    records: list[Record] = [facts.quote(i, offer=f"p/{name}") for _, i, name in rows]
    payloads = [encode(r) + b"\n " for r in records]
    got = _lines(whole(QUOTES, PLACE, [o for o, _, _ in rows], payloads, records))
    assert [row["record"].encode() for row in got] == payloads
    assert [row["_key"] for row in got] == [f"p/{name}" for _, _, name in rows]
    assert [row["_offset"] for row in got] == [o for o, _, _ in rows]
    assert all(OF_PLACE.items() <= row.items() for row in got)


def test_canonical_rows_drop_what_the_record_does_not_have() -> None:
    payload = encode(facts.attempt(5))
    twice = payload[:-1] + b',"offer":"p9/m9","_offset":5,"_log":"forged"}'
    record = decode(twice)
    (row,) = _lines(canonical(PLACE, [7], [record]))
    assert row["offer"] == "p9/m9"  # the last one counts, as for every reader
    assert row["_offset"] == 7
    assert row["_log"] == "log-1"


def test_every_topic_names_its_columns_once() -> None:
    for topic in TOPICS:
        names = columns(topic)
        assert len(names) == len(set(names))
        assert {"_log", "_life", "_partition", "_offset", "_batch_first", "_batch_last"} < set(
            names
        )
        assert ("record" in names) == topic.compacted
    assert len({table_of(t.name) for t in TOPICS}) == len(TOPICS)


@pytest.mark.parametrize(
    ("topic", "record", "complaint"),
    [
        (ATTEMPTS, facts.attempt(1), ""),
        (DECISIONS, facts.decision(1), ""),
        (FEEDBACK, facts.feedback(1), ""),
        (QUOTES, facts.quote(1), ""),
        (ATTEMPTS, facts.decision(1), "a DecisionRecord on market.attempts"),
        (PRICES, facts.attempt(1), "a AttemptRecord on market.prices"),
        (VIEWS, facts.quote(1), "a QuoteRecord on market.views"),
    ],
)
def test_records_on_topics_of_another_kind_are_unstorable(
    topic: Any, record: Any, complaint: str
) -> None:
    assert unstorable(topic.name, record).startswith(complaint)
    assert bool(unstorable(topic.name, record)) == bool(complaint)


def test_calibrations_travel_with_quotes() -> None:
    assert CalibrationRecord not in {t.record for t in TOPICS}
    assert key_of(QUOTES, facts.quote(1)) == b"p0/m0"


@pytest.mark.parametrize("seed", [-1, 1 << 64])
def test_a_seed_that_is_no_unsigned_64_bit_number_is_unstorable(seed: int) -> None:
    record = facts.decision(1)
    record.seed = seed
    assert "seed" in unstorable(DECISIONS.name, record)


def _lines(body: bytes) -> list[dict[str, Any]]:
    """The rows as JSON objects; they may span lines, as ClickHouse allows."""
    decoder, text, found, at = json.JSONDecoder(), body.decode(), [], 0
    while at < len(text):
        row, at = decoder.raw_decode(text, at)
        found.append(row)
        while at < len(text) and text[at].isspace():
            at += 1
    return found
