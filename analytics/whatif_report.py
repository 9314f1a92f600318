"""What a change of params would do, in figures and in a verdict on every promise.

A promise is called by intervals, never by a point alone. It is *broken* when the whole interval of
what would be delivered lies below it and the whole interval of the change below zero; *at risk*
when a shortfall of `BREACH` is within the change's interval, and the change makes it worse by
more than `SLACK`. A promise missed already is not the change's doing.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec
import numpy as np
from msgspec import Struct

from analytics.whatif import (
    NOT_DRIVEN,
    Columns,
    Drives,
    Imagined,
    cost_columns,
    good_columns,
    on_time_columns,
)
from bidding.off_policy import Estimate, Interval, estimate
from bidding.params_change import Difference, differences
from bidding.units import NUSD_PER_USD
from feeds.records import DecisionRecord

SLACK: Final = 0.005
"""A change for the worse by less is taken for none."""
BREACH: Final = 0.02
"""A promise is broken where delivery falls this much short of it and of what it was."""
LEAST_OF_CLASS: Final = 30
"""Decisions below which a class is not judged."""
_MOST_OFFERS: Final = 30

Verdict = Literal["kept", "at_risk", "broken", "missed_already"]
Promised = Literal["quality", "on_time"]


class Outlook(Struct, frozen=True, kw_only=True):
    """One outcome a request: in force now, under the other params, and the difference."""

    now: float
    then: Estimate
    change: Interval


class Promise(Struct, frozen=True, kw_only=True):
    """What would become of a promise to an SLA class."""

    sla_class: str
    what: Promised
    promised: float
    n: int
    now: float
    then: Interval
    change: Interval
    supported_share: float
    verdict: Verdict


class OfferShift(Struct, frozen=True, kw_only=True):
    """An offer's part of purchases and of expected spend."""

    offer: str
    share_now: float
    share_then: float
    usd_now: float
    usd_then: float


class WhatIf(Struct, frozen=True, kw_only=True):
    """What a change of params would have done to recorded decisions.

    Attributes
    ----------
    n_decisions, n_missing : int
        Decisions driven, and those that could not be.
    changed_share : float
        Share of them of which another offer would be the best bid.
    cost_usd, good, on_time : Outlook
        Per request; `on_time` over requests with a deadline. None where there are none.
    promises : list of Promise
        The worst first.
    not_covered : list of str
        Numbers changed whose effect cannot be seen this way.
    called : bool
        Whether some promise would be broken or is at risk.
    """

    n_decisions: int
    n_missing: int
    changed: list[Difference]
    changed_share: float
    cost_usd: Outlook | None
    good: Outlook | None
    on_time: Outlook | None
    promises: list[Promise]
    offers: list[OfferShift]
    not_covered: list[str]
    called: bool


def report(drives: Drives, *, n_missing: int = 0) -> WhatIf:
    """The figures of a drive.

    Intervals are as much wider as going astray moves the estimate, and as driving through the
    params in force misses what was recorded.
    """
    imagined = drives.imagined
    promises = _promises(imagined)
    changed = differences(drives.now, drives.then)
    return WhatIf(
        n_decisions=len(imagined),
        n_missing=n_missing,
        changed=changed,
        changed_share=float(np.mean([i.changed for i in imagined])) if imagined else 0.0,
        cost_usd=_widened(drives, cost_columns, math.inf),
        good=_widened(drives, good_columns, 1.0),
        on_time=_widened(drives, on_time_columns, 1.0),
        promises=promises,
        offers=_shifts(imagined),
        not_covered=[c.path for c in changed if c.path.startswith(NOT_DRIVEN)],
        called=any(p.verdict in ("broken", "at_risk") for p in promises),
    )


def _widened(
    drives: Drives, columns: Callable[[Sequence[Imagined]], Columns], high: float
) -> Outlook | None:
    made = columns(drives.imagined)
    if not len(made.then.outcome):
        return None
    found = _outlook(made, high)
    astray = [estimate(columns(a).then).doubly_robust.value for a in drives.astray]
    middle = found.then.doubly_robust.value
    missed = estimate(columns(drives.check).then).doubly_robust.value - found.now
    beside = math.hypot((max(middle, *astray) - min(middle, *astray)) / 2.0, 2.0 * missed)
    then = msgspec.structs.replace(
        found.then, doubly_robust=_wider(found.then.doubly_robust, beside, 0.0, high)
    )
    return Outlook(
        now=found.now, then=then, change=_wider(found.change, beside, -math.inf, math.inf)
    )


def _wider(found: Interval, half: float, low: float, high: float) -> Interval:
    """An interval with another half-width added as an independent doubt."""
    below = math.hypot(found.value - found.low, half)
    above = math.hypot(found.high - found.value, half)
    return Interval(found.value, max(found.value - below, low), min(found.value + above, high))


def _outlook(columns: Columns, high: float) -> Outlook:
    return Outlook(
        now=estimate(columns.now, low=0.0, high=high).doubly_robust.value,
        then=estimate(columns.then, low=0.0, high=high),
        change=estimate(columns.change).doubly_robust,
    )


def _promises(imagined: Sequence[Imagined]) -> list[Promise]:
    classes: dict[str, list[Imagined]] = defaultdict(list)
    for one in imagined:
        classes[one.record.sla_class].append(one)
    found: list[Promise] = []
    for name, members in classes.items():
        if len(members) < LEAST_OF_CLASS:
            continue
        first = members[0].record
        if first.target_quality is not None:
            outlook = _outlook(good_columns(members), 1.0)
            found.append(_promise(first, "quality", first.target_quality, outlook, name))
        if first.target_on_time is not None:
            outlook = _outlook(on_time_columns(members), 1.0)
            found.append(_promise(first, "on_time", first.target_on_time, outlook, name))
    return sorted(found, key=lambda p: (_ORDER[p.verdict], p.then.value - p.promised))


_ORDER: Final[dict[Verdict, int]] = {"broken": 0, "at_risk": 1, "missed_already": 2, "kept": 3}


def _promise(
    record: DecisionRecord, what: Promised, promised: float, outlook: Outlook, name: str
) -> Promise:
    then = outlook.then.doubly_robust
    return Promise(
        sla_class=name,
        what=what,
        promised=promised,
        n=outlook.then.n,
        now=outlook.now,
        then=then,
        change=outlook.change,
        supported_share=outlook.then.supported_share,
        verdict=verdict(promised, outlook.now, then, outlook.change),
    )


def verdict(promised: float, now: float, then: Interval, change: Interval) -> Verdict:
    """What becomes of a promise.

    Examples
    --------
    >>> verdict(0.9, 0.91, Interval(0.8, 0.78, 0.82), Interval(-0.11, -0.13, -0.09))
    'broken'
    >>> verdict(0.9, 0.91, Interval(0.9, 0.86, 0.94), Interval(-0.01, -0.05, 0.03))
    'at_risk'
    >>> verdict(0.9, 0.91, Interval(0.9, 0.88, 0.92), Interval(-0.01, -0.02, 0.0))
    'kept'
    """
    if change.value < -SLACK:
        if then.high < promised and change.high < 0.0:
            return "broken"
        if now + change.low < min(promised, now) - BREACH:
            return "at_risk"
    least = promised - BREACH / 2.0
    return "missed_already" if now < least and then.value < least else "kept"


def _shifts(imagined: Sequence[Imagined]) -> list[OfferShift]:
    """Offers whose part changes most, first."""
    found: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0, 0.0])
    for one in imagined:
        for odds, at in ((one.was, 0), (one.then, 1)):
            usd = odds.probability * odds.cost_nusd / NUSD_PER_USD
            for offer, chance, spent in zip(
                odds.offers, odds.probability.tolist(), usd.tolist(), strict=True
            ):
                found[offer][at] += chance
                found[offer][at + 2] += spent
    n = max(len(imagined), 1)
    shifts = [
        OfferShift(
            offer=offer,
            share_now=was / n,
            share_then=then / n,
            usd_now=usd_was,
            usd_then=usd_then,
        )
        for offer, (was, then, usd_was, usd_then) in found.items()
    ]
    shifts.sort(key=lambda s: (-abs(s.share_then - s.share_now), s.offer))
    return shifts[:_MOST_OFFERS]
