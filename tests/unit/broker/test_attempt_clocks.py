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
)


def made(deadline_ms: int = 60_000) -> tuple[ManualClock, Stalls, AttemptClocks]:
    clock = ManualClock()
    stalls = Stalls(clock)
    stalls.look()
    return clock, stalls, AttemptClocks(WAITS, deadline_ms * MS, clock, stalls, lambda: True)


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
