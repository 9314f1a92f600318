"""Learning on some prompts and buying others at every λ; and the one λ a buyer would have chosen.

λ for a promise is chosen on the learning part alone, by what the model learnt there expects of
each λ: the cheapest whose expected quality keeps the promise. What was delivered in
cross-validation there is a noisier guide than the expectation, whose estimates are drawn
together: for the same delivered quality it paid a quarter more (docs/decisions/0010).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from analytics.replay.beliefs import BeliefCache, Beliefs
from analytics.replay.datasets import learning_half
from analytics.replay.files import Floats
from analytics.replay.frontier import Purchases, purchases
from analytics.replay.quality_problem import Problem

QUALITY_SHARE: Final = 0.98

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
    """Row of the least λ expected to reach the aim, and the aim."""
    p_good, cost = cache.believe(known, known)
    believed = p_good * known.learnt_on_time
    quality = purchases(believed, cost, cost, believed, known.prices).quality.mean(axis=1)
    best = float(believed.mean(axis=0).max())
    aim = QUALITY_SHARE * best if target is None else target
    reached = np.flatnonzero(quality >= aim)
    return (int(reached[0]) if len(reached) else int(np.argmax(quality))), aim


def learning_masks(items: list[str], n_splits: int) -> list[Floats]:
    """Halves by hash; the first is the split every other part of the replay uses."""
    salts = ["half", *(f"half-{k}" for k in range(1, n_splits))]
    return [learning_half(items, salt).astype(np.float64) for salt in salts]
