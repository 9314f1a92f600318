"""What hindsight would have bought: the best fixed mixture of offers, and the oracle.

A *fixed mixture* buys offer j with a constant probability, whatever the prompt: its costs and
qualities are convex combinations, so the best ones form the lower hull of the offers' points.
The *oracle* knows every answer beforehand. Both are computed on the very prompts a stream
served, so they are hindsight in the strict sense; no policy can be asked to reach the oracle,
whose gap is mostly the luck of single answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analytics.replay.files import Floats
from bidding.columns import Ints


@dataclass(frozen=True, slots=True)
class Frontier:
    """Least cost at each quality: a convex, increasing polyline.

    `quality` rises strictly; `rows` are the offers at the vertices (-1 where a vertex is no
    single offer).
    """

    quality: Floats
    cost: Floats
    rows: Ints

    def cost_at(self, quality: float) -> float:
        """Least cost of attaining `quality`; infinite above the ceiling."""
        if quality > self.quality[-1] + 1e-12:
            return float("inf")
        return float(np.interp(quality, self.quality, self.cost))

    def quality_at(self, cost: float) -> float:
        """Highest quality that `cost` buys; the cheapest vertex's below its cost."""
        return float(np.interp(cost, self.cost, self.quality))

    def shares_at(self, quality: float) -> list[tuple[int, float]]:
        """Rows and shares of the mixture that attains `quality` (the best one above the ceiling).

        Examples
        --------
        >>> frontier = mixture(np.array([0.5, 0.9]), np.array([1.0, 5.0]))
        >>> [(row, round(share, 3)) for row, share in frontier.shares_at(0.6)]
        [(0, 0.75), (1, 0.25)]
        """
        if quality <= self.quality[0]:
            return [(int(self.rows[0]), 1.0)]
        if quality >= self.quality[-1]:
            return [(int(self.rows[-1]), 1.0)]
        above = int(np.searchsorted(self.quality, quality))
        low, high = self.quality[above - 1], self.quality[above]
        share = float((quality - low) / (high - low))
        return [(int(self.rows[above - 1]), 1.0 - share), (int(self.rows[above]), share)]

    def area(self, low: float, high: float) -> float:
        """Area under quality as a function of log cost between two costs."""
        grid = np.linspace(np.log(low), np.log(high), 400)
        values = np.interp(np.exp(grid), self.cost, self.quality)
        return float(np.trapezoid(values, grid))


def mixture(quality: Floats, cost: Floats) -> Frontier:
    """The best fixed mixtures of points of shape (n_offers,): their lower convex hull.

    Notes
    -----
    Andrew's monotone chain over points sorted by cost, kept where quality still rises.
    """
    order = np.lexsort((-quality, cost))
    hull: list[int] = []
    for row in order.tolist():
        if hull and quality[row] <= quality[hull[-1]]:
            continue
        while len(hull) >= 2 and _bends_up(quality, cost, hull[-2], hull[-1], row):
            hull.pop()
        hull.append(row)
    rows = np.array(hull, dtype=np.int64)
    return Frontier(quality=quality[rows], cost=cost[rows], rows=rows)


def _bends_up(quality: Floats, cost: Floats, a: int, b: int, c: int) -> bool:
    """Whether b lies on or above the segment from a to c, so that it is no vertex."""
    to_b = (cost[b] - cost[a]) * (quality[c] - quality[a])
    to_c = (cost[c] - cost[a]) * (quality[b] - quality[a])
    return bool(to_b >= to_c)


def oracle(quality: Floats, cost: Floats, weights: Floats | None = None) -> Frontier:
    """Frontier of choosing per prompt with all answers known; arrays (n_prompts, n_offers).

    Parameters
    ----------
    weights : ndarray, (n_prompts,), optional
        How often each prompt was asked.
    """
    mass = np.ones(len(quality)) if weights is None else weights
    mass = mass / mass.sum()
    lines = np.arange(len(quality))
    found: list[tuple[float, float]] = []
    least, most = float(np.min(cost[cost > 0], initial=1.0)), float(cost.max()) + 1.0
    for price in [0.0, *np.geomspace(least * 1e-2, most * 1e3, 240).tolist()]:
        pick = np.argmin(cost - price * quality, axis=1)
        found.append((float(mass @ quality[lines, pick]), float(mass @ cost[lines, pick])))
    points = np.array(found)
    frontier = mixture(points[:, 0], points[:, 1])
    return Frontier(frontier.quality, frontier.cost, np.full(len(frontier.rows), -1))
