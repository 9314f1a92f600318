"""What watches a canary: whether it fails more, keeps its promises worse, or costs more.

Requests are put in the canary or left outside by lot, so the two differ by their params alone.
What is seen at once of every request is compared first: failures, deadlines kept, and what was
believed of the offer bought against what the params in force would have bought for that very
request (a pair, which is worth many requests of either side). Scores of answers count as they
come. Every comparison is a confidence sequence, so one may look at any time; a change for the
worse counts once it surely exceeds its tolerance. A promise is not worse for being overfulfilled
less: quality and punctuality have to fall short of what was promised as well, and to do so now. By
the mean since the beginning a canary that begins generous would fall short minutes too late, and
one that begins in a bad moment, like the control, would be held to that long after.

A promise is made to an SLA class, so promises are compared class by class beside all together:
a class that is given more than it was promised would hide another that is given less. The n-th
class to be seen gets a share of 6 / (π n)² of the chance of a false alarm, so that all together
have no more than one comparison.

References
----------
`bidding.sequential`, for the bounds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from bidding.sequential import LEAST_OF_ARM, Excess, Recent, Tally, boundary, excess

ALPHA: Final = 0.005
"""Chance of a false alarm, ever, of one of the six comparisons; promises once more by class."""
MOST_CLASSES: Final = 256
"""Classes beyond these are compared with all others together only."""
SHORT_SD: Final = 2.0
"""How surely a promise has to be missed of late, for a comparison to count."""
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

    `sla_class` is the class's name without its arm. `other_*` is what the params in force would
    have bought for a request of the canary.
    """

    in_canary: bool
    failed: bool
    on_time: bool | None
    target_on_time: float | None
    target_quality: float | None
    cost_usd: float
    sla_class: str = ""
    p_good: float | None = None
    expected_usd: float | None = None
    other_p_good: float | None = None
    other_usd: float | None = None


class Worse(Struct, frozen=True, kw_only=True):
    """A comparison: by how much the canary is worse, at least by how much, and what is let pass.

    `short` is by how much a promise is missed of late, and `short_least` surely, None where nothing
    is promised; `sla_class` is empty for all classes together.
    """

    what: str
    value: float
    least: float
    tolerated: float
    short: float | None
    short_least: float | None
    n_canary: int
    n_control: int
    sla_class: str = ""

    @property
    def surely(self) -> bool:
        """Whether it is worse beyond doubt and, where something is promised, falls short of it."""
        return self.least > self.tolerated and (self.short_least is None or self.short_least > 0.0)


class _Arms:
    """An outcome of the control and of the canary; `short` of what was promised, if anything."""

    __slots__ = ("both", "short")

    def __init__(self) -> None:
        self.both = (Tally(), Tally())
        self.short = Recent()

    def fold(self, arm: int, value: float) -> None:
        self.both[arm].fold(value)

    def found(self, what: str, alpha: float, sla_class: str, promised: bool) -> Worse | None:
        control, canary = self.both
        found = excess(canary, control, alpha)
        if found is None:
            return None
        short = self.short if promised else None
        return _worse(what, found, short, canary.n, control.n, sla_class)


class _Pairs:
    """Differences to what would have been bought; `short` of what was promised, if anything."""

    __slots__ = ("differences", "short")

    def __init__(self) -> None:
        self.differences = Tally()
        self.short = Recent()

    def found(self, what: str, alpha: float, sla_class: str, promised: bool) -> Worse | None:
        pairs = self.differences
        found = _of_pairs(pairs, alpha)
        if found is None:
            return None
        short = self.short if promised else None
        return _worse(what, found, short, pairs.n, pairs.n, sla_class)


class _Promises:
    """Quality and punctuality of one class, or of all together.

    Parameters
    ----------
    alpha : chance of a false alarm of each of the three comparisons
    """

    __slots__ = ("_alpha", "_bad", "_late", "_less_good", "_sla_class")

    def __init__(self, alpha: float, sla_class: str = "") -> None:
        self._alpha = alpha
        self._sla_class = sla_class
        self._late, self._bad, self._less_good = _Arms(), _Arms(), _Pairs()

    def take(self, seen: Seen) -> None:
        if seen.on_time is not None and seen.target_on_time is not None:
            late = float(not seen.on_time)
            self._late.fold(int(seen.in_canary), late)
            if seen.in_canary:
                self._late.short.fold(late - 1.0 + seen.target_on_time)
        if seen.in_canary and seen.p_good is not None and seen.other_p_good is not None:
            self._less_good.differences.fold(seen.other_p_good - seen.p_good)
            if seen.target_quality is not None:
                self._less_good.short.fold(seen.target_quality - seen.p_good)

    def score(self, in_canary: bool, quality: float, target: float | None) -> None:
        self._bad.fold(int(in_canary), 1.0 - quality)
        if in_canary and target is not None:
            self._bad.short.fold(target - quality)

    def compared(self) -> Iterator[Worse | None]:
        alpha, whose = self._alpha, self._sla_class
        yield self._late.found("late", alpha, whose, True)
        yield self._bad.found("bad", alpha, whose, True)
        yield self._less_good.found("less_good", alpha, whose, True)


class Guard:
    """The tallies of one canary. Pure.

    Attributes
    ----------
    n : requests of the control and of the canary
    """

    def __init__(self) -> None:
        self.n = [0, 0]
        self._failed, self._spend, self._dearer = _Arms(), _Arms(), _Pairs()
        self._all = _Promises(ALPHA)
        self._classes: dict[str, _Promises] = {}
        self._control_usd = Tally()

    def take(self, seen: Seen) -> None:
        """Take in one settled request."""
        arm = int(seen.in_canary)
        self.n[arm] += 1
        self._failed.fold(arm, float(seen.failed))
        self._all.take(seen)
        promises = self._promises(seen.sla_class)
        if promises is not None:
            promises.take(seen)
        usual_usd = self._control_usd.mean
        if not arm:
            self._control_usd.fold(seen.cost_usd)
        if usual_usd <= 0.0:
            return
        self._spend.fold(arm, min(seen.cost_usd / usual_usd, _DEAREST))
        if arm and seen.expected_usd is not None and seen.other_usd is not None:
            more = (seen.expected_usd - seen.other_usd) / usual_usd
            self._dearer.differences.fold(max(min(more, _DEAREST), -_DEAREST))

    def score(
        self, *, in_canary: bool, quality: float, target: float | None, sla_class: str = ""
    ) -> None:
        """Take in how good an answer was, in 0..1."""
        self._all.score(in_canary, quality, target)
        promises = self._promises(sla_class)
        if promises is not None:
            promises.score(in_canary, quality, target)

    def compared(self) -> Iterator[Worse]:
        """Every comparison that has enough behind it: of all requests, then by class."""
        every = [
            self._failed.found("failed", ALPHA, "", False),
            *self._all.compared(),
            self._spend.found("spend", ALPHA, "", False),
            self._dearer.found("dearer", ALPHA, "", False),
        ]
        for promises in self._classes.values():
            every += promises.compared()
        yield from (one for one in every if one is not None)

    def breach(self) -> Worse | None:
        """The first comparison in which the canary is surely worse."""
        return next((w for w in self.compared() if w.surely), None)

    def _promises(self, sla_class: str) -> _Promises | None:
        """The class's own; None where it has no name or there are too many."""
        found = self._classes.get(sla_class)
        if found is None and sla_class and len(self._classes) < MOST_CLASSES:
            nth = len(self._classes) + 1
            found = self._classes[sla_class] = _Promises(
                6.0 * ALPHA / (math.pi * nth) ** 2, sla_class
            )
        return found


def _worse(
    what: str, found: Excess, short: Recent | None, n_canary: int, n_control: int, sla_class: str
) -> Worse:
    return Worse(
        what=what,
        value=found.value,
        least=found.least,
        tolerated=TOLERATED[what],
        short=None if short is None else short.mean,
        short_least=None if short is None else short.least(SHORT_SD),
        n_canary=n_canary,
        n_control=n_control,
        sla_class=sla_class,
    )


def _of_pairs(pairs: Tally, alpha: float) -> Excess | None:
    """The mean of differences and its lower bound, at any time."""
    if pairs.n < LEAST_OF_ARM:
        return None
    intrinsic = pairs.squares + _PSEUDO * pairs.n
    tightest = intrinsic * _TIGHTEST / pairs.n
    return Excess(pairs.mean, pairs.mean - boundary(intrinsic, alpha, tightest) / pairs.n)
