"""Server-sent events: line endings, pieces, caps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.providers.sse import LineTooLong, ServerEvent, SseParser

STREAM = (
    b"\xef\xbb\xbf: hi\nevent: a\ndata: 1\ndata:2\n\n"
    b"id: 7\nretry: 1\ndata\n\nevent: lone\n\ndata: x"
)
EVENTS = [ServerEvent(b"a", b"1\n2"), ServerEvent(b"", b"")]


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
@given(cuts=st.sets(st.integers(1, len(STREAM) + 20)))
def test_endings_and_pieces_do_not_matter(ending: bytes, cuts: set[int]) -> None:
    stream = STREAM.replace(b"\n", ending)
    parser = SseParser()
    events: list[ServerEvent] = []
    at = 0
    for cut in [*sorted(cuts), len(stream)]:
        events += parser.feed(stream[at:cut])
        at = max(at, cut)
    assert events == EVENTS
    assert parser.pending


def test_a_line_without_end_is_cut_off_at_the_cap() -> None:
    parser = SseParser(max_line_bytes=1000)
    for _ in range(10):
        parser.feed(b"x" * 100)
    with pytest.raises(LineTooLong):
        parser.feed(b"x")


def test_an_event_of_endless_data_lines_is_cut_off() -> None:
    parser = SseParser(max_line_bytes=1000)
    for _ in range(10):
        parser.feed(b"data: " + b"x" * 100 + b"\n")
    with pytest.raises(LineTooLong):
        parser.feed(b"data: x\n")


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_any_bytes_are_read(pieces: list[bytes]) -> None:
    whole = SseParser().feed(b"".join(pieces))
    parser = SseParser()
    assert [e for piece in pieces for e in parser.feed(piece)] == whole
