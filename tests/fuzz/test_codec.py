"""The codec under fire: whatever the bytes, a record or `BadRecord`, and nothing else."""

from __future__ import annotations

import json
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feeds.codec import MAX_RECORD_BYTES, Record, decode, encode
from feeds.errors import BadRecord, UnknownVersion
from tests.fakes.log_rig import feedback, params

GOOD = encode(feedback(1, boot="b", seq=1))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def is_handled(payload: bytes) -> bool:
    try:
        record = decode(payload)
    except BadRecord as error:
        return bool(str(error))
    return isinstance(record, Record)


@given(st.binary(max_size=400))
def test_any_bytes(payload: bytes) -> None:
    assert is_handled(payload)


@given(json_values)
def test_any_json(value: object) -> None:
    assert is_handled(json.dumps(value).encode("utf-8", "surrogatepass"))


@given(
    kind=st.sampled_from([str(t.__struct_config__.tag) for t in Record.__args__]),
    value=st.dictionaries(st.text(max_size=12), json_values, max_size=8),
)
def test_any_fields_under_a_true_kind(kind: str, value: dict[str, object]) -> None:
    assert is_handled(json.dumps({**value, "kind": kind}).encode("utf-8", "surrogatepass"))


def test_ten_thousand_mutations_of_a_good_record() -> None:
    rng = random.Random(20261124)
    n_readable = 0
    for _ in range(10_000):
        payload = bytearray(GOOD)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(payload))
            match rng.randrange(3):
                case 0:
                    payload[at] = rng.randrange(256)
                case 1:
                    del payload[at : at + rng.randint(1, 9)]
                case _:
                    payload[at:at] = rng.randbytes(rng.randint(1, 9))
        assert is_handled(bytes(payload))
        n_readable += _is_readable(bytes(payload))
    assert 0 < n_readable < 9_000


def _is_readable(payload: bytes) -> bool:
    try:
        decode(payload)
    except BadRecord:
        return False
    return True


def test_every_beginning_of_a_good_record() -> None:
    for end in range(len(GOOD)):
        with pytest.raises(BadRecord):
            decode(GOOD[:end])


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x00",
        b"\xef\xbb\xbf" + GOOD,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"kind":"feedback/1","features":' + b"[" * 50_000,
        GOOD.replace(b'"quality":0.5', b'"quality":NaN'),
        GOOD.replace(b'"quality":0.5', b'"quality":1e999'),
        GOOD.replace(b'"quality":0.5', b'"quality":1.5'),
        GOOD.replace(b'"at_us":1', b'"at_us":4102444800000001'),
        GOOD.replace(b'"at_us":1', b'"at_us":-1'),
        GOOD.replace(b'"at_us":1', b'"at_us":' + b"9" * 10_000),
        GOOD.replace(b'"seq":1', b'"seq":18446744073709551616'),
        GOOD.replace(b'"tenant":"t"', b'"tenant":"\xff\xfe"'),
        b"x" * (MAX_RECORD_BYTES + 1),
    ],
    ids=lambda payload: f"{len(payload)}-{payload[:18]!r}",
)
def test_poison(payload: bytes) -> None:
    with pytest.raises(BadRecord):
        decode(payload)


def test_a_later_version_says_so() -> None:
    with pytest.raises(UnknownVersion, match="feedback/2"):
        decode(GOOD.replace(b"feedback/1", b"feedback/2"))


def test_unknown_fields_are_passed_over() -> None:
    grown = msgspec.json.encode({**json.loads(GOOD), "new_field": {"deep": [1, 2]}})
    assert decode(grown) == decode(GOOD)


@given(version=st.integers(0, 2**31), text=st.text())
def test_what_is_written_is_read(version: int, text: str) -> None:
    record = msgspec.structs.replace(params(version), why=text)
    try:
        payload = encode(record)
    except UnicodeEncodeError:
        return  # a lone surrogate is no text; writers learn it when they write
    assert decode(payload) == record
