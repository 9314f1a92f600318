"""What another policy would have delivered, from what this one bought: off-policy estimates.

Every decision carries the probability with which its winner was chosen, so what was delivered
can be weighed anew: by what another policy would have given that winner (IPS; SNIPS divides by
the weights' own sum). The doubly robust estimate starts from what the models believe of the
other policy's winners and corrects it by what the log shows of the models' errors; it is right
if either is.

A broker buys nearly always its best bid, so where another policy would buy something else its
weights are either huge or not there at all. Weights above a limit are therefore not used
(SWITCH): there the estimate is the models' alone, and the interval is widened by what the
models say of their own doubt, as if all of it went one way, and by the bias they showed where
they could be checked. An estimate of which too much rests on that is told and not claimed.

References
----------
Dudík, Erhan, Langford, Li: Doubly robust policy evaluation and optimization, Statistical Science
29(4), 2014. Wang, Agarwal, Dudík: Optimal and adaptive off-policy evaluation in contextual
bandits (SWITCH), ICML 2017. Swaminathan, Joachims: The self-normalized estimator for
counterfactual learning, NeurIPS 2015. Kong: A note on importance sampling using standardized
weights, 1992 (effective sample size).
Alexopoulos, Seila: Output data analysis, Handbook of Simulation, 1998 (batch means).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from msgspec import Struct

from bidding.columns import Bools, Floats, Ints

MAX_WEIGHT: Final = 20.0
"""Above it a weight is one rare event standing for many; the models are asked instead."""
LEAST_ESS: Final = 50.0
LEAST_KNOWN: Final = 50
LEAST_SUPPORTED: Final = 0.5
LEAST_OF_STRATUM: Final = 20
_N_STRETCHES: Final = 10
_T95: Final = 2.262157162798205
"""97.5 % quantile of Student's t with one degree of freedom less than there are stretches."""
_LEAST_STRETCH: Final = 10
_Z95: Final = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Logged:
    """Decisions in order of time as columns, shape (n,), for one outcome (good, on time, dollars).

    Attributes
    ----------
    outcome : what was delivered; NaN where it is not known
    weight : probability that the other policy buys what was bought, over that of this one
    believed : outcome the models expected of what was bought
    direct : outcome the models expect of the other policy, over all it may buy
    unsupported : probability with which the other policy buys what this one would have bought
        with less than 1 / `MAX_WEIGHT` of that probability, or never
    doubt : standard deviation of the models' belief, over what is unsupported
    doubt_all : the same over all that the other policy may buy
    stratum : whose outcomes are known at a rate of its own (an SLA class), 0, 1, …
    """

    outcome: Floats
    weight: Floats
    believed: Floats
    direct: Floats
    unsupported: Floats
    doubt: Floats
    doubt_all: Floats
    stratum: Ints

    def taken(self, rows: Bools) -> Logged:
        """Some of the decisions."""
        return Logged(*(getattr(self, name)[rows] for name in self.__slots__))


class Interval(Struct, frozen=True):
    """An estimate and its 95 % interval; NaN where nothing can be said."""

    value: float
    low: float
    high: float


class Estimate(Struct, frozen=True, kw_only=True):
    """One outcome under the other policy.

    Attributes
    ----------
    direct : float
        What the models alone say.
    n, n_known : int
        Decisions, and those whose outcome is known.
    ess : float
        Effective number of known outcomes behind the corrections.
    supported_share : float
        Share of the other policy's purchases that this one might have made.
    bias : float
        Outcome less belief, on average over what was bought.
    claimed : bool
        Whether the doubly robust estimate may be relied on; otherwise `refused` says why not.
    """

    doubly_robust: Interval
    ips: Interval
    snips: Interval
    direct: float
    n: int
    n_known: int
    ess: float
    supported_share: float
    bias: float
    claimed: bool
    refused: str = ""


_NOTHING: Final = Interval(math.nan, math.nan, math.nan)


def estimate(logged: Logged, *, low: float = -math.inf, high: float = math.inf) -> Estimate:
    """Estimate an outcome that is never below `low` nor above `high`.

    Notes
    -----
    Outcomes may be missing at a rate that differs by stratum, but within one must be missing at
    random. A stratum with too few of them is taken from the models alone.
    """
    n = len(logged.outcome)
    if n == 0:
        return Estimate(
            doubly_robust=_NOTHING, ips=_NOTHING, snips=_NOTHING, direct=math.nan, n=0, n_known=0,
            ess=0.0, supported_share=0.0, bias=0.0, claimed=False, refused="no decisions",
        )  # fmt: skip
    known = ~np.isnan(logged.outcome)
    share = _known_share(known, logged.stratum)
    told = known & (share > 0.0)
    scale = np.divide(1.0, share, out=np.zeros(n), where=told)
    outcome = np.where(told, logged.outcome, 0.0)
    weight = np.where(told, logged.weight, 0.0)
    used = np.where(weight <= MAX_WEIGHT, weight, 0.0)
    ess = _ess(used)
    error = np.where(told, outcome - logged.believed, 0.0)
    n_known = int(np.count_nonzero(told))
    bias = float(np.sum(error)) / n_known if n_known else 0.0
    unsupported = np.where(share > 0.0, logged.unsupported, 1.0)
    doubt = np.where(share > 0.0, logged.doubt, logged.doubt_all)
    beside = float(np.mean(doubt)) + abs(bias) * float(np.mean(unsupported))
    supported = 1.0 - float(np.mean(unsupported))
    refused = _refusal(n_known, ess, supported)
    return Estimate(
        doubly_robust=_bounded(
            _mean(logged.direct + scale * used * error, beside), low=low, high=high
        ),
        ips=_bounded(_mean(scale * weight * outcome, 0.0), low=low, high=high),
        snips=_bounded(_snips(weight * scale, outcome), low=low, high=high),
        direct=float(np.mean(logged.direct)),
        n=n,
        n_known=n_known,
        ess=ess,
        supported_share=supported,
        bias=bias,
        claimed=not refused,
        refused=refused,
    )


def _known_share(known: Bools, stratum: Ints) -> Floats:
    """Share of each decision's stratum whose outcome is known; 0 where too few are."""
    n_of = np.bincount(stratum)
    n_known = np.bincount(stratum, weights=known)
    share = np.where(
        n_known >= np.minimum(LEAST_OF_STRATUM, n_of), n_known / np.maximum(n_of, 1), 0.0
    )
    found: Floats = share[stratum]
    return found


def _ess(weight: Floats) -> float:
    squares = float(np.sum(weight * weight))
    return float(np.sum(weight)) ** 2 / squares if squares else 0.0


def _mean(values: Floats, beside: float) -> Interval:
    """A mean, its sampling error and a doubt beside it (a standard deviation).

    Decisions in a row share prices and beliefs, so they do not err independently: the means of
    stretches in a row say how much they vary together (batch means).
    """
    n = len(values)
    mean = float(np.mean(values))
    half = _Z95 * math.sqrt(float(np.var(values, ddof=1)) / n) if n > 1 else math.inf
    if n >= _N_STRETCHES * _LEAST_STRETCH:
        stretches = [float(np.mean(part)) for part in np.array_split(values, _N_STRETCHES)]
        half = max(half, _T95 * math.sqrt(float(np.var(stretches, ddof=1)) / _N_STRETCHES))
    half = math.hypot(half, _Z95 * beside)
    return Interval(mean, mean - half, mean + half)


def _snips(weight: Floats, outcome: Floats) -> Interval:
    total = float(np.sum(weight))
    if not total:
        return _NOTHING
    value = float(np.sum(weight * outcome)) / total
    half = _Z95 * math.sqrt(float(np.sum((weight * (outcome - value)) ** 2))) / total
    return Interval(value, value - half, value + half)


def _bounded(found: Interval, *, low: float, high: float) -> Interval:
    value, lower, upper = (min(max(x, low), high) for x in (found.value, found.low, found.high))
    return found if math.isnan(found.value) else Interval(value, lower, upper)


def _refusal(n_known: int, ess: float, supported: float) -> str:
    """Why the log cannot bear the estimate; empty where it can."""
    if n_known < LEAST_KNOWN:
        return f"only {n_known} outcomes are known; {LEAST_KNOWN} are the least"
    if supported < LEAST_SUPPORTED:
        return (
            f"only {supported:.0%} of what would be bought might have been bought before; "
            f"{LEAST_SUPPORTED:.0%} is the least"
        )
    if ess < LEAST_ESS:
        return f"outcomes worth only {ess:.0f} bear on it; {LEAST_ESS:.0f} are the least"
    return ""
