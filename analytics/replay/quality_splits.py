"""Learning on some prompts and buying others at every λ; and the one λ a buyer would have chosen.

λ for a promise is chosen on the learning part alone, from beliefs that had not seen the prompt
they are of (cross-fitting). Two estimates of what a λ delivers are at hand: what those beliefs
expect, smooth but too hopeful, since the buyer takes the best looking of many; and what came of
it, honest but uncertain by a point. Their weighted mean is asked to keep the promise
(docs/decisions/0030).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from analytics.replay.beliefs import BeliefCache, Beliefs
from analytics.replay.datasets import learning_half
from analytics.replay.files import Floats
from analytics.replay.frontier import Purchases, purchases
from analytics.replay.quality_problem import Problem

QUALITY_SHARE: Final = 0.98
N_CROSS_FITS: Final = 5
DELIVERED_WEIGHT: Final = 0.25
"""Of what came of a λ, against what was expected of it; 0, ½ and 1 compared in decision 0030."""

_LEAST_PROMPTS: Final = 20
"""With fewer there is nothing to leave out: the beliefs are taken as they are."""

Indices = np.ndarray[tuple[int], np.dtype[np.int64]]


class SplitResult(NamedTuple):
    """One split's test half.

    Attributes
    ----------
    at : (n_prompts,) places of its prompts in the whole set
    known, asked : what was learnt from, what was bought
    beliefs : of the prompts asked
    policy, oracle : what each λ bought; quality counts good answers that came in time
    chosen : row of `policy` chosen while learning
    aim : the quality it was chosen for
    """

    at: Indices
    known: Problem
    asked: Problem
    beliefs: Beliefs
    policy: Purchases
    oracle: Purchases
    chosen: int
    aim: float

    @property
    def delivered(self) -> Floats:
        """What each column would have delivered, good and in time: (n_prompts, n_models)."""
        return delivered(self.asked)


def delivered(problem: Problem) -> Floats:
    """Good answers, each counted by the share that comes in time: (n_prompts, n_models)."""
    return problem.questions.outcome * problem.kept_on_time


def run_split(
    problem: Problem,
    learning: Floats,
    test: Floats,
    cache: BeliefCache | None = None,
    target: float | None = None,
) -> SplitResult:
    """Learn on some prompts, buy others at every λ. Masks over the problem's prompts.

    Parameters
    ----------
    target : float, optional
        Share of good answers promised; without it, 98 % of the best column's while learning.
    """
    cache = cache or BeliefCache()
    known, asked = problem.take(learning.astype(bool)), problem.take(test.astype(bool))
    beliefs = cache.believe(known, asked)
    outcome = delivered(asked)
    believed = beliefs.p_good * asked.learnt_on_time
    chosen, aim = chosen_price(known, cache, target)
    return SplitResult(
        at=np.flatnonzero(test),
        known=known,
        asked=asked,
        beliefs=beliefs,
        policy=purchases(believed, beliefs.cost, asked.cost, outcome, problem.prices),
        oracle=purchases(outcome, asked.cost, asked.cost, outcome, problem.prices),
        chosen=chosen,
        aim=aim,
    )


def chosen_price(known: Problem, cache: BeliefCache, target: float | None) -> tuple[int, float]:
    """Row of the least λ held to reach the aim, and the aim."""
    p_good, cost = cross_fitted(known, cache)
    believed = p_good * known.learnt_on_time
    came = known.questions.outcome * known.learnt_on_time
    expected = purchases(believed, cost, cost, believed, known.prices).quality.mean(axis=1)
    delivered_there = purchases(believed, cost, cost, came, known.prices).quality.mean(axis=1)
    best = float(believed.mean(axis=0).max())
    best_there = float(came.mean(axis=0).max())
    aim = QUALITY_SHARE * best if target is None else target
    aim_there = QUALITY_SHARE * best_there if target is None else target
    beyond = (1.0 - DELIVERED_WEIGHT) * (expected - aim)
    beyond += DELIVERED_WEIGHT * (delivered_there - aim_there)
    reached = np.flatnonzero(beyond >= 0.0)
    return (int(reached[0]) if len(reached) else int(np.argmax(beyond))), aim


def cross_fitted(known: Problem, cache: BeliefCache) -> Beliefs:
    """Beliefs about the problem's own prompts, each by a fit that left the prompt out."""
    if len(known.features) < _LEAST_PROMPTS:
        return cache.believe(known, known)
    fold = _dealt(known.questions.task)
    p_good, cost = np.empty(known.cost.shape), np.empty(known.cost.shape)
    for k in range(N_CROSS_FITS):
        held = fold == k
        found = cache.believe(known.take(~held), known.take(held))
        p_good[held], cost[held] = found.p_good, found.cost
    return Beliefs(p_good, cost)


def _dealt(task: Sequence[str]) -> Indices:
    """A fold per prompt, each task dealt in turn."""
    met: dict[str, int] = {}
    fold = np.empty(len(task), dtype=np.int64)
    for i, name in enumerate(task):
        fold[i] = met.setdefault(name, 0) % N_CROSS_FITS
        met[name] += 1
    return fold


def learning_masks(items: list[str], n_splits: int) -> list[Floats]:
    """Halves by hash; the first is the split every other part of the replay uses."""
    salts = ["half", *(f"half-{k}" for k in range(1, n_splits))]
    return [learning_half(items, salt).astype(np.float64) for salt in salts]
