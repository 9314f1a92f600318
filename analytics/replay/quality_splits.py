"""Figures of the quality model on prompts it did not learn from, averaged over splits.

One split of a few hundred prompts decides by luck which of two near-equal models is the best in
hindsight, so every figure is a mean over splits, each by a hash of the prompt. Its interval is a
bootstrap over prompts: a draw of prompts weighs the test half of every split alike.

λ for "98 % of the best" is chosen on the learning half alone: predictions cross-fitted within
it, the cheapest λ whose quality there reaches 98 % of the best model's there, plus a margin for
the winner's curse.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from analytics.replay.datasets import learning_half
from analytics.replay.files import Floats
from analytics.replay.frontier import (
    Purchases,
    calls_for_gap,
    cost_reaching,
    expected_calibration_error,
    gap_closed,
    hull_of,
    purchases,
)
from analytics.replay.quality_problem import Problem, learnt, predicted_cost, promised

N_INNER_FOLDS: Final = 4
QUALITY_SHARE: Final = 0.98
MARGIN: Final = 0.005
"""Added to the share aimed at while learning; half a point, as the pacing's own margin."""

N_BOOTSTRAP: Final = 200


Indices = np.ndarray[tuple[int], np.dtype[np.int64]]


class SplitResult(NamedTuple):
    """One split's test half. Arrays are over its prompts; `at` are their places in the set."""

    at: Indices
    policy: Purchases
    oracle: Purchases
    p_good: Floats
    outcome: Floats
    cost: Floats
    chosen: int


class Figure(NamedTuple):
    """A mean over splits with its 95 % interval over prompts."""

    mean: float
    low: float
    high: float


def run_split(problem: Problem, learning: Floats, test: Floats) -> SplitResult:
    """Learn on some prompts, buy on others at every λ. Masks over the problem's prompts."""
    known, asked = problem.take(learning.astype(bool)), problem.take(test.astype(bool))
    p_good = promised(learnt(known), asked)
    outcome = asked.questions.outcome
    return SplitResult(
        at=np.flatnonzero(test),
        policy=purchases(p_good, predicted_cost(known, asked), asked.cost, outcome, problem.prices),
        oracle=purchases(outcome, asked.cost, asked.cost, outcome, problem.prices),
        p_good=p_good,
        outcome=outcome,
        cost=asked.cost,
        chosen=chosen_price(known),
    )


def chosen_price(known: Problem) -> int:
    """Index of the least λ that reaches the aim on the learning half, cross-fitted within it."""
    items = known.questions.items
    shape = known.questions.outcome.shape
    p_good, cost = np.empty(shape), np.empty(shape)
    fold = np.sum(
        [learning_half(items, "inner", (k + 1) / N_INNER_FOLDS) for k in range(N_INNER_FOLDS)],
        axis=0,
    )
    for k in np.unique(fold).tolist():
        inner, outer = known.take(fold != k), known.take(fold == k)
        p_good[fold == k] = promised(learnt(inner), outer)
        cost[fold == k] = predicted_cost(inner, outer)
    outcome = known.questions.outcome
    bought = purchases(p_good, cost, known.cost, outcome, known.prices)
    quality = bought.quality.mean(axis=1)
    aim = (QUALITY_SHARE + MARGIN) * float(outcome.mean(axis=0).max())
    reached = np.flatnonzero(quality >= aim)
    return int(reached[0]) if len(reached) else int(np.argmax(quality))


def figures(results: list[SplitResult], n_prompts: int, seed: int = 0) -> dict[str, Figure]:
    """Every figure with its interval."""
    rng = np.random.default_rng(seed)
    plain = _figures(results, np.ones(n_prompts))
    draws = [
        _figures(
            results, rng.multinomial(n_prompts, np.full(n_prompts, 1 / n_prompts)).astype(float)
        )
        for _ in range(N_BOOTSTRAP)
    ]
    found: dict[str, Figure] = {}
    for name, mean in plain.items():
        values = np.array([draw[name] for draw in draws])
        values = values[np.isfinite(values)]
        low, high = np.percentile(values, [2.5, 97.5]) if len(values) else (np.nan, np.nan)
        found[name] = Figure(mean, float(low), float(high))
    return found


def _figures(results: list[SplitResult], weight: Floats) -> dict[str, float]:
    rows = [_split_figures(result, weight[result.at]) for result in results]
    found = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    found["ece"] = expected_calibration_error(
        np.concatenate([r.p_good.ravel() for r in results]),
        np.concatenate([r.outcome.ravel() for r in results]),
        np.concatenate([_spread(weight, r) for r in results]),
    )
    return found


def _spread(weight: Floats, result: SplitResult) -> Floats:
    n_models = result.outcome.shape[1]
    repeated: Floats = np.repeat(weight[result.at], n_models).astype(np.float64)
    return repeated


def _split_figures(result: SplitResult, weight: Floats) -> dict[str, float]:
    mass = weight / weight.sum()
    hull = hull_of(result.outcome, result.cost, mass)
    gap = gap_closed(result.policy, result.oracle, hull, mass)
    cost, quality = result.policy.points(mass)
    best_quality, best_cost = float(hull.quality[-1]), float(hull.cost[-1])
    flat = mass[:, None] * np.ones_like(result.outcome)
    return {
        "gap_closed": gap.linear,
        "gap_closed_log_cost": gap.log,
        "gap_closed_unmixed": gap.unmixed_linear,
        "gap_closed_unmixed_log_cost": gap.unmixed_log,
        "chosen_quality_share": float(quality[result.chosen]) / best_quality,
        "chosen_cost_share": float(cost[result.chosen]) / best_cost,
        "hindsight_cost_share_at_98": cost_reaching(result.policy, hull, mass, QUALITY_SHARE),
        "mixture_cost_share_at_98": hull.cost_at(QUALITY_SHARE * best_quality) / best_cost,
        "cost_share_for_half_gap": calls_for_gap(result.policy, hull, mass, 0.5),
        "cost_share_for_80_gap": calls_for_gap(result.policy, hull, mass, 0.8),
        "ece_single_split": expected_calibration_error(
            result.p_good.ravel(), result.outcome.ravel(), flat.ravel()
        ),
    }


def learning_masks(items: list[str], n_splits: int) -> list[Floats]:
    """Halves by hash; the first is the split every other part of the replay uses."""
    salts = ["half", *(f"half-{k}" for k in range(1, n_splits))]
    return [learning_half(items, salt).astype(np.float64) for salt in salts]
