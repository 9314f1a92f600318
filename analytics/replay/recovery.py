"""How long a shock was felt: from the curve of all seeds together, with a bootstrap interval.

A single stream's quality over 200 requests is uncertain by two points, so recovery within one
point cannot be read off it; the mean over seeds can. The interval resamples seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from msgspec import Struct

from analytics.replay.episode import Trace
from analytics.replay.files import Floats
from analytics.replay.shocks import ShockPlan

SMOOTHING = 200
N_RESAMPLES = 200
NEXT = 1000
PRICE_WITHIN = 1.10
QUALITY_WITHIN = 0.01


class Recovery(Struct, frozen=True, kw_only=True):
    """What happened after the shock, over all seeds.

    Attributes
    ----------
    requests : until the trailing mean of the last 200 is back: quality within a point of the
        target, or, for a newcomer, cost within a tenth of where it settles. 0: never left.
    low, high : 95 % bootstrap interval of it
    worst_short : largest shortfall of a trailing mean over the next 1,000 requests
    """

    requests: float
    low: float
    high: float
    worst_short: float


def recovery(traces: Sequence[Trace], plan: ShockPlan, target: float) -> Recovery:
    """Recovery after `plan`, from the traces of one policy over all seeds."""
    quality = np.array([trace.quality[plan.at :] for trace in traces])
    cost = np.array([trace.cost_nusd[plan.at :] for trace in traces])
    if plan.kind == "newcomer":
        found, low, high = _with_interval(cost, _until_price_settles)
    else:
        found, low, high = _with_interval(quality, lambda c: _until_promise_holds(c, target))
    short = target - _trailing(quality.mean(axis=0))[: NEXT - SMOOTHING + 1]
    return Recovery(requests=found, low=low, high=high, worst_short=float(short.max()))


def _trailing(curve: Floats) -> Floats:
    """Means over `SMOOTHING` consecutive requests; the k-th ends at request k + SMOOTHING."""
    sums = np.concatenate([[0.0], np.cumsum(curve)])
    means: Floats = (sums[SMOOTHING:] - sums[:-SMOOTHING]) / SMOOTHING
    return means


def _until_promise_holds(curves: Floats, target: float) -> float:
    """Requests until the promise holds again after it was first missed; 0 if never missed."""
    means = _trailing(curves.mean(axis=0))
    short = means < target - QUALITY_WITHIN
    if not short[: 2 * SMOOTHING].any():
        return 0.0
    first = int(np.argmax(short))
    back = np.flatnonzero(~short[first:])
    return float(first + back[0] + SMOOTHING) if len(back) else float(curves.shape[1])


def _until_price_settles(curves: Floats) -> float:
    means = _trailing(curves.mean(axis=0))
    settled = float(curves[:, -2 * NEXT :].mean())
    reached = np.flatnonzero(means <= settled * PRICE_WITHIN)
    return float(reached[0] + SMOOTHING) if len(reached) else float(curves.shape[1])


def _with_interval(
    curves: Floats, measure: Callable[[Floats], float]
) -> tuple[float, float, float]:
    rng = np.random.Generator(np.random.PCG64(20240424))
    n = len(curves)
    again = [measure(curves[rng.integers(0, n, n)]) for _ in range(N_RESAMPLES if n > 1 else 1)]
    low, high = np.quantile(again, [0.025, 0.975])
    return measure(curves), float(low), float(high)
