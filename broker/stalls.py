"""How long this process has stood still: what it could not hear then is not its sellers' silence.

A busy machine, a collection of garbage or a decision that took too long keep the loop from
reading, and a timer that comes due meanwhile fires before what has arrived is read. So waits are
measured in time in which we listened. `look` is called every 20 ms; where one comes much later,
the loop stood still for the difference.
"""

from __future__ import annotations

from typing import Final

from feeds.clock import Clock

LOOK_EVERY_S: Final = 0.02
_USUAL_NS: Final = round(LOOK_EVERY_S * 1e9)
_LATE: Final = 2
"""A look that comes so many times later than it should is a stall and not the loop's usual lag."""


class Stalls:
    """The standstills of one process, added up."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._looked_ns: int | None = None
        self.total_ns = 0
        """Time stood still since `look` was first called, as of its last call."""

    def look(self) -> None:
        """Called often: at every look, and by whoever's timer has come due."""
        now_ns = self._clock.monotonic_ns()
        if self._looked_ns is not None:
            since_ns = now_ns - self._looked_ns
            if since_ns > _LATE * _USUAL_NS:
                self.total_ns += since_ns - _USUAL_NS
        self._looked_ns = now_ns

    def end(self) -> None:
        """Nobody looks any more: what follows is no standstill."""
        self._looked_ns = None
