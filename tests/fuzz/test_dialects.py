"""Every reader on golden answers spoilt in every way: typed failures, never an exception.

Three kinds of spoiling: bytes (flips, cuts, repeats, bad UTF-8, NULs), types (a value anywhere in
the JSON becomes one of another type), and size (lines and frames without end).
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from broker.providers.base import Reader
from broker.providers.event_stream import encode_message
from broker.providers.sse import MAX_LINE_BYTES
from broker.wire.neutral import Event, Failed, Finish, collect
from tests.unit.broker.providers.test_golden import (
    ANSWERS,
    body_of,
    frame,
    name_of,
    seat_for,
    table,
)

WRONG: tuple[Any, ...] = (None, True, -1, 1e308, 10**400, "", "x", [], [[]], {}, {"a": 1}, "\ud800")
GOOD = [p for p in ANSWERS if json.loads(p.read_text())["answer"].get("status", 200) == 200]
REFUSALS = [p for p in ANSWERS if p not in GOOD]


def reader_of(path: Path, case: dict[str, Any]) -> Reader:
    dialect = path.parent.parent.name
    seat = seat_for(dialect, case) if "seat" in case else None
    return table(case)[dialect].reader(stream=bool(case["answer"].get("stream")), seat=seat)


def consume(reader: Reader, pieces: list[bytes]) -> list[Event]:
    events: list[Event] = []
    for piece in pieces:
        events += reader.feed(piece)
    events += reader.close()
    bad = [e for e in events if isinstance(e, Failed)]
    assert len(bad) <= 1
    assert not bad or events[-1] is bad[0]
    assert reader.done
    assert reader.feed(b"data: {}\n\n") == [] or not pieces
    collect(events)
    return events


def spoilt_bytes(rng: random.Random, body: bytes) -> bytes:
    out = bytearray(body)
    for _ in range(rng.randint(1, 5)):
        at = rng.randrange(len(out) + 1)
        kind = rng.randrange(6)
        if kind == 0 and out:
            out[min(at, len(out) - 1)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del out[at : at + rng.randint(1, 30)]
        elif kind == 2:
            out[at:at] = rng.choice(
                [b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\xc3", b"\xef\xbb\xbf"]
            )
        elif kind == 3:
            out[at:at] = out[at : at + rng.randint(1, 80)]
        elif kind == 4:
            out[at:at] = rng.choice([b"null", b"[{", b'"', b"\n\n", b"\r", b"data: ", b"[" * 2000])
        else:
            del out[at:]
    return bytes(out)


def with_wrong_type(rng: random.Random, value: Any) -> Any:
    """`value` with one node, anywhere in it, replaced."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        return {**value, key: with_wrong_type(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.85:
        at = rng.randrange(len(value))
        return [*value[:at], with_wrong_type(rng, value[at]), *value[at + 1 :]]
    return rng.choice(WRONG)


def with_wrong_types(rng: random.Random, case: dict[str, Any]) -> bytes:
    answer = case["answer"]
    if "frames" in answer:
        at = rng.randrange(len(answer["frames"]))
        return b"".join(
            frame(kind, with_wrong_type(rng, payload) if i == at else payload)
            for i, (kind, payload) in enumerate(answer["frames"])
        )
    if not answer.get("stream"):
        return json.dumps(with_wrong_type(rng, answer["body"])).encode()
    lines = answer["body"] if isinstance(answer["body"], list) else answer["body"].splitlines()
    places = [i for i, line in enumerate(lines) if line.startswith("data: {")]
    if not places:
        return body_of(case)
    at = rng.choice(places)
    try:
        value = json.loads(lines[at][6:])
    except ValueError:
        return body_of(case)
    changed = "data: " + json.dumps(with_wrong_type(rng, value))
    return "".join(line + "\n" for line in [*lines[:at], changed, *lines[at + 1 :]]).encode()


@pytest.mark.parametrize("path", GOOD, ids=name_of)
def test_spoilt_bytes(path: Path) -> None:
    rng = random.Random(name_of(path))
    case = json.loads(path.read_text())
    body = body_of(case)
    for _ in range(60):
        bad = spoilt_bytes(rng, body)
        cut = rng.randrange(len(bad) + 1)
        consume(reader_of(path, case), [bad[:cut], bad[cut:]])


@pytest.mark.parametrize("path", GOOD, ids=name_of)
def test_wrong_types(path: Path) -> None:
    rng = random.Random(name_of(path))
    case = json.loads(path.read_text())
    for _ in range(60):
        consume(reader_of(path, case), [with_wrong_types(rng, case)])


@pytest.mark.parametrize("path", REFUSALS, ids=name_of)
def test_refusals_of_wrong_types(path: Path) -> None:
    rng = random.Random(name_of(path))
    case = json.loads(path.read_text())
    dialect, status = path.parent.parent.name, case["answer"]["status"]
    for _ in range(40):
        spoken = table(case)[dialect]
        for bad in (with_wrong_types(rng, case), spoilt_bytes(rng, body_of(case))):
            assert isinstance(spoken.refusal(status, bad, None), Failed)


@pytest.mark.parametrize("path", GOOD, ids=name_of)
def test_cut_at_every_byte(path: Path) -> None:
    case = json.loads(path.read_text())
    body = body_of(case)
    for cut in range(0, len(body), 1 if len(body) < 1500 else 3):
        events = consume(reader_of(path, case), [body[:cut]])
        if not events or not isinstance(events[-1], Failed):
            shown = [e for e in events if isinstance(e, Finish) or type(e).__name__ == "Vector"]
            assert shown, f"a cut at byte {cut} ended cleanly without an end"


STREAMS = {p.parent.parent.name: p for p in GOOD if p.stem.startswith("stream")}


@pytest.mark.parametrize("name", sorted(STREAMS))
def test_a_stream_without_line_or_frame_ends_is_given_up_early(name: str) -> None:
    path = STREAMS[name]
    reader = reader_of(path, json.loads(path.read_text()))
    block = b"x" * 65_536
    events = reader.feed(b"data: ")
    n_fed = 0
    while not reader.done and n_fed < 4 * MAX_LINE_BYTES:
        events += reader.feed(block)
        n_fed += len(block)
    assert reader.done
    assert isinstance(events[-1], Failed)
    assert n_fed <= MAX_LINE_BYTES + len(block)


def test_a_frame_that_announces_too_much_is_given_up_at_its_head() -> None:
    path = STREAMS["bedrock"]
    reader = reader_of(path, json.loads(path.read_text()))
    huge = bytearray(encode_message({}, b"x" * (17 * 1024 * 1024)))
    events = reader.feed(bytes(huge[:12]))
    assert isinstance(events[-1], Failed)
    assert reader.done
