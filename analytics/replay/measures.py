"""From traces to figures: numbers per policy and stream, then means with intervals.

Everything is measured on delivered answers, never on beliefs. Where a deadline is set, what is
bought is an answer both good and on time, and hindsight is judged by the same.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from scipy.stats import t as student_t

from analytics.replay.episode import Trace
from analytics.replay.files import Floats
from analytics.replay.hindsight import Frontier, mixture
from analytics.replay.shocks import ShockPlan
from analytics.replay.stream import Stream
from analytics.replay.world import World
from bidding.units import NUSD_PER_USD

WINDOW = 1000
"""Requests in a window of the promise's short-run record."""

SHORT_BY = 0.02
KEPT_WITHIN = 0.01
USD_PER_1K = 1000.0 / NUSD_PER_USD
N_BINS = 10


class Interval(Struct, frozen=True, kw_only=True):
    """A mean over seeds with its 95 % interval (Student's t); NaN-free."""

    mean: float
    low: float
    high: float


class Phase(Struct, frozen=True, kw_only=True):
    """A stretch of the stream in which the market did not change, and its hindsight."""

    start: int
    end: int
    frontier: Frontier


def phases_of(world: World, stream: Stream, plan: ShockPlan, ttft_s: float | None) -> list[Phase]:
    """The stream before and after the shock (or whole), each with its best fixed mixtures."""
    n = len(stream)
    cuts = [0, n] if plan.kind is None else [0, plan.at, n]
    return [
        Phase(start=a, end=b, frontier=_frontier(world, stream, plan, ttft_s, a, b))
        for a, b in itertools.pairwise(cuts)
    ]


def _frontier(
    world: World, stream: Stream, plan: ShockPlan, ttft_s: float | None, start: int, end: int
) -> Frontier:
    """The best fixed mixtures of what offers would have delivered from `start` to `end`."""
    good, cost = delivered(world, stream, plan, ttft_s, start, end)
    there = ~plan.absent_before if start < plan.at else np.ones(len(plan.absent_before), bool)
    rows = np.flatnonzero(there)
    found = mixture(good[:, rows].mean(axis=0), cost[:, rows].mean(axis=0))
    return Frontier(found.quality, found.cost, rows[found.rows])


def delivered(
    world: World, stream: Stream, plan: ShockPlan, ttft_s: float | None, start: int, end: int
) -> tuple[Floats, Floats]:
    """What each offer would have delivered and cost: two arrays (end − start, n_offers)."""
    prompts = stream.prompt[start:end]
    good = world.outcome[prompts]
    struck = start >= plan.at and plan.kind is not None
    if struck:
        good = np.where(stream.luck[start:end, None] < plan.spoilt, 0.0, good)
    good = good[:, world.model_of]
    cost = world.cost_nusd[prompts]
    if struck:
        cost = cost * plan.price_factor
    if ttft_s is not None:
        good = good * (stream.ttft_s[start:end] <= ttft_s)
    return good, cost


def figures(
    trace: Trace, phases: Sequence[Phase], target: float | None, ttft_s: float | None
) -> dict[str, float]:
    """One stream's figures; see docs/replay.md for what each means."""
    n = len(trace.quality)
    on_time = np.ones(n) if ttft_s is None else (trace.ttft_s <= ttft_s).astype(np.float64)
    both = trace.quality * on_time
    hindsight_usd = 0.0
    for phase in phases:
        span = slice(phase.start, phase.end)
        attained = float(both[span].mean())
        attained = min(attained, float(phase.frontier.quality[-1]))
        hindsight_usd += phase.frontier.cost_at(attained) * (phase.end - phase.start) / n
    cost = float(trace.cost_nusd.mean())
    found = {
        "usd_per_1k": cost * USD_PER_1K,
        "quality": float(trace.quality.mean()),
        "on_time": float(on_time.mean()),
        "good_and_on_time": float(both.mean()),
        "usd_vs_hull": cost / max(hindsight_usd, 1e-12),
        "regret_usd": (cost - hindsight_usd) * n / NUSD_PER_USD,
        "ece": calibration_error(trace.p_good, trace.quality),
        "lost_attempts": float(trace.n_lost.sum()),
        "tries_aside": float(trace.n_tries[-1]),
        "reserve_binding_share": float(trace.binding.mean()),
    }
    if target is not None:
        windows = _windows(trace.quality, WINDOW)
        found["short_windows"] = float(np.mean(windows < target - SHORT_BY))
        found["attained"] = float(trace.quality.mean() >= target - KEPT_WITHIN)
    return found


def calibration_error(p: Floats, outcome: Floats, n_bins: int = N_BINS) -> float:
    """Expected calibration error over bins of equal width; outcomes in [0, 1].

    Examples
    --------
    >>> round(calibration_error(np.array([0.9, 0.9]), np.array([1.0, 0.0])), 3)
    0.4
    """
    bins = np.minimum((p * n_bins).astype(np.int64), n_bins - 1)
    gap = np.bincount(bins, weights=outcome - p, minlength=n_bins)
    return float(np.abs(gap).sum() / max(len(p), 1))


def _windows(values: Floats, size: int) -> Floats:
    n = max(len(values) // size, 1)
    means: Floats = np.array([part.mean() for part in np.array_split(values, n)])
    return means


def interval(values: Sequence[float]) -> Interval:
    """Mean and 95 % interval of independent values; of zero width for a single one."""
    column = np.array(values, dtype=np.float64)
    mean = float(column.mean())
    if len(column) < 2:
        return Interval(mean=mean, low=mean, high=mean)
    half = float(student_t.ppf(0.975, len(column) - 1) * column.std(ddof=1))
    half /= math.sqrt(len(column))
    return Interval(mean=mean, low=mean - half, high=mean + half)
