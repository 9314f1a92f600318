"""Class prices of quality and punctuality: what one more good, or punctual, answer is worth.

An SLA class promises averages: 95 % good, 95 % on time. Its prices rise while delivery falls
short and fall while it exceeds, so that buying least cost − λ·P(good) − μ·P(on time) delivers the
promise at the least cost (online primal–dual). The steps are in the logarithm, slow, and
capped by a stated reserve: past the pool's kink one more good answer costs many times more,
and an uncapped price runs there on noise. P(good) is the model's own estimate, so a biased
model would hide a shortfall: labels correct it (`bias`), the doubly robust way.

What a class buys is learnt label by label, while its price would move request by request: where
few answers are judged, a price that runs at full speed is at its cap long before the cheap offers
are known, and buys the dearest ones meanwhile. So its step is scaled by the share of requests
that are judged (docs/decisions/0010).

A class's state depends on its own events in order, and at its birth on the classes of its task
or, where those say nothing, on the prices its first decision was made at: the gateway, which
knows every task's, had them from `starting_prices`.

References
----------
Agrawal, Devanur: Fast algorithms for online stochastic convex programming (SODA 2015).
Balseiro, Gur: Learning in repeated auctions with budgets, Management Science 2019.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec import Struct

from bidding.errors import BadState
from bidding.params import PacingParams
from bidding.trial import TrialPacing, class_and_arm
from bidding.units import NUSD_PER_USD

STATE_VERSION: Final = 2.0
_WELL_KNOWN: Final = 50.0
_NEAR: Final = 0.05
"""Targets that differ by no more are alike."""
_SHARE_PRIOR: Final = (2.0, 10.0)
"""Labels and requests a class is taken to have had before its first."""


Prices = tuple[float | None, float | None]
"""λ and μ in nusd; None where there is none."""


class ClassPrices(Struct, frozen=True, kw_only=True):
    """An SLA class's market prices, with what was promised and delivered.

    `delivered_*` are decayed shares over `n` requests; `*_binding` says a price is at its cap,
    so the promise cannot be had within the stated reserve.
    """

    sla_class: str
    quality_price_nusd: float
    punctuality_price_nusd: float
    target_quality: float | None = None
    target_on_time: float | None = None
    delivered_quality: float | None = None
    delivered_on_time: float | None = None
    n: float = 0.0
    n_labels: float = 0.0
    quality_binding: bool = False
    punctuality_binding: bool = False


class _ClassState:
    __slots__ = (
        "log_lambda",
        "log_mu",
        "n",
        "n_deadline",
        "n_labels",
        "n_recent_labels",
        "on_time_bias",
        "on_time_sum",
        "p_good_sum",
        "quality_bias",
        "target_on_time",
        "target_quality",
    )

    def __init__(self, log_lambda: float, log_mu: float) -> None:
        self.log_lambda = log_lambda
        self.log_mu = log_mu
        self.quality_bias = 0.0
        self.on_time_bias = 0.0
        self.n = 0.0
        self.n_labels = 0.0
        self.n_recent_labels = 0.0
        self.n_deadline = 0.0
        self.p_good_sum = 0.0
        self.on_time_sum = 0.0
        self.target_quality = math.nan
        self.target_on_time = math.nan


class ClassPricer:
    """Folds decisions and feedback of one task into the prices of its SLA classes."""

    def __init__(self, params: PacingParams | None = None) -> None:
        self.params = params or PacingParams()
        self._trials: dict[str, TrialPacing] = {}
        self._classes: dict[str, _ClassState] = {}

    def steer(self, params: PacingParams, trials: Mapping[str, TrialPacing]) -> None:
        """Go on under other params; classes of trials that have ended are forgotten."""
        self.params = params
        self._trials = dict(trials)
        for name in [n for n in self._classes if self._law(n) is None]:
            del self._classes[name]

    def _law(self, name: str) -> TrialPacing | None:
        """How the class's prices move; None for a class of a trial that is not known."""
        arm = class_and_arm(name)[1]
        return self._trials.get(arm) if arm else TrialPacing(self.params)

    def fold_decision(
        self,
        sla_class: str,
        *,
        target_quality: float | None,
        target_on_time: float | None,
        p_good: float | None,
        p_on_time: float | None,
        on_time: bool | None,
        free: bool,
        paid_nusd: Prices = (None, None),
    ) -> None:
        """Take in one settled decision.

        Parameters
        ----------
        p_good, p_on_time : float or None
            What the delivered offer was believed to do; None leaves that price alone.
        on_time : bool or None
            What was delivered; None when there was no deadline.
        free : bool
            Whether there was a choice; a pinned request moves no price.
        paid_nusd : (float or None, float or None)
            λ and μ it was decided at, None where the app stated its own or had no target: where
            the class starts if it is new and its task has none like it.
        """
        law = self._law(sla_class)
        if law is None:
            return
        p = law.params
        state = self._class(sla_class, target_quality, target_on_time, paid_nusd)
        keep = 0.5 ** (1.0 / p.delivered_half_life)
        if p_good is not None and math.isfinite(p_good):
            p_good = _share(p_good)
            state.n = state.n * keep + 1.0
            state.n_recent_labels *= keep
            state.p_good_sum = state.p_good_sum * keep + p_good
            if target_quality is not None and free:
                short = target_quality + p.quality_margin - p_good - state.quality_bias
                state.log_lambda = _step(
                    state.log_lambda,
                    law.pace * _quality_step(state, p) * short,
                    p.floor_price_usd,
                    p.quality_reserve_usd,
                )
        if on_time is not None and target_on_time is not None:
            state.n_deadline = state.n_deadline * keep + 1.0
            state.on_time_sum = state.on_time_sum * keep + float(on_time)
            believed = (
                p_on_time if p_on_time is not None and math.isfinite(p_on_time) else float(on_time)
            )
            state.on_time_bias += (
                p.label_step * 4.0 * (float(on_time) - believed - state.on_time_bias)
            )
            if free:
                short = target_on_time - believed - state.on_time_bias
                state.log_mu = _step(
                    state.log_mu,
                    law.pace * p.punctuality_step * short,
                    p.floor_price_usd,
                    p.punctuality_reserve_usd,
                )

    def fold_label(self, sla_class: str, *, quality: float, p_good: float, weight: float) -> None:
        """Take in a quality score in 0..1 of an answer believed good with `p_good`."""
        if not (math.isfinite(quality) and math.isfinite(p_good) and math.isfinite(weight)):
            return
        law = self._law(sla_class)
        if law is None:
            return
        state = self._class(sla_class, None, None)
        weight, quality, p_good = _share(weight), _share(quality), _share(p_good)
        step = max(law.params.label_step, weight / (state.n_labels + 20.0))
        state.n_labels += weight
        state.n_recent_labels += 1.0
        state.quality_bias += weight * step * (quality - p_good - state.quality_bias)

    def prices(self) -> list[ClassPrices]:
        """What is published of every class, by name."""
        return [self._published(name, self._classes[name]) for name in sorted(self._classes)]

    def price_of(self, sla_class: str) -> ClassPrices | None:
        """What is published of one class; None before its first decision."""
        state = self._classes.get(sla_class)
        return None if state is None else self._published(sla_class, state)

    def state(self) -> dict[str, list[float]]:
        """Every class's memory as floats; NaN (no target) is written as -1."""
        return {
            name: [STATE_VERSION]
            + [_encoded(float(getattr(state, slot))) for slot in _ClassState.__slots__]
            for name, state in self._classes.items()
        }

    def restore(self, states: Mapping[str, Sequence[float]]) -> None:
        """Replace all memory. Raises `BadState` on another version or shape."""
        classes: dict[str, _ClassState] = {}
        for name, numbers in states.items():
            if len(numbers) != len(_ClassState.__slots__) + 1 or numbers[0] != STATE_VERSION:
                raise BadState(f"class prices of {name!r}: version or shape unknown")
            state = _ClassState(0.0, 0.0)
            for slot, number in zip(_ClassState.__slots__, numbers[1:], strict=True):
                is_target = slot.startswith("target")
                setattr(state, slot, math.nan if is_target and number < 0 else number)
            classes[name] = state
        self._classes = classes

    def _class(
        self,
        name: str,
        target_quality: float | None,
        target_on_time: float | None,
        paid_nusd: Prices = (None, None),
    ) -> _ClassState:
        state = self._classes.get(name)
        plain, arm = class_and_arm(name)
        if state is None and arm and plain in self._classes:
            # A trial begins with all that is known outside of it.
            state = self._classes[name] = copy.copy(self._classes[plain])
        if state is None:
            start = starting_prices(
                self.prices(), target_quality, target_on_time, self.params, paid_nusd
            )
            state = _ClassState(
                math.log(start[0] / NUSD_PER_USD), math.log(start[1] / NUSD_PER_USD)
            )
            self._classes[name] = state
        if target_quality is not None:
            state.target_quality = target_quality
        if target_on_time is not None:
            state.target_on_time = target_on_time
        return state

    def _published(self, name: str, state: _ClassState) -> ClassPrices:
        p = (self._law(name) or TrialPacing(self.params)).params
        quality = None
        if state.n > 0:
            quality = min(max(state.p_good_sum / state.n + state.quality_bias, 0.0), 1.0)
        return ClassPrices(
            sla_class=name,
            quality_price_nusd=math.exp(state.log_lambda) * NUSD_PER_USD,
            punctuality_price_nusd=math.exp(state.log_mu) * NUSD_PER_USD,
            target_quality=_or_none(state.target_quality),
            target_on_time=_or_none(state.target_on_time),
            delivered_quality=quality,
            delivered_on_time=state.on_time_sum / state.n_deadline if state.n_deadline else None,
            n=state.n,
            n_labels=state.n_labels,
            quality_binding=state.log_lambda >= math.log(p.quality_reserve_usd) - 1e-9,
            punctuality_binding=state.log_mu >= math.log(p.punctuality_reserve_usd) - 1e-9,
        )


def _quality_step(state: _ClassState, params: PacingParams) -> float:
    """Log-step of λ per unit of shortfall, slower where few answers are judged."""
    share = (state.n_recent_labels + _SHARE_PRIOR[0]) / (state.n + _SHARE_PRIOR[1])
    scale: float = min(share, 1.0) ** params.label_scaling
    return params.quality_step * scale


def starting_prices(
    classes: Iterable[ClassPrices],
    target_quality: float | None,
    target_on_time: float | None,
    params: PacingParams,
    otherwise_nusd: Prices = (None, None),
) -> tuple[float, float]:
    """Prices of quality and punctuality for a class without a history, in nusd.

    A new class starts where a class of its task with the nearest target stands, so that the
    first request of a new tenant is not naive; without one at `otherwise_nusd` (see
    `prices_elsewhere`), and without that at the stated defaults. Never beyond floor and reserve.
    """
    known = _well_known(classes)
    default = _defaults(params)
    quality = punctuality = None
    if target_quality is not None:
        quality = _nearest(_of_quality(known), target_quality)
    if target_on_time is not None:
        punctuality = _nearest(_of_punctuality(known), target_on_time)
    floor = params.floor_price_usd
    # Below the floor nothing was priced: the request was bought by another rule than ours.
    priced = [p if p and p >= floor * NUSD_PER_USD else None for p in otherwise_nusd]
    quality = _first(quality, priced[0], default[0])
    punctuality = _first(punctuality, priced[1], default[1])
    return (
        _within(quality, floor, params.quality_reserve_usd),
        _within(punctuality, floor, params.punctuality_reserve_usd),
    )


def prices_elsewhere(
    tasks: Iterable[Iterable[ClassPrices]],
    target_quality: float | None,
    target_on_time: float | None,
    params: PacingParams,
) -> tuple[float, float]:
    """Where a class starts whose own task knows none like it: λ and μ in nusd.

    The mean in the logarithm of what tasks pay for like targets, each task one vote (the mean of
    its like classes, by the logarithm too), and the stated default one more: with few tasks it
    stays near the default, with many it is theirs.
    """
    default = _defaults(params)
    qualities: list[float] = []
    punctualities: list[float] = []
    for classes in tasks:
        known = _well_known(classes)
        qualities += _vote(_of_quality(known), target_quality)
        punctualities += _vote(_of_punctuality(known), target_on_time)
    return _mean_price(qualities, default[0]), _mean_price(punctualities, default[1])


def _well_known(classes: Iterable[ClassPrices]) -> list[ClassPrices]:
    """Those with a history, but for the classes of trials: they price nobody else's requests."""
    return [c for c in classes if c.n >= _WELL_KNOWN and not class_and_arm(c.sla_class)[1]]


def _defaults(params: PacingParams) -> tuple[float, float]:
    return (
        max(params.start_quality_price_usd * NUSD_PER_USD, 1.0),
        max(params.start_punctuality_price_usd * NUSD_PER_USD, 1.0),
    )


def _of_quality(classes: Iterable[ClassPrices]) -> list[tuple[float, str, float]]:
    """Target, name and price of each class that has a target."""
    return [
        (c.target_quality, c.sla_class, c.quality_price_nusd)
        for c in classes
        if c.target_quality is not None and 0.0 < c.quality_price_nusd < math.inf
    ]


def _of_punctuality(classes: Iterable[ClassPrices]) -> list[tuple[float, str, float]]:
    return [
        (c.target_on_time, c.sla_class, c.punctuality_price_nusd)
        for c in classes
        if c.target_on_time is not None and 0.0 < c.punctuality_price_nusd < math.inf
    ]


def _nearest(known: Iterable[tuple[float, str, float]], target: float) -> float | None:
    near = [(abs(t - target), name, price) for t, name, price in known if abs(t - target) <= _NEAR]
    return min(near)[2] if near else None


def _vote(known: Iterable[tuple[float, str, float]], target: float | None) -> list[float]:
    """One task's mean log-price for targets like this; empty where it has none."""
    if target is None:
        return []
    logs = [math.log(price) for t, _, price in known if abs(t - target) <= _NEAR]
    return [math.fsum(logs) / len(logs)] if logs else []


def _mean_price(logs: Sequence[float], default: float) -> float:
    return math.exp(math.fsum([*logs, math.log(default)]) / (len(logs) + 1))


def _first(*prices: float | None) -> float:
    """The first price that there is."""
    return next(p for p in prices if p is not None and 0.0 < p < math.inf)


def _within(nusd: float, floor_usd: float, reserve_usd: float) -> float:
    low = max(floor_usd * NUSD_PER_USD, 1.0)
    return min(max(nusd, low), max(reserve_usd * NUSD_PER_USD, low))


def _share(number: float) -> float:
    return min(max(number, 0.0), 1.0)


def _step(log_price: float, step: float, floor_usd: float, reserve_usd: float) -> float:
    low = math.log(max(floor_usd, 1e-9))
    return min(max(log_price + step, low), max(math.log(max(reserve_usd, 1e-9)), low))


def _encoded(number: float) -> float:
    return -1.0 if math.isnan(number) else number


def _or_none(number: float) -> float | None:
    return None if math.isnan(number) else number
