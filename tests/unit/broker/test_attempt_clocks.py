"""Until when an attempt is waited for, in time in which we listened."""

from __future__ import annotations

import asyncio

import pytest

from bidding.outcome import FailureClass
from broker.attempt_clocks import AttemptClocks, Waits
from broker.stalls import Stalls
from broker.until import Until
from feeds.clock import ManualClock, SystemClock

MS = 1_000_000
WAITS = Waits(
    first_token_ns=100 * MS,
    overdue_ns=100 * MS,
    silent_ns=60 * MS,
    gap_ns=80 * MS,
    alone_ns=250 * MS,
    alone_gap_ns=80 * MS,
    usual_gap_ns=80 * MS,
)


def made(deadline_ms: int = 60_000) -> tuple[ManualClock, Stalls, AttemptClocks]:
    clock = ManualClock()
    stalls = Stalls(clock)
    stalls.look()
    return clock, stalls, AttemptClocks(WAITS, deadline_ms * MS, clock, stalls, lambda: True)


def promised(usual_gap_ms: int) -> tuple[ManualClock, AttemptClocks]:
    """An attempt whose answer is wanted after a second, with a long gap for want of knowledge."""
    clock = ManualClock()
    target_ns = clock.monotonic_ns() + 1_000 * MS
    waits = WAITS._replace(gap_ns=5_000 * MS, usual_gap_ns=usual_gap_ms * MS, target_ns=target_ns)
    return clock, AttemptClocks(waits, 60_000 * MS, clock, Stalls(clock), lambda: True)


@pytest.mark.parametrize(("word_at_s", "gap_ms"), [(0.1, 450), (0.6, 200), (0.9, 80), (3.0, 80)])
def test_a_gap_that_nobody_knows_is_half_of_what_the_deadline_leaves(
    word_at_s: float, gap_ms: int
) -> None:
    clock, clocks = promised(usual_gap_ms=80)
    clock.advance(word_at_s)
    clocks.progressed(clock.monotonic_ns())
    assert clocks.limit() == (clock.monotonic_ns() + gap_ms * MS, FailureClass.TIMEOUT_GAP)
    assert clocks.silent_from_ns == clock.monotonic_ns() + gap_ms * MS // 4


def test_who_is_known_to_pause_for_long_is_not_cut_short() -> None:
    clock, clocks = promised(usual_gap_ms=3_000)
    clock.advance(0.1)
    clocks.progressed(clock.monotonic_ns())
    assert clocks.limit() == (clock.monotonic_ns() + 3_000 * MS, FailureClass.TIMEOUT_GAP)


def test_who_goes_on_at_a_slow_pace_may_pause_for_as_long_as_that_pace_says() -> None:
    clock, clocks = promised(usual_gap_ms=80)
    for _ in range(11):
        clock.advance(0.1)
        clocks.progressed(clock.monotonic_ns())
    assert clocks.gap_ns == 5_000 * MS
    clock, clocks = promised(usual_gap_ms=80)
    for _ in range(11):
        clock.advance(0.001)
        clocks.progressed(clock.monotonic_ns())
    clock.advance(2.0)
    assert clocks.gap_ns == (1_000 - 11) * MS // 2


def test_a_standstill_puts_every_clock_off_but_the_deadline() -> None:
    clock, stalls, clocks = made(deadline_ms=700)
    sent_ns = clocks.sent_ns
    clock.advance(0.52)
    stalls.look()
    assert stalls.total_ns == 500 * MS
    assert clocks.limit() == (sent_ns + 600 * MS, FailureClass.TIMEOUT_TTFT)
    assert clocks.overdue_in_ns == 80 * MS
    assert clocks.silent_from_ns == sent_ns + 560 * MS
    clock.advance(0.22)
    stalls.look()
    assert clocks.limit()[0] == 700 * MS


def test_what_was_stood_still_before_a_word_came_says_nothing_of_the_next_gap() -> None:
    clock, stalls, clocks = made()
    clock.advance(0.52)
    stalls.look()
    clocks.progressed(clock.monotonic_ns())
    assert clocks.limit() == (clock.monotonic_ns() + 80 * MS, FailureClass.TIMEOUT_GAP)
    assert clocks.silent_from_ns == clock.monotonic_ns() + 20 * MS


def test_looks_that_come_a_little_late_are_no_standstill() -> None:
    clock, stalls, _ = made()
    for _ in range(100):
        clock.advance(0.035)
        stalls.look()
    assert stalls.total_ns == 0
    stalls.end()
    clock.advance(60.0)
    stalls.look()
    assert stalls.total_ns == 0


async def test_a_timer_that_fires_after_a_standstill_waits_for_what_has_arrived() -> None:
    clock = SystemClock()
    stalls = Stalls(clock)
    stalls.look()
    loop = asyncio.get_running_loop()
    arrived = loop.create_future()
    far_ns = clock.monotonic_ns() + 60_000 * MS
    clocks = AttemptClocks(WAITS, far_ns, clock, stalls, lambda: True)

    async def read() -> str:
        async with clocks.limited():
            await arrived
        return "read"

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    ends_s = loop.time() + 0.2
    while loop.time() < ends_s:  # nothing runs: the timer is due long before the loop goes on
        pass
    loop.call_later(0.02, arrived.set_result, None)
    assert await reading == "read"


async def test_a_wait_ends_whatever_goes_wrong_as_it_is_to_be_put_off() -> None:
    def broken() -> float | None:
        raise RuntimeError("no answer")

    loop = asyncio.get_running_loop()
    told = list[object]()
    loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
    with pytest.raises(TimeoutError):
        async with Until(loop.time() + 0.01, broken):
            await asyncio.sleep(5.0)
    assert [str(error) for error in told] == ["no answer"]
