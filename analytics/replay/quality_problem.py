"""A quality question on real data: prompts with features, models with prices, true costs.

Kept are models with a price (where the set has a market) that were run on at least nine tenths
of every set's prompts, and prompts all of them answered, so that everyone is scored on the same.
A set without token counts has no dollars: a call of the better of two models then costs 1, of
the other 0, so that cost is the share of strong calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analytics.embedding import PromptFeatures
from analytics.replay.datasets import DataFolder, QualitySet, learning_half
from analytics.replay.errors import DatasetMissing
from analytics.replay.files import Floats
from analytics.replay.frontier import price_grid
from bidding.estimators.answer_length import fit_length
from bidding.estimators.quality import QualityEstimator
from bidding.estimators.quality_prior import ModelFacts
from bidding.estimators.quality_skill import TaskSkill, logits, p_good, skill_arrays

LEAST_COVERAGE: Final = 0.9
MARKETS: Final = ("zeroeval_wide", "winter2023", "spring2024")


class Problem(NamedTuple):
    """Prompts × models with costs, all known.

    Attributes
    ----------
    questions : QualitySet
    features : (n_prompts, N_FEATURES)
    input_usd, output_usd : (n_models,) dollars per token × 1,000 requests; None without a market
    cost : (n_prompts, n_models) dollars per 1,000 requests, or 0 and 1
    """

    questions: QualitySet
    features: Floats
    input_usd: Floats | None
    output_usd: Floats | None
    cost: Floats
    prices: Floats

    def take(self, rows: NDArray[np.bool_]) -> Problem:
        """These prompts."""
        return self._replace(
            questions=self.questions.take(rows),
            features=self.features[rows],
            cost=self.cost[rows],
        )


def make_problem(folder: DataFolder, sets: Sequence[str], source: PromptFeatures) -> Problem:
    """The named sets as one problem. Raises `DatasetMissing` when too little is left."""
    joined = folder.quality(sets)
    in_usd, out_usd = _prices(folder, joined)
    covered = np.ones(len(joined.models), dtype=bool)
    tasks = np.array(joined.task)
    for name in set(joined.task):
        share = np.isfinite(joined.outcome[tasks == name]).mean(axis=0)
        covered &= share >= LEAST_COVERAGE
    priced = np.isfinite(in_usd) & np.isfinite(out_usd)
    has_market = bool((priced & covered).sum() >= 2) and bool(np.isfinite(joined.out_tokens).any())
    kept = np.flatnonzero(covered & priced if has_market else covered)
    if len(kept) < 2:
        raise DatasetMissing(f"{joined.name}: fewer than two models answered all its prompts")
    questions = joined.only_models([joined.models[i] for i in kept])
    whole = np.isfinite(questions.outcome).all(axis=1)
    if has_market:
        whole &= np.isfinite(questions.in_tokens) & np.isfinite(questions.out_tokens).all(axis=1)
    questions = questions.take(np.asarray(whole))
    features = np.array([source.features(prompt) for prompt in questions.prompts])
    if has_market:
        cost = np.multiply.outer(questions.in_tokens, in_usd[kept])
        cost = cost + questions.out_tokens * out_usd[kept]
        return Problem(questions, features, in_usd[kept], out_usd[kept], cost, price_grid(cost))
    strong = int(np.argmax(questions.outcome.mean(axis=0)))
    cost = np.zeros(questions.outcome.shape)
    cost[:, strong] = 1.0
    return Problem(questions, features, None, None, cost, price_grid(cost))


def facts(problem: Problem) -> list[ModelFacts]:
    """What is known of the models from outside: their price."""
    prices = problem.output_usd
    return [
        ModelFacts(
            model=model,
            output_usd_per_mtok=None if prices is None else float(prices[i]) * 1e3,
        )
        for i, model in enumerate(problem.questions.models)
    ]


def learnt(problem: Problem, task: str = "task") -> TaskSkill:
    """The skill that full information on the problem's prompts leads to."""
    quality = QualityEstimator(facts(problem))
    quality.learn_table(task, problem.questions.models, problem.features, problem.questions.outcome)
    return quality.skill(task)


def promised(skill: TaskSkill, problem: Problem) -> Floats:
    """P(good) by the gateway's own arithmetic: (n_prompts, n_models)."""
    arrays = skill_arrays(skill, problem.questions.models)
    return np.array([p_good(*logits(arrays, f)) for f in problem.features])


def predicted_cost(learning: Problem, test: Problem) -> Floats:
    """Cost of each test prompt at each model, from answers seen while learning."""
    if learning.input_usd is None or learning.output_usd is None:
        return test.cost
    slope = fit_length(learning.features, learning.questions.out_tokens)
    tokens = slope.tokens(test.features)
    inputs = np.multiply.outer(test.questions.in_tokens, learning.input_usd)
    cost: Floats = inputs + tokens * learning.output_usd
    return cost


def split(problem: Problem, salt: str, share: float = 0.5) -> NDArray[np.bool_]:
    """Which prompts to learn from."""
    return learning_half(problem.questions.items, salt, share)


def _prices(folder: DataFolder, questions: QualitySet) -> tuple[Floats, Floats]:
    best = np.full((2, len(questions.models)), np.nan)
    for market in MARKETS:
        try:
            offers = folder.offers(market)
        except DatasetMissing:
            continue
        found = np.full_like(best, np.nan)
        for offer in offers:
            if offer.quality_model in questions.models and offer.input_usd_per_mtok is not None:
                column = questions.models.index(offer.quality_model)
                found[0, column] = offer.input_usd_per_mtok * 1e-3
                out_usd = offer.output_usd_per_mtok
                found[1, column] = np.nan if out_usd is None else out_usd * 1e-3
        if np.isfinite(found).all(axis=0).sum() > np.isfinite(best).all(axis=0).sum():
            best = found
    return best[0], best[1]
