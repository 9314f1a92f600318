"""What watches a canary: whether it fails more, keeps its promises worse, or costs more.

Requests are put in the canary or left outside by lot, so the two differ by their params alone.
What is seen at once of every request is compared first: failures, deadlines kept, and what was
believed of the offer bought against what the params in force would have bought for that very
request (a pair, which is worth many requests of either side). Scores of answers count as they
come. Every comparison is a confidence sequence, so one may look at any time; a change for the
worse counts once it surely exceeds its tolerance. A promise is not worse for being overfulfilled
less: quality and punctuality have to fall short of what was promised as well.

References
----------
`bidding.sequential`, for the bounds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from bidding.sequential import LEAST_OF_ARM, Excess, Tally, boundary, excess

ALPHA: Final = 0.005
"""Chance of a false alarm, ever, of one of the six comparisons."""
_PSEUDO: Final = 1e-4
_TIGHTEST: Final = 300.0
_DEAREST: Final = 20.0
TOLERATED: Final = {
    "failed": 0.01,
    "late": 0.02,
    "bad": 0.02,
    "less_good": 0.01,
    "dearer": 0.02,
    "spend": 0.25,
}
"""How much worse is let pass: shares of requests, and for money shares of what is spent."""


class Seen(Struct, frozen=True, kw_only=True):
    """One settled request. None where it was not known, not asked or not computed.

    `other_*` is what the params in force would have bought for a request of the canary.
    """

    in_canary: bool
    failed: bool
    on_time: bool | None
    target_on_time: float | None
    target_quality: float | None
    cost_usd: float
    p_good: float | None = None
    expected_usd: float | None = None
    other_p_good: float | None = None
    other_usd: float | None = None


class Worse(Struct, frozen=True, kw_only=True):
    """A comparison: by how much the canary is worse, at least by how much, and what is let pass."""

    what: str
    value: float
    least: float
    tolerated: float
    short: float | None
    n_canary: int
    n_control: int

    @property
    def surely(self) -> bool:
        """Whether it is worse beyond doubt and, where something is promised, falls short of it."""
        return self.least > self.tolerated and (self.short is None or self.short > self.tolerated)


class Guard:
    """The tallies of one canary. Pure."""

    def __init__(self) -> None:
        self.n = [0, 0]
        self._tallies = {w: (Tally(), Tally()) for w in ("failed", "late", "bad", "spend")}
        self._pairs = {w: Tally() for w in ("less_good", "dearer")}
        self._short = {w: Tally() for w in ("late", "bad", "less_good")}
        self._control_usd = Tally()

    def take(self, seen: Seen) -> None:
        """Take in one settled request."""
        arm = int(seen.in_canary)
        self.n[arm] += 1
        self._tallies["failed"][arm].fold(float(seen.failed))
        if seen.on_time is not None and seen.target_on_time is not None:
            late = float(not seen.on_time)
            self._tallies["late"][arm].fold(late)
            if arm:
                self._short["late"].fold(late - 1.0 + seen.target_on_time)
        usual_usd = self._control_usd.mean
        if usual_usd > 0.0:
            self._tallies["spend"][arm].fold(min(seen.cost_usd / usual_usd, _DEAREST))
        if not arm:
            self._control_usd.fold(seen.cost_usd)
            return
        if seen.p_good is not None and seen.other_p_good is not None:
            self._pairs["less_good"].fold(seen.other_p_good - seen.p_good)
            if seen.target_quality is not None:
                self._short["less_good"].fold(seen.target_quality - seen.p_good)
        if seen.expected_usd is not None and seen.other_usd is not None and usual_usd > 0.0:
            more = (seen.expected_usd - seen.other_usd) / usual_usd
            self._pairs["dearer"].fold(max(min(more, _DEAREST), -_DEAREST))

    def score(self, *, in_canary: bool, quality: float, target: float | None) -> None:
        """Take in how good an answer was, in 0..1."""
        self._tallies["bad"][int(in_canary)].fold(1.0 - quality)
        if in_canary and target is not None:
            self._short["bad"].fold(target - quality)

    def compared(self) -> Iterator[Worse]:
        """Every comparison that has enough behind it."""
        for what, (control, canary) in self._tallies.items():
            found = excess(canary, control, ALPHA)
            if found is not None:
                yield self._worse(what, found, canary.n, control.n)
        for what, pairs in self._pairs.items():
            found = _of_pairs(pairs)
            if found is not None:
                yield self._worse(what, found, pairs.n, pairs.n)

    def breach(self) -> Worse | None:
        """The first comparison in which the canary is surely worse."""
        return next((w for w in self.compared() if w.surely), None)

    def _worse(self, what: str, found: Excess, n_canary: int, n_control: int) -> Worse:
        short = self._short.get(what)
        return Worse(
            what=what,
            value=found.value,
            least=found.least,
            tolerated=TOLERATED[what],
            short=None if short is None else (short.mean if short.n else -math.inf),
            n_canary=n_canary,
            n_control=n_control,
        )


def _of_pairs(pairs: Tally) -> Excess | None:
    """The mean of differences and its lower bound, at any time."""
    if pairs.n < LEAST_OF_ARM:
        return None
    intrinsic = pairs.squares + _PSEUDO * pairs.n
    tightest = intrinsic * _TIGHTEST / pairs.n
    return Excess(pairs.mean, pairs.mean - boundary(intrinsic, ALPHA, tightest) / pairs.n)
