"""A quality question on real data: prompts with features, models with prices, true costs.

Kept are models with a price (where the set has a market) that were run on at least nine tenths
of every set's prompts, and prompts all of them answered, so that everyone is scored on the same.
A set without token counts has no dollars: a call of the better of two models then costs 1, of
the other 0, so that cost is the share of strong calls.

Columns are models, each at its cheapest offer. Where a first token is asked for in time, they are
offers that have latencies: what is learnt of them is the first half of their samples, what they
deliver is the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analytics.embedding import PromptFeatures
from analytics.replay.datasets import DataFolder, QualitySet
from analytics.replay.errors import DatasetMissing
from analytics.replay.files import Floats
from analytics.replay.frontier import price_grid
from analytics.replay.traces import OfferRow
from analytics.replay.world import MARKETS, latencies
from bidding.estimators.answer_length import fit_length
from bidding.estimators.quality import QualityEstimator
from bidding.estimators.quality_fit import TaskTable
from bidding.estimators.quality_prior import ModelFacts
from bidding.estimators.quality_skill import logits, p_good, skill_arrays

LEAST_COVERAGE: Final = 0.9


class Problem(NamedTuple):
    """Prompts × models with costs, all known.

    Attributes
    ----------
    questions : QualitySet
    features : (n_prompts, N_FEATURES)
    input_usd, output_usd : (n_models,) dollars per token × 1,000 requests; None without a market
    cost : (n_prompts, n_models) dollars per 1,000 requests, or 0 and 1
    prices : λs to buy at, in rising order
    market : the one the prices come from, "" without
    offers : what is bought, by column
    learnt_on_time, kept_on_time : (n_models,) share of first tokens in time, in the samples that
        may be learnt from and in those that are scored; ones without a deadline
    """

    questions: QualitySet
    features: Floats
    input_usd: Floats | None
    output_usd: Floats | None
    cost: Floats
    prices: Floats
    market: str
    offers: tuple[str, ...]
    learnt_on_time: Floats
    kept_on_time: Floats

    def take(self, rows: NDArray[np.bool_]) -> Problem:
        """These prompts."""
        return self._replace(
            questions=self.questions.take(rows),
            features=self.features[rows],
            cost=self.cost[rows],
        )


def make_problem(
    folder: DataFolder,
    sets: Sequence[str],
    source: PromptFeatures,
    market: str | None = None,
    ttft_s: float | None = None,
) -> Problem:
    """The named sets as one problem.

    Parameters
    ----------
    market : str, optional
        Without it, the market that sells most of the sets' models.
    ttft_s : float, optional
        Deadline for the first token, seconds.

    Raises
    ------
    DatasetMissing
        When too little is left.
    """
    whole = folder.quality(sets)
    covered = _covered(whole)
    sold = [s for s in _sold(folder, whole, market, ttft_s) if covered[s.column]]
    if len(sold) < 2 or not np.isfinite(whole.out_tokens).any():
        if ttft_s is not None or (market is not None and np.isfinite(whole.out_tokens).any()):
            raise DatasetMissing(
                f"{whole.name}: {market or 'no market'} sells fewer than two models"
            )
        return _priceless(whole, covered, source)
    questions = whole.only_models([whole.models[s.column] for s in sold])
    complete = np.isfinite(questions.outcome).all(axis=1) & np.isfinite(questions.in_tokens)
    questions = questions.take(np.asarray(complete & np.isfinite(questions.out_tokens).all(axis=1)))
    features = np.array([source.features(prompt) for prompt in questions.prompts])
    in_usd, out_usd = (np.array([s[1 + k] for s in sold]) for k in range(2))
    cost = np.multiply.outer(questions.in_tokens, in_usd) + questions.out_tokens * out_usd
    return Problem(
        questions=questions,
        features=features,
        input_usd=in_usd,
        output_usd=out_usd,
        cost=cost,
        prices=price_grid(cost),
        market=sold[0].market,
        offers=tuple(s.offer for s in sold),
        learnt_on_time=np.array([s.learnt_on_time for s in sold]),
        kept_on_time=np.array([s.kept_on_time for s in sold]),
    )


def _covered(questions: QualitySet) -> NDArray[np.bool_]:
    covered = np.ones(len(questions.models), dtype=bool)
    tasks = np.array(questions.task)
    for name in set(questions.task):
        share = np.isfinite(questions.outcome[tasks == name]).mean(axis=0)
        covered &= share >= LEAST_COVERAGE
    return covered


def _priceless(whole: QualitySet, covered: NDArray[np.bool_], source: PromptFeatures) -> Problem:
    """Two models or more without prices: the best costs 1, the others nothing."""
    kept = np.flatnonzero(covered)
    if len(kept) < 2:
        raise DatasetMissing(f"{whole.name}: fewer than two models answered all its prompts")
    questions = whole.only_models([whole.models[i] for i in kept])
    questions = questions.take(np.asarray(np.isfinite(questions.outcome).all(axis=1)))
    strong = int(np.argmax(questions.outcome.mean(axis=0)))
    cost = np.zeros(questions.outcome.shape)
    cost[:, strong] = 1.0
    return Problem(
        questions=questions,
        features=np.array([source.features(prompt) for prompt in questions.prompts]),
        input_usd=None,
        output_usd=None,
        cost=cost,
        prices=price_grid(cost),
        market="",
        offers=tuple(questions.models),
        learnt_on_time=np.ones(len(kept)),
        kept_on_time=np.ones(len(kept)),
    )


def facts(problem: Problem) -> list[ModelFacts]:
    """What is known of the models from outside: their lowest price."""
    lowest: dict[str, float | None] = {}
    for i, model in enumerate(problem.questions.models):
        price = None if problem.output_usd is None else float(problem.output_usd[i]) * 1e3
        before = lowest.get(model)
        lowest[model] = price if before is None or price is None else min(price, before)
    return [ModelFacts(model=m, output_usd_per_mtok=price) for m, price in lowest.items()]


def learnt(problem: Problem) -> QualityEstimator:
    """What full information on the problem's prompts leads to; a task a set."""
    quality = QualityEstimator(facts(problem))
    models, columns = distinct_models(problem)
    tasks = np.array(problem.questions.task)
    quality.learn_tables(
        {
            name: TaskTable(
                problem.features[tasks == name],
                problem.questions.outcome[tasks == name][:, columns],
            )
            for name in sorted(set(problem.questions.task))
        },
        models,
    )
    return quality


def distinct_models(problem: Problem) -> tuple[list[str], list[int]]:
    """The models for sale, each once, and a column of each."""
    first: dict[str, int] = {}
    for column, model in enumerate(problem.questions.models):
        first.setdefault(model, column)
    return list(first), list(first.values())


def promised(quality: QualityEstimator, problem: Problem, task: str | None = None) -> Floats:
    """P(good) by the gateway's own arithmetic: (n_prompts, n_models).

    Parameters
    ----------
    task : str, optional
        The task all prompts are of; without it, each is of its set's.
    """
    tasks = problem.questions.task if task is None else [task] * len(problem.features)
    arrays = {
        name: skill_arrays(quality.skill(name), problem.questions.models) for name in set(tasks)
    }
    return np.array(
        [p_good(*logits(arrays[t], f)) for t, f in zip(tasks, problem.features, strict=True)]
    )


def predicted_cost(learning: Problem, test: Problem) -> Floats:
    """Cost of each test prompt at each model, from answers seen while learning.

    Answers' lengths are learnt per set; prompts of a set not learnt from, from all sets.
    """
    if learning.input_usd is None or learning.output_usd is None:
        return test.cost
    inputs = np.multiply.outer(test.questions.in_tokens, learning.input_usd)
    tokens = np.empty_like(inputs)
    known_tasks, tasks = np.array(learning.questions.task), np.array(test.questions.task)
    for name in sorted(set(test.questions.task)):
        known = known_tasks == name
        if not known.any():
            known = np.ones(len(known_tasks), dtype=bool)
        slope = fit_length(learning.features[known], learning.questions.out_tokens[known])
        tokens[tasks == name] = slope.tokens(test.features[tasks == name])
    cost: Floats = inputs + tokens * learning.output_usd
    return cost


class _Sold(NamedTuple):
    """An offer of a model of the set; dollars per token × 1,000 requests."""

    column: int
    input_usd: float
    output_usd: float
    market: str
    offer: str
    learnt_on_time: float = 1.0
    kept_on_time: float = 1.0


def _sold(
    folder: DataFolder, questions: QualitySet, market: str | None, ttft_s: float | None
) -> list[_Sold]:
    """What is for sale: a model's cheapest offer, or every offer that has latencies."""
    found: list[_Sold] = []
    for name in MARKETS if market is None else (market,):
        try:
            rows = folder.offers(name)
        except DatasetMissing:
            if market is not None:
                raise
            continue
        here = _offers(rows, questions, name)
        here = _cheapest(here, questions) if ttft_s is None else _timed(folder, rows, here, ttft_s)
        if len(here) > len(found):
            found = here
    return found


def _offers(rows: Sequence[OfferRow], questions: QualitySet, market: str) -> list[_Sold]:
    place = {model: i for i, model in enumerate(questions.models)}
    return [
        _Sold(
            place[row.quality_model],
            row.input_usd_per_mtok * 1e-3,
            row.output_usd_per_mtok * 1e-3,
            market,
            row.offer,
        )
        for row in rows
        if row.quality_model in place
        and row.input_usd_per_mtok is not None
        and row.output_usd_per_mtok is not None
    ]


def _cheapest(offers: Sequence[_Sold], questions: QualitySet) -> list[_Sold]:
    """One offer a model, the cheapest for its mean answer; in the order of the models."""
    in_tokens = float(np.nan_to_num(np.nanmean(questions.in_tokens)))
    least: dict[int, tuple[float, _Sold]] = {}
    for one in offers:
        out_tokens = questions.out_tokens[:, one.column]
        known = out_tokens[np.isfinite(out_tokens)]
        cost = in_tokens * one.input_usd + float(known.mean() if len(known) else 0) * one.output_usd
        if one.column not in least or cost < least[one.column][0]:
            least[one.column] = (cost, one)
    return [least[column][1] for column in sorted(least)]


def _timed(
    folder: DataFolder, rows: Sequence[OfferRow], offers: Sequence[_Sold], ttft_s: float
) -> list[_Sold]:
    """The offers that have latencies, with their shares in time."""
    series, _ = latencies(folder, offers[0].market if offers else "", rows)
    timed: list[_Sold] = []
    for one in offers:
        samples = series.get(one.offer, np.zeros(0))
        if len(samples) >= 2:
            in_time = samples <= ttft_s
            middle = len(samples) // 2
            timed.append(
                one._replace(
                    learnt_on_time=float((in_time[:middle].sum() + 1.0) / (middle + 2.0)),
                    kept_on_time=float(in_time[middle:].mean()),
                )
            )
    return timed
