"""Repeats: a record counts once however often its writer sent it."""

from __future__ import annotations

import doctest

from hypothesis import given
from hypothesis import strategies as st

from feeds import repeats
from feeds.repeats import Repeats
from tests.fakes.log_rig import feedback


def test_example() -> None:
    assert doctest.testmod(repeats).failed == 0


def test_writers_and_their_starts_are_told_apart() -> None:
    seen = Repeats()
    assert not seen.is_repeat(feedback(0, boot="a", seq=5))
    assert not seen.is_repeat(feedback(0, boot="b", seq=5))
    assert seen.is_repeat(feedback(0, boot="a", seq=4))


def test_unnumbered_records_are_never_repeats() -> None:
    seen = Repeats()
    assert not any(seen.is_repeat(feedback(0)) for _ in range(3))
    assert not any(seen.is_repeat(feedback(0, boot="a")) for _ in range(3))


def test_memory_is_bounded_and_the_silent_are_forgotten_first() -> None:
    seen = Repeats(max_writers=3)
    for boot in ("a", "b", "c"):
        seen.is_repeat(feedback(0, boot=boot, seq=9))
    seen.is_repeat(feedback(0, boot="a", seq=10))
    seen.is_repeat(feedback(0, boot="d", seq=1))
    assert seen.is_repeat(feedback(0, boot="a", seq=10))
    assert not seen.is_repeat(feedback(0, boot="b", seq=9))


@given(
    n=st.integers(1, 30),
    sends=st.lists(st.tuples(st.integers(0, 29), st.integers(1, 10)), max_size=12),
)
def test_a_writer_that_sends_stretches_again_is_read_once(
    n: int, sends: list[tuple[int, int]]
) -> None:
    """The log of a writer that resends any stretch it has already begun, and then goes on."""
    log: list[int] = []
    sent = 0
    for back, length in sends:
        begin = max(0, min(sent, back))
        log += range(begin + 1, min(n, begin + length) + 1)
        sent = max(sent, min(n, begin + length))
    log += range(sent + 1, n + 1)
    seen = Repeats()
    taken = [i for i in log if not seen.is_repeat(feedback(i, boot="a", seq=i))]
    assert taken == list(range(1, n + 1))
