"""Until when one attempt is waited for: its first token, the gap between events, the total.

All inside the request's hard deadline, and all but that deadline in time in which we listened
(`broker.stalls`). While nobody has seen any of the answer it is given up only for another seller:
as long as nobody else may be asked, a late answer is better than none, and the first two clocks
are put off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple

from bidding.outcome import FailureClass
from bidding.waiting import GAP_TOKENS
from broker.stalls import Stalls
from broker.until import Until
from feeds.clock import Clock

_SILENT_GAP: Final = 4
"""A quarter of the gap after which it would be given up counts as silence."""


class Waits(NamedTuple):
    """An attempt's limits: the first token's, when it counts as overdue, when as silent, and the
    gap's; and the first token's and the gap's where nobody else may be asked.

    `target_ns` is the app's deadline for the whole answer, if it has one; it leaves of the gap
    `usual_gap_ns` at least.
    """

    first_token_ns: int
    overdue_ns: int
    silent_ns: int
    gap_ns: int
    alone_ns: int
    alone_gap_ns: int
    usual_gap_ns: int
    target_ns: int | None = None


class AttemptClocks:
    """The clocks of one attempt, which is sent as they are made.

    Parameters
    ----------
    deadline_ns : int
        The request's, on the monotonic clock.
    gives_way : callable
        Whether the attempt is to be given up now for another.
    """

    def __init__(
        self,
        waits: Waits,
        deadline_ns: int,
        clock: Clock,
        stalls: Stalls,
        gives_way: Callable[[], bool],
    ) -> None:
        self._deadline_ns = deadline_ns
        self._clock = clock
        self._stalls = stalls
        self._gives_way = gives_way
        self._waits = waits
        self._put_off_ns = 0
        self._stood_still_ns = self._stood_still_first_ns = stalls.total_ns
        self.sent_ns = clock.monotonic_ns()
        self.progress_ns: int | None = None
        """When it last said something."""
        self._first_ns = self.sent_ns
        self._n_words = 0
        self.unseen = True
        """Whether another seller's answer may still take its place."""

    def progressed(self, now_ns: int) -> None:
        """It said something."""
        if self.progress_ns is None:
            self._first_ns = now_ns
        self._n_words += 1
        self.progress_ns, self._put_off_ns = now_ns, 0
        self._stood_still_ns = self._stalls.total_ns

    @property
    def gap_ns(self) -> int:
        """How long it may be silent within an answer since it last said something.

        With a deadline for the whole answer no longer than half of what is left of it, as the rest
        has to be written too, unless its offer's usual gap is longer, or two hundred of the pauses
        that it has made so far.
        """
        waits, since_ns = self._waits, self.progress_ns
        if waits.target_ns is None or since_ns is None:
            return waits.gap_ns
        own_ns = GAP_TOKENS * (since_ns - self._first_ns) // max(self._n_words - 1, 1)
        usual_ns = max(waits.usual_gap_ns, own_ns)
        return min(waits.gap_ns, max(usual_ns, (waits.target_ns - since_ns) // 2))

    @property
    def stood_still_ns(self) -> int:
        """How long this process has stood still since it was sent."""
        return self._stalls.total_ns - self._stood_still_first_ns

    @property
    def overdue_in_ns(self) -> int:
        """Until it, had it shown nothing, would be given up for its silence; negative: since."""
        overdue_ns = self.sent_ns + self._waits.overdue_ns + self._unheard_ns
        return overdue_ns - self._clock.monotonic_ns()

    @property
    def silent_from_ns(self) -> int:
        """From when on it has said nothing for so long that this says something of the offer."""
        if self.progress_ns is None:
            return self.sent_ns + self._waits.silent_ns + self._unheard_ns
        return self.progress_ns + self.gap_ns // _SILENT_GAP + self._unheard_ns

    def limited(self) -> Until:
        """A wait for the next thing."""
        return Until(self._at_s(self.limit()[0]), self._later_s)

    def limit(self) -> tuple[int, FailureClass]:
        """Until when to wait for the next thing, and what it is called if it does not come."""
        hard = self._deadline_ns
        if self.progress_ns is None:
            late, limit = FailureClass.TIMEOUT_TTFT, self.sent_ns + self._waits.first_token_ns
        else:
            late, limit = FailureClass.TIMEOUT_GAP, self.progress_ns + self.gap_ns
        limit += self._put_off_ns + self._unheard_ns
        if hard < limit:
            return hard, FailureClass.TIMEOUT_TOTAL if self.progress_ns else late
        return limit, late

    @property
    def _unheard_ns(self) -> int:
        """What we stood still since it was sent, or last said something."""
        return self._stalls.total_ns - self._stood_still_ns

    def _at_s(self, limit_ns: int) -> float:
        left_ns = max(limit_ns - self._clock.monotonic_ns(), 0)
        return asyncio.get_running_loop().time() + left_ns * 1e-9

    def _later_s(self) -> float | None:
        """The time has come: until when to wait on, on the loop's clock; None to give it up."""
        self._stalls.look()
        limit_ns, _ = self.limit()
        if limit_ns > self._clock.monotonic_ns():
            return self._at_s(limit_ns)
        waited_ns, alone_ns = self.gap_ns, self._waits.alone_gap_ns
        if self.progress_ns is None:
            waited_ns, alone_ns = self._waits.first_token_ns, self._waits.alone_ns
        left_ns = alone_ns - waited_ns - self._put_off_ns
        past = limit_ns >= self._deadline_ns
        if past or left_ns <= 0 or not self.unseen or self._gives_way():
            return None
        self._put_off_ns += min(waited_ns, left_ns)
        return self._at_s(self.limit()[0])
