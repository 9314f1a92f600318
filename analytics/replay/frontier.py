"""How far a quality model brings a buyer from the best fixed mixture towards the oracle.

A policy is a family: at price λ it buys argmin of predicted cost − λ·P(good) for each prompt.
On test prompts every λ is a point (mean cost, mean quality). Three curves are compared over
the cost range of the mixture's hull, from its cheapest to its best model:

- *mixture*: upper hull of the single models' points, with hindsight on the test prompts;
- *policy*: upper hull of the λ points. Mixing two λs over requests is as open to the buyer as
  mixing two models, and hindsight is granted to both alike. `unmixed` is the stricter reading:
  the λ points joined in order of cost, nothing left out;
- *oracle*: upper hull of the points of argmin of true cost − λ·outcome.

    gap_closed = (area(policy) − area(mixture)) / (area(oracle) − area(mixture))

with area over cost (`axis="linear"`) or over its logarithm. Beyond its dearest point a curve
stays flat; below its cheapest point the cheapest single model is bought.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from analytics.replay.files import Floats
from analytics.replay.hindsight import Frontier, mixture

Axis = Literal["linear", "log"]
N_PRICES = 240
_GRID = 1000


class Purchases(NamedTuple):
    """What each λ bought, per prompt: arrays (n_prices, n_prompts)."""

    cost: Floats
    quality: Floats

    def points(self, mass: Floats) -> tuple[Floats, Floats]:
        """Mean cost and quality of each λ; `mass` (n_prompts,) sums to one."""
        return self.cost @ mass, self.quality @ mass


class Gap(NamedTuple):
    """Shares of the area between mixture and oracle that the policy covers."""

    linear: float
    log: float
    unmixed_linear: float
    unmixed_log: float


def price_grid(cost: Floats) -> Floats:
    """λ from nothing to far beyond any use, in the unit of `cost` per unit of quality."""
    typical = float(np.median(cost[cost > 0])) if np.any(cost > 0) else 1.0
    most = float(cost.max()) or 1.0
    return np.concatenate([[0.0], np.geomspace(typical * 1e-3, most * 1e4, N_PRICES)])


def purchases(
    p_good: Floats, predicted_cost: Floats, cost: Floats, outcome: Floats, prices: Floats
) -> Purchases:
    """Buy every prompt at every λ. Arrays (n_prompts, n_models); ties go to the cheaper model."""
    lines = np.arange(len(p_good))
    bought_cost = np.empty((len(prices), len(p_good)))
    bought_quality = np.empty_like(bought_cost)
    for i, price in enumerate(prices):
        pick = np.argmin(predicted_cost - price * p_good, axis=1)
        bought_cost[i] = cost[lines, pick]
        bought_quality[i] = outcome[lines, pick]
    return Purchases(bought_cost, bought_quality)


def hull_of(quality: Floats, cost: Floats, mass: Floats) -> Frontier:
    """The mixture's hull over prompts weighing `mass`; arrays (n_prompts, n_models)."""
    return mixture(mass @ quality, mass @ cost)


def gap_closed(policy: Purchases, oracle: Purchases, hull: Frontier, mass: Floats) -> Gap:
    """All four readings of the share closed; NaN where the hull is a single point."""
    low, high = float(hull.cost[0]), float(hull.cost[-1])
    if not high > low:
        return Gap(np.nan, np.nan, np.nan, np.nan)
    cost, quality = policy.points(mass)
    best_cost, best_quality = oracle.points(mass)
    first = np.array([low]), np.array([float(hull.quality[0])])
    mixed = mixture(np.append(quality, first[1]), np.append(cost, first[0]))
    perfect = mixture(best_quality, best_cost)
    order = np.lexsort((quality, cost))
    found: list[float] = []
    floor = max(low, high * 1e-6)
    for grid in (np.linspace(low, high, _GRID), np.geomspace(floor, high, _GRID)):
        base = np.interp(grid, hull.cost, hull.quality).mean()
        top = np.interp(grid, perfect.cost, perfect.quality).mean()
        room = max(float(top - base), 1e-12)
        found.append(float(np.interp(grid, mixed.cost, mixed.quality).mean() - base) / room)
        unmixed = np.interp(grid, cost[order], quality[order]).mean()
        found.append(float(unmixed - base) / room)
    return Gap(found[0], found[2], found[1], found[3])


def calls_for_gap(policy: Purchases, hull: Frontier, mass: Floats, share: float) -> float:
    """Share of the cost between cheapest and best that buys `share` of the quality between them."""
    cost, quality = policy.points(mass)
    low, high = float(hull.quality[0]), float(hull.quality[-1])
    frontier = mixture(np.append(quality, low), np.append(cost, float(hull.cost[0])))
    needed = frontier.cost_at(low + share * (high - low))
    return (needed - float(hull.cost[0])) / max(float(hull.cost[-1] - hull.cost[0]), 1e-12)


def expected_calibration_error(
    p: Floats, outcome: Floats, mass: Floats | None = None, n_bins: int = 10
) -> float:
    """Mean absolute difference of mean promise and mean outcome over equal-width bins of `p`."""
    weight = np.ones_like(p) if mass is None else mass
    known = np.isfinite(outcome)
    bins = np.minimum((p[known] * n_bins).astype(np.int64), n_bins - 1)
    away = np.bincount(bins, weight[known] * (outcome[known] - p[known]), n_bins)
    return float(np.abs(away).sum() / weight[known].sum())
