"""Two clocks behind one interface: the system's, and one moved by hand in tests.

Wall time says when something happened; monotonic time says how long it took. Durations are
only ever differences of monotonic stamps.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Wall clock in µs since the epoch (UTC), and a monotonic clock in ns."""

    def now_us(self) -> int: ...

    def monotonic_ns(self) -> int: ...


class SystemClock:
    """The machine's clocks."""

    def now_us(self) -> int:
        return time.time_ns() // 1_000

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()


class ManualClock:
    """A clock that stands still until it is told to move.

    Examples
    --------
    >>> clock = ManualClock(now_us=1_000_000)
    >>> clock.advance(0.5)
    >>> clock.now_us(), clock.monotonic_ns()
    (1500000, 500000000)
    """

    def __init__(self, now_us: int = 0) -> None:
        self._now_us = now_us
        self._monotonic_ns = 0

    def now_us(self) -> int:
        return self._now_us

    def monotonic_ns(self) -> int:
        return self._monotonic_ns

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass on both clocks."""
        self._now_us += round(seconds * 1e6)
        self._monotonic_ns += round(seconds * 1e9)

    def step_wall(self, seconds: float) -> None:
        """Step the wall clock alone, as NTP or an operator would."""
        self._now_us += round(seconds * 1e6)
