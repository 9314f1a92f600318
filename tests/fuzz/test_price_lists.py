"""Whatever the bytes, a parser of price lists gives a sheet or a `BadRecord`: nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feeds.errors import BadRecord
from tests.unit.feeds.catalogue.test_price_sources import SOURCES, Parse


def read(parse: Parse, body: bytes) -> None:
    try:
        assert parse(body).listings
    except BadRecord:
        return


@pytest.mark.parametrize(("parse", "good"), SOURCES, ids=lambda x: getattr(x, "__module__", ""))
@settings(max_examples=80)
@given(st.data())
def test_bytes_changed_at_random(parse: Parse, good: bytes, data: st.DataObject) -> None:
    body = bytearray(good)
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, max(len(body) - 1, 0)))
        body[place : place + data.draw(st.integers(0, 6))] = data.draw(st.binary(max_size=6))
    read(parse, bytes(body))


@settings(max_examples=150)
@given(st.sampled_from([parse for parse, _ in SOURCES]), st.binary(max_size=200))
def test_any_bytes(parse: Parse, body: bytes) -> None:
    read(parse, body)
