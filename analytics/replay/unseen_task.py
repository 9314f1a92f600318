"""What the quality model does on a kind of task it never saw, and how fast it learns it.

Two kinds of unseen. A *new set*: learn one set whole (gsm), meet another (math-l5) as a new task
of the same models: standing is inherited, level and difficulty are not known. A *new kind
within a task*: learn all but some of a set's own kinds (MMLU's domains), meet those. Nothing
beats the best fixed mixture there, since hindsight knows the level; what counts is not to fall
far below it, to be wide, and to be at it after 500 requests with feedback on every fifth.

`shortfall` is quality: how far the policy's hull lies below the mixture's on average over the
mixture's range of cost (linear); negative is above.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from analytics.replay.datasets import learning_half
from analytics.replay.files import Floats
from analytics.replay.frontier import (
    Purchases,
    expected_calibration_error,
    gap_closed,
    hull_of,
    purchases,
)
from analytics.replay.hindsight import mixture
from analytics.replay.quality_problem import Problem, facts, learnt, predicted_cost, promised
from bidding.estimators.quality import LabelBatch, QualityEstimator
from bidding.estimators.quality_skill import logits, p_good, skill_arrays

N_REQUESTS: Final = 500
FEEDBACK_SHARE: Final = 0.2
N_ONLINE_PRICES: Final = 30
"""λs a buyer may have stood at: some six a decade. Two a decade leave so much to the straight
lines between them that the same beliefs fall 0.01 to 0.04 further below the mixture.
"""

PUBLISH_EVERY: Final = 25
N_KIND_GROUPS: Final = 4


MIN_KINDS: Final = 3


class Unseen(NamedTuple):
    """Before any feedback and after 500 requests; ECE likewise."""

    shortfall_before: float
    shortfall_after: float
    gap_before: float
    gap_after: float
    ece_before: float
    ece_after: float


def unseen_kinds(problem: Problem) -> list[dict[str, Any]]:
    """Every ordered pair of the problem's sets, and left-out kinds within each set."""
    tasks = np.array(problem.questions.task)
    parts = {name: problem.take(tasks == name) for name in sorted(set(tasks.tolist()))}
    found: list[dict[str, Any]] = [
        {"learnt": first, "unseen": second, **new_set(known, other)._asdict()}
        for first, known in parts.items()
        for second, other in parts.items()
        if first != second and known.input_usd is not None
    ]
    for name, part in parts.items():
        if len(set(part.questions.kinds)) >= MIN_KINDS:
            shortfall, gap, ece = new_kinds(part)
            found.append(
                {
                    "learnt": f"{name}, other kinds",
                    "unseen": f"{name}, kinds left out",
                    "shortfall_before": shortfall,
                    "gap_before": gap,
                    "ece_before": ece,
                }
            )
    return found


def new_set(known: Problem, unseen: Problem, n_seeds: int = 3) -> Unseen:
    """Learn `known` whole, then meet `unseen`: both over the same models, in the same order.

    Half of the unseen prompts serve the 500 requests, the other half is scored.
    """
    stream = learning_half(unseen.questions.items, "stream")
    served, scored = unseen.take(stream), unseen.take(~stream)
    cost = predicted_cost(known, scored)
    p_before = promised(learnt(known), scored, "unseen")
    first = purchases(p_before, cost, scored.cost, scored.questions.outcome, unseen.prices)
    after, p_after = _learnt_online(known, served, scored, n_seeds)
    outcome = scored.questions.outcome
    before_figures = _figures(first, scored, unseen.prices)
    after_figures = _figures(after, scored, unseen.prices)
    return Unseen(
        shortfall_before=before_figures[0],
        shortfall_after=after_figures[0],
        gap_before=before_figures[1],
        gap_after=after_figures[1],
        ece_before=expected_calibration_error(p_before.ravel(), outcome.ravel()),
        ece_after=float(
            np.mean([expected_calibration_error(p.ravel(), outcome.ravel()) for p in p_after])
        ),
    )


def new_kinds(problem: Problem) -> tuple[float, float, float]:
    """Shortfall, gap closed and ECE on kinds left out of learning, pooled over four groups."""
    kinds = problem.questions.kinds
    group = np.sum(
        [learning_half(kinds, "kind", (k + 1) / N_KIND_GROUPS) for k in range(N_KIND_GROUPS)],
        axis=0,
    )
    rows: list[tuple[float, float]] = []
    size: list[int] = []
    promises: list[Floats] = []
    outcomes: list[Floats] = []
    for k in np.unique(group).tolist():
        known, asked = problem.take(group != k), problem.take(group == k)
        p = promised(learnt(known), asked)
        cost = predicted_cost(known, asked)
        bought = purchases(p, cost, asked.cost, asked.questions.outcome, problem.prices)
        rows.append(_figures(bought, asked, problem.prices))
        size.append(len(p))
        promises.append(p.ravel())
        outcomes.append(asked.questions.outcome.ravel())
    shortfall, gap = np.average(np.array(rows), axis=0, weights=size)
    ece = expected_calibration_error(np.concatenate(promises), np.concatenate(outcomes))
    return float(shortfall), float(gap), ece


def _figures(bought: Purchases, scored: Problem, prices: Floats) -> tuple[float, float]:
    outcome, cost = scored.questions.outcome, scored.cost
    mass = np.full(len(cost), 1.0 / len(cost))
    hull = hull_of(outcome, cost, mass)
    oracle = purchases(outcome, cost, cost, outcome, prices)
    spent, quality = bought.points(mass)
    ours = mixture(
        np.append(quality, float(hull.quality[0])), np.append(spent, float(hull.cost[0]))
    )
    grid = np.linspace(float(hull.cost[0]), float(hull.cost[-1]), 1000)
    below = np.interp(grid, hull.cost, hull.quality) - np.interp(grid, ours.cost, ours.quality)
    return float(below.mean()), gap_closed(bought, oracle, hull, mass).linear


def _learnt_online(
    known: Problem, served: Problem, scored: Problem, n_seeds: int
) -> tuple[Purchases, list[Floats]]:
    """Each λ learns from what it bought itself, one sd optimistic; then buys the scored prompts."""
    base = learnt(known)
    born = [(task, base.models(task), base.state(task)) for task in base.tasks]
    served_cost, scored_cost = predicted_cost(known, served), predicted_cost(known, scored)
    typical = float(np.median(served.cost[served.cost > 0]))
    lambdas = np.geomspace(typical * 0.3, float(served.cost.max()) * 30.0, N_ONLINE_PRICES)
    bought: list[Purchases] = []
    promises: list[Floats] = []
    for seed in range(n_seeds):
        for price in lambdas:
            quality = QualityEstimator(facts(known))
            for task, models, state in born:
                quality.restore(task, models, state)
            _serve(quality, served, served_cost, float(price), np.random.default_rng(seed))
            p = promised(quality, scored, "unseen")
            promises.append(p)
            bought.append(
                purchases(p, scored_cost, scored.cost, scored.questions.outcome, np.array([price]))
            )
    by_price = [bought[i::N_ONLINE_PRICES] for i in range(N_ONLINE_PRICES)]
    cost = np.array([np.mean([b.cost[0] for b in group], axis=0) for group in by_price])
    gained = np.array([np.mean([b.quality[0] for b in group], axis=0) for group in by_price])
    return Purchases(cost, gained), promises


def _serve(
    quality: QualityEstimator,
    served: Problem,
    cost: Floats,
    price: float,
    rng: np.random.Generator,
) -> None:
    models = served.questions.models
    prompts = rng.integers(0, len(cost), N_REQUESTS)
    labelled = rng.random(N_REQUESTS) < FEEDBACK_SHARE
    waiting: list[tuple[str, float, list[float]]] = []
    arrays = skill_arrays(quality.skill("unseen"), models)
    for i, prompt in enumerate(prompts.tolist()):
        if i % PUBLISH_EVERY == 0 and waiting:
            names, outcomes, features = (list(column) for column in zip(*waiting, strict=True))
            n = len(names)
            quality.fold(
                LabelBatch(
                    task=["unseen"] * n,
                    model=names,
                    outcome=outcomes,
                    weight=[1.0] * n,
                    propensity=[FEEDBACK_SHARE] * n,
                    features=features,
                    at_s=[float(i)] * n,
                )
            )
            waiting.clear()
            arrays = skill_arrays(quality.skill("unseen"), models)
        mean, sd = logits(arrays, served.features[prompt])
        p = p_good(mean, sd)
        score = cost[prompt] - price * np.minimum(p + p * (1.0 - p) * arrays.own_sd, 1.0)
        pick = int(np.argmin(score))
        if labelled[i]:
            outcome = float(served.questions.outcome[prompt, pick])
            waiting.append((models[pick], outcome, served.features[prompt].tolist()))
