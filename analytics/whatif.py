"""What other params would have bought: recorded decisions driven through them, one after another.

Each decision is made again on the very view it read, under its own params and under the others,
as a law over offers (`bidding.odds`) rather than one draw. What differs between the two is what
the change would do. Prices of quality and punctuality are not taken from the view, since they
answer to what is bought: they start where the log had them and go on by the real `ClassPricer`
under the other params, fed by what the other winners were expected to deliver.

What is not driven again: the estimators. Beliefs are those of the view, so a change of numbers
that act in the estimators is named as not covered instead of being called harmless.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np

from bidding.columns import Floats
from bidding.draws import uniform
from bidding.errors import BadState
from bidding.odds import Odds, odds_of
from bidding.off_policy import MAX_WEIGHT, Logged
from bidding.pacing import ClassPricer, ClassPrices
from bidding.params import Params
from bidding.request import BidRequest
from bidding.units import NUSD_PER_USD
from bidding.view import MarketView, Memo
from feeds.flight import request_of
from feeds.records import DecisionRecord
from feeds.view_maker import ClassStates

NOT_DRIVEN: Final = ("latency.", "reliability.", "tokens.")
"""Groups of params that act in the estimators, which are not driven again."""
_ON_TIME_DRAW: Final = 0x0471
_ASTRAY: Final = 2.0


Belief = Callable[[Odds], tuple[Floats, Floats]]
"""What the models expect of each offer that may be bought, and how sure they are."""


class Moment(NamedTuple):
    """A recorded decision with what it read, and how good its answer was if anybody said."""

    view: MarketView
    record: DecisionRecord
    params: Params
    states: ClassStates
    quality: float | None = None


class Imagined(NamedTuple):
    """A decision under its own params and under the others. Money in dollars.

    `alone` are the probabilities of `then`'s offers that the log cannot speak for, shape (k,).
    """

    record: DecisionRecord
    quality: float | None
    was: Odds
    then: Odds
    weight: float
    alone: Floats

    @property
    def changed(self) -> bool:
        """Whether another offer is the best bid."""
        return self.was.offers[:1] != self.then.offers[:1]


class Drive:
    """Decisions in the order in which they were made, through other params.

    Parameters
    ----------
    n_each : int
        How many requests each decision stands for, where they are a sample: class prices move
        that much faster.
    tilt : float
        By how many standard deviations the models are taken to be wrong, all one way, about
        what was never bought: how far class prices might go astray.
    """

    def __init__(self, params: Params, *, n_each: int = 1, tilt: float = 0.0) -> None:
        self._params = params
        self._n_each = n_each
        self._tilt = tilt
        self._pricers: dict[str, ClassPricer] = {}

    def take(self, moment: Moment, was: Odds | None = None) -> Imagined | None:
        """The decision again; None where nobody could bid. `was` spares finding its own odds."""
        record = moment.record
        was = odds_as_made(moment) if was is None else was
        plain = msgspec.structs.replace(request_of(record), arm="")
        pricer = self._pricer(moment, plain.task)
        then = odds_of(_repriced(moment.view, plain, pricer), plain, self._params)
        if record.winner is None or not was.offers or not then.offers:
            return None
        chance = was.of(record.winner)
        weight = then.of(record.winner) / chance if chance > 0.0 else 0.0
        made = Imagined(record, moment.quality, was, then, weight, unsupported(was, then))
        self._fold(pricer, plain, made)
        return made

    def prices(self) -> dict[str, ClassPrices]:
        """Where the class prices have got to."""
        return {c.sla_class: c for pricer in self._pricers.values() for c in pricer.prices()}

    def _pricer(self, moment: Moment, task: str) -> ClassPricer:
        pricer = self._pricers.get(task)
        if pricer is None:
            pricer = self._pricers[task] = ClassPricer(self._params.pacing)
            try:
                pricer.restore(moment.states.get(task, {}))
            except BadState:
                pricer = self._pricers[task] = ClassPricer(self._params.pacing)
        return pricer

    def _fold(self, pricer: ClassPricer, request: BidRequest, made: Imagined) -> None:
        """What the other winner was expected to deliver moves the prices."""
        record, then, quality = made.record, made.then, made.quality
        alone = self._tilt * made.alone
        p_good = _share(_dot(then.probability, then.p_good) + _dot(alone, then.p_good_sd))
        p_on_time = _share(_dot(then.probability, then.p_on_time) + _dot(alone, then.p_on_time_sd))
        same = then.of(record.winner) > 0.5
        on_time = None
        if record.target_on_time is not None:
            drawn = uniform(record.seed, _ON_TIME_DRAW) < p_on_time
            on_time = record.on_time if same and record.on_time is not None else drawn
        for _ in range(self._n_each):
            pricer.fold_decision(
                request.class_key,
                target_quality=record.target_quality,
                target_on_time=record.target_on_time,
                p_good=p_good,
                p_on_time=p_on_time,
                on_time=on_time,
                free=then.n_bids > 1 and record.candidates is None,
            )
            if quality is not None:
                # Of another winner's answer it is known that it would be judged, and not how.
                pricer.fold_label(
                    request.class_key, quality=quality, p_good=p_good, weight=float(same)
                )


class Known(NamedTuple):
    """What is found of a decision whatever the change: its own odds, and the check's word."""

    was: Odds
    check: Imagined | None


class Drives:
    """One drive by the models' word, two with class prices led astray both ways, and a check.

    The check goes through the params in force, and should come out as recorded: what it misses
    by is the error of driving itself.
    """

    def __init__(self, now: Params, then: Params, *, n_each: int = 1) -> None:
        tilts = (0.0, -_ASTRAY, _ASTRAY)
        self._drives = [Drive(then, n_each=n_each, tilt=t) for t in tilts]
        self._checking = Drive(now, n_each=n_each)
        self.now = now
        self.then = then
        self.imagined: list[Imagined] = []
        self.astray: tuple[list[Imagined], list[Imagined]] = ([], [])
        self.check: list[Imagined] = []
        self.n_taken = 0

    def take(self, moment: Moment, known: Known | None = None) -> Known:
        """The decision again, four times; nothing where nobody could bid.

        What is returned spares another change of the same params half of the work, if that is
        driven through the same decisions in the same order.
        """
        self.n_taken += 1
        if known is None:
            was = odds_as_made(moment)
            known = Known(was, self._checking.take(moment, was))
        made = [drive.take(moment, known.was) for drive in self._drives]
        for one, into in zip(
            (*made, known.check), (self.imagined, *self.astray, self.check), strict=True
        ):
            if one is not None:
                into.append(one)
        return known


def odds_as_made(moment: Moment) -> Odds:
    """What might have been bought where the decision was made."""
    return odds_of(moment.view, request_of(moment.record), moment.params)


def unsupported(was: Odds, then: Odds) -> Floats:
    """Probability of each of `then`'s offers that the log cannot speak for, shape (k,)."""
    chances = dict(zip(was.offers, was.probability.tolist(), strict=True))
    old = np.array([chances.get(offer, 0.0) for offer in then.offers])
    return np.where(then.probability > MAX_WEIGHT * old, then.probability, 0.0)


def _share(value: float) -> float:
    return min(max(value, 0.0), 1.0)


def _dot(a: Floats, b: Floats) -> float:
    return float(np.dot(a, b))


def _repriced(view: MarketView, request: BidRequest, pricer: ClassPricer) -> MarketView:
    """The view with the pricer's prices of the request's class in place of its own."""
    known = pricer.price_of(request.class_key)
    memo = view.memo
    return dataclasses.replace(
        view,
        classes={} if known is None else {known.sla_class: known},
        classes_of_task={**view.classes_of_task, request.task: tuple(pricer.prices())}
        if known is None
        else {},
        memo=Memo(
            gated=memo.gated,
            on_time=memo.on_time,
            fixed_nusd=memo.fixed_nusd,
            harm_nusd=memo.harm_nusd,
        ),
    )


class Columns(NamedTuple):
    """An outcome under the other params, under those in force, and the one less the other."""

    then: Logged
    now: Logged
    change: Logged


def good_columns(imagined: Sequence[Imagined]) -> Columns:
    """Whether answers are good, as far as anybody said."""
    outcomes = [math.nan if i.quality is None else i.quality for i in imagined]
    return _columns(imagined, outcomes, lambda o: (o.p_good, o.p_good_sd))


def on_time_columns(imagined: Sequence[Imagined]) -> Columns:
    """Whether answers are on time, of requests that have a deadline."""
    imagined = [i for i in imagined if i.record.target_on_time is not None]
    outcomes = [math.nan if i.record.on_time is None else float(i.record.on_time) for i in imagined]
    return _columns(imagined, outcomes, lambda o: (o.p_on_time, o.p_on_time_sd))


def cost_columns(imagined: Sequence[Imagined]) -> Columns:
    """Dollars paid.

    Models hardly err in what an offer costs, but in which one will be bought: where the log cannot
    speak, half of the move from the old cost to the new one counts as a standard deviation.
    """
    outcomes = [
        i.record.cost_nusd / NUSD_PER_USD if i.record.n_attempts else math.nan for i in imagined
    ]
    columns = _columns(
        imagined, outcomes, lambda o: (o.cost_nusd / NUSD_PER_USD, np.zeros(len(o.offers)))
    )
    moved = 0.5 * np.abs(columns.change.direct)
    alone = moved * columns.then.unsupported
    then = dataclasses.replace(columns.then, doubt=alone, doubt_all=moved)
    change = dataclasses.replace(columns.change, doubt=alone, doubt_all=moved)
    return Columns(then, columns.now, change)


def _columns(imagined: Sequence[Imagined], outcomes: Sequence[float], belief: Belief) -> Columns:
    rows: list[tuple[float, ...]] = []
    strata: dict[str, int] = {}
    stratum: list[int] = []
    for one in imagined:
        was_mean, _ = belief(one.was)
        mean, sd = belief(one.then)
        at = one.was.place(one.record.winner)
        chance, alone = one.then.probability, one.alone
        rows.append(
            (
                one.weight,
                math.nan if at is None else was_mean.item(at),
                float(chance @ mean),
                float(one.was.probability @ was_mean),
                float(alone.sum()),
                float(alone @ sd),
                float(chance @ sd),
            )
        )
        stratum.append(strata.setdefault(one.record.sla_class, len(strata)))
    n = len(rows)
    table = np.array(rows, dtype=np.float64).reshape(n, 7).T
    weight, believed, direct, direct_now, alone_, doubt, doubt_all = table
    outcome = np.where(np.isnan(believed), math.nan, np.array(outcomes, dtype=np.float64))
    believed = np.nan_to_num(believed)
    which = np.array(stratum, dtype=np.int64)
    none = np.zeros(n)
    return Columns(
        then=Logged(outcome, weight, believed, direct, alone_, doubt, doubt_all, which),
        now=Logged(outcome, np.ones(n), believed, direct_now, none, none, none, which),
        change=Logged(
            outcome, weight - 1.0, believed, direct - direct_now, alone_, doubt, doubt_all, which
        ),
    )
