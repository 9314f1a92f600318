"""Offline replay: everything learnt with full information first, then bought prompt by prompt.

The quality model, its splits and its frontier are `quality_splits`'; here they become the same
lines as the online replay's, beside what hindsight would have bought. λ is chosen on the
learning half alone, for 98 % of the best model's quality there. Intervals are a bootstrap over
prompts: a draw weighs the test half of every split alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from analytics.embedding import load_prompt_features
from analytics.replay.datasets import DataFolder
from analytics.replay.files import Floats
from analytics.replay.frontier import expected_calibration_error, gap_closed, hull_of
from analytics.replay.hindsight import Frontier, mixture
from analytics.replay.measures import Interval
from analytics.replay.quality_eval import joined
from analytics.replay.quality_problem import Problem, make_problem
from analytics.replay.quality_splits import SplitResult, learning_masks, run_split
from analytics.replay.report import PolicyReport
from analytics.replay.settings import ReplaySettings

MAX_SPLITS = 10
N_BOOTSTRAP = 200

Figures = dict[str, float]


def offline(settings: ReplaySettings, progress: Callable[[str, float | None], None]) -> Offline:
    """Reports of the broker, of the plain rules and of the yardsticks."""
    source = load_prompt_features()
    folder = DataFolder(settings.data)
    problem = make_problem(folder, settings.sets, source)
    if settings.test_data is None:
        masks = learning_masks(problem.questions.items, min(settings.seeds, MAX_SPLITS))
    else:
        n_known = len(problem.questions.items)
        test = make_problem(DataFolder(settings.test_data, folder), settings.sets, source)
        problem = joined(problem, test)
        masks = [(np.arange(len(problem.questions.items)) < n_known).astype(np.float64)]
    results: list[SplitResult] = []
    for k, mask in enumerate(masks):
        progress(f"split {k + 1} of {len(masks)}", k / len(masks))
        results.append(run_split(problem, mask, 1.0 - mask))
    return Offline(problem, results)


class Offline:
    """What the splits found; `reports()` makes the lines."""

    def __init__(self, problem: Problem, results: Sequence[SplitResult]) -> None:
        self.n_prompts = len(problem.questions.items)
        self.n_models = len(problem.questions.models)
        self.usd_per_unit = 1.0
        self._results = results

    def reports(self) -> list[PolicyReport]:
        """One line a policy, ours first."""
        rng = np.random.Generator(np.random.PCG64(20240424))
        draws = [
            rng.multinomial(self.n_prompts, np.full(self.n_prompts, 1.0 / self.n_prompts))
            for _ in range(N_BOOTSTRAP)
        ]
        plain = self._averaged(np.ones(self.n_prompts))
        again = [self._averaged(draw.astype(np.float64)) for draw in draws]
        return [
            PolicyReport(
                policy=policy,
                figures={
                    name: _percentiles(mean, [other[policy][name] for other in again])
                    for name, mean in figures.items()
                },
            )
            for policy, figures in plain.items()
        ]

    def _averaged(self, weight: Floats) -> dict[str, Figures]:
        per_split = [_policies(r, weight[r.at.astype(np.int64)]) for r in self._results]
        return {
            policy: {
                name: float(np.nanmean([split[policy][name] for split in per_split]))
                for name in figures
            }
            for policy, figures in per_split[0].items()
        }


def _policies(result: SplitResult, weight: Floats) -> dict[str, Figures]:
    """Every policy's figures on one split's test half."""
    mass = weight / weight.sum()
    hull = hull_of(result.outcome, result.cost, mass)
    cost, quality = result.policy.points(mass)
    oracle_cost, oracle_quality = result.oracle.points(mass)
    ours = mixture(quality, cost)
    perfect = mixture(oracle_quality, oracle_cost)
    gap = gap_closed(result.policy, result.oracle, hull, mass)
    mean_cost, mean_quality = mass @ result.cost, mass @ result.outcome
    flat = mass[:, None] * np.ones_like(result.outcome)
    broker = _point(float(quality[result.chosen]), float(cost[result.chosen]), hull) | {
        "gap_closed": gap.linear,
        "usd_at_95": _cost_at(ours, 0.95 * float(hull.quality[-1])),
        "usd_at_98": _cost_at(ours, 0.98 * float(hull.quality[-1])),
        "ece": expected_calibration_error(
            result.p_good.ravel(), result.outcome.ravel(), flat.ravel()
        ),
    }
    cheapest, best = int(np.argmin(mean_cost)), int(np.argmax(mean_quality))
    return {
        "broker": broker,
        "cheapest": _point(float(mean_quality[cheapest]), float(mean_cost[cheapest]), hull),
        "random": _point(float(mean_quality.mean()), float(mean_cost.mean()), hull),
        "best-fixed-offer": _point(float(mean_quality[best]), float(mean_cost[best]), hull),
        "best-fixed-mixture": _curve(hull, hull) | {"gap_closed": 0.0},
        "oracle": _curve(perfect, hull) | {"gap_closed": 1.0},
    }


def _point(quality: float, cost: float, hull: Frontier) -> Figures:
    attained = min(quality, float(hull.quality[-1]))
    return {
        "usd_per_1k": cost,
        "quality": quality,
        "usd_vs_hull": cost / max(hull.cost_at(attained), 1e-12),
    }


def _curve(frontier: Frontier, hull: Frontier) -> Figures:
    best = float(hull.quality[-1])
    aim = 0.98 * best
    return _point(aim, _cost_at(frontier, aim), hull) | {
        "usd_at_95": _cost_at(frontier, 0.95 * best),
        "usd_at_98": _cost_at(frontier, aim),
    }


def _cost_at(frontier: Frontier, quality: float) -> float:
    """Least cost of `quality`; NaN where it is out of reach."""
    found = frontier.cost_at(quality)
    return found if np.isfinite(found) else float("nan")


def _percentiles(mean: float, values: Sequence[float]) -> Interval:
    known = np.array([value for value in values if np.isfinite(value)])
    if not len(known):
        return Interval(mean=mean, low=mean, high=mean)
    low, high = np.percentile(known, [2.5, 97.5])
    return Interval(mean=mean, low=float(low), high=float(high))
