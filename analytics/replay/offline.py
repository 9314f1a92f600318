"""Offline replay: everything learnt with full information first, then bought prompt by prompt.

Splits are halves by a hash of the prompt, the first the one that the whole replay uses; with
`--test-data` there is one, all that is known against all that is asked. Figures are means over
splits. Their interval is a bootstrap over prompts, a draw weighing the test half of every split
alike, so that ten splits are not taken for ten times the prompts. No setting, λ included, is
picked on prompts that are scored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from analytics.embedding import PromptFeatures, load_prompt_features
from analytics.replay.beliefs import BeliefCache
from analytics.replay.datasets import DataFolder, join
from analytics.replay.errors import DatasetMissing
from analytics.replay.files import Floats
from analytics.replay.frontier import (
    Purchases,
    calls_for_gap,
    expected_calibration_error,
    gap_closed,
    hull_of,
)
from analytics.replay.hindsight import Frontier, mixture
from analytics.replay.measures import KEPT_WITHIN, Interval
from analytics.replay.offline_policies import families
from analytics.replay.quality_problem import Problem, make_problem
from analytics.replay.quality_splits import (
    QUALITY_SHARE,
    SplitResult,
    learning_masks,
    run_split,
)
from analytics.replay.report import PolicyReport
from analytics.replay.settings import ReplaySettings
from analytics.replay.unseen_task import unseen_kinds

MAX_SPLITS: Final = 10
N_BOOTSTRAP: Final = 200

Figures = dict[str, float]
Progress = Callable[[str, float | None], None]


class Offline(NamedTuple):
    """What the splits found.

    `unseen` tells how it goes on kinds of task left out of learning.
    """

    problem: Problem
    n_splits: int
    policies: list[PolicyReport]
    unseen: list[dict[str, Any]]


def offline(settings: ReplaySettings, progress: Progress) -> Offline:
    """Learn, buy and score. Raises `DatasetMissing` and `EmbeddingUnavailable`."""
    source = load_prompt_features()
    cache = BeliefCache(settings.cache)
    problem, masks = _problem(settings, source)
    results: list[SplitResult] = []
    for k, mask in enumerate(masks):
        progress(f"split {k + 1} of {len(masks)}", k / len(masks))
        results.append(run_split(problem, mask, 1.0 - mask, cache, settings.target))
    progress("kinds of task never seen", None)
    known = problem if settings.test_data is None else results[0].known
    found = reports(results)
    if settings.ttft_s is not None:  # what is bought there is good and in time, never good alone
        for one in found:
            one.figures.pop("quality", None)
    return Offline(problem, len(masks), found, unseen_kinds(known))


def _problem(settings: ReplaySettings, source: PromptFeatures) -> tuple[Problem, list[Floats]]:
    """The prompts, and which of them each split learns from."""
    folder = DataFolder(settings.data)
    if settings.test_data is None:
        whole = make_problem(folder, settings.sets, source, settings.market, settings.ttft_s)
        return whole, learning_masks(whole.questions.items, min(settings.seeds, MAX_SPLITS))
    test_folder = DataFolder(settings.test_data, folder)
    test = make_problem(test_folder, settings.sets, source, settings.market, settings.ttft_s)
    names = [name for name in settings.sets if name in folder.quality_sets()]
    if not names:
        return test, learning_masks(test.questions.items, min(settings.seeds, MAX_SPLITS))
    known = make_problem(folder, names, source, test.market or None, settings.ttft_s)
    both = joined(known, test)
    n_known = len(known.questions.items)
    return both, [(np.arange(len(both.questions.items)) < n_known).astype(np.float64)]


def joined(known: Problem, test: Problem) -> Problem:
    """Both problems' prompts over the offers both sell. Raises `DatasetMissing`."""
    offers = [offer for offer in known.offers if offer in test.offers]
    if len(offers) < 2:
        raise DatasetMissing(f"{test.questions.name}: fewer than two models are known from before")
    one, other = only_offers(known, offers), only_offers(test, offers)
    return other._replace(
        questions=join([one.questions, other.questions])._replace(name=other.questions.name),
        features=np.concatenate([one.features, other.features]),
        cost=np.concatenate([one.cost, other.cost]),
    )


def only_offers(problem: Problem, offers: Sequence[str]) -> Problem:
    """The problem with these columns, in this order."""
    columns = [problem.offers.index(offer) for offer in offers]
    questions = problem.questions
    return problem._replace(
        questions=questions._replace(
            models=[questions.models[c] for c in columns],
            outcome=questions.outcome[:, columns],
            out_tokens=questions.out_tokens[:, columns],
        ),
        input_usd=None if problem.input_usd is None else problem.input_usd[columns],
        output_usd=None if problem.output_usd is None else problem.output_usd[columns],
        cost=problem.cost[:, columns],
        offers=tuple(offers),
        learnt_on_time=problem.learnt_on_time[columns],
        kept_on_time=problem.kept_on_time[columns],
    )


def reports(results: Sequence[SplitResult], seed: int = 20240424) -> list[PolicyReport]:
    """One line a policy, ours first; yardsticks last."""
    n_prompts = 1 + max(int(result.at.max()) for result in results)
    rng = np.random.Generator(np.random.PCG64(seed))
    even = np.full(n_prompts, 1.0 / n_prompts)
    bought = [families(result) for result in results]
    plain = _averaged(results, bought, np.ones(n_prompts))
    again = [
        _averaged(results, bought, rng.multinomial(n_prompts, even).astype(np.float64))
        for _ in range(N_BOOTSTRAP)
    ]
    found = []
    for policy, figures in plain.items():
        rows = {
            name: _percentiles(mean, [other[policy][name] for other in again])
            for name, mean in figures.items()
        }
        known = {name: row for name, row in rows.items() if row is not None}
        found.append(PolicyReport(policy=policy, figures=known))
    return found


def _averaged(
    results: Sequence[SplitResult], bought: Sequence[dict[str, Purchases]], weight: Floats
) -> dict[str, Figures]:
    """Means over splits with prompts weighing `weight`; ECE over the pooled promises, cost shares
    of the dollars of all splits together.
    """
    splits = [_policies(r, b, weight[r.at]) for r, b in zip(results, bought, strict=True)]
    found = {
        policy: {
            name: float(np.mean([split[policy][name] for split in splits])) for name in figures
        }
        for policy, figures in splits[0].items()
    }
    dearest = found["best-fixed-offer"]["usd_per_1k"]
    for figures in found.values():
        figures["cost_share"] = figures["usd_per_1k"] / dearest
    masses = [np.repeat(weight[r.at], r.beliefs.p_good.shape[1]) for r in results]
    found["broker"]["ece"] = expected_calibration_error(
        np.concatenate([r.beliefs.p_good.ravel() for r in results]),
        np.concatenate([r.asked.questions.outcome.ravel() for r in results]),
        np.concatenate(masses),
    )
    return found


def _policies(
    result: SplitResult, bought: dict[str, Purchases], weight: Floats
) -> dict[str, Figures]:
    """Every policy's figures on one split's test half."""
    mass = weight / weight.sum()
    outcome = result.delivered
    hull = hull_of(outcome, result.asked.cost, mass)
    found = {
        name: _bought(result, family, hull, mass, result.chosen if name == "broker" else 0)
        for name, family in bought.items()
    }
    oracle = mixture(*reversed(result.oracle.points(mass)))
    best = float(hull.quality[-1])
    one = int(np.argmax(mass @ outcome))
    at = float((mass @ outcome)[one]), float((mass @ result.asked.cost)[one])
    found["best-fixed-offer"] = _point(at[0], at[1], hull, result.aim, len(weight))
    for name, frontier, closed in (("best-fixed-mixture", hull, 0.0), ("oracle", oracle, 1.0)):
        quality = min(max(QUALITY_SHARE * best, float(frontier.quality[0])), best)
        cost = frontier.cost_at(quality)
        found[name] = _point(quality, cost, hull, result.aim, len(weight)) | {
            "gap_closed": closed,
            "usd_at_95": frontier.cost_at(0.95 * best),
            "usd_at_98": frontier.cost_at(0.98 * best),
        }
    return found


def _bought(
    result: SplitResult, family: Purchases, hull: Frontier, mass: Floats, chosen: int
) -> Figures:
    cost, quality = family.points(mass)
    found = _point(float(quality[chosen]), float(cost[chosen]), hull, result.aim, len(mass))
    gap = gap_closed(family, result.oracle, hull, mass)
    found |= {"gap_closed": gap.linear, "gap_closed_log_cost": gap.log}
    if len(cost) == 1:
        return found
    best = float(hull.quality[-1])
    ours = mixture(np.append(quality, float(hull.quality[0])), np.append(cost, float(hull.cost[0])))
    return found | {
        "gap_closed_unmixed": gap.unmixed_linear,
        "usd_at_95": ours.cost_at(0.95 * best),
        "usd_at_98": ours.cost_at(0.98 * best),
        "cost_share_for_half_gap": calls_for_gap(family, hull, mass, 0.5),
        "cost_share_for_80_gap": calls_for_gap(family, hull, mass, 0.8),
    }


def _point(quality: float, cost: float, hull: Frontier, aim: float, n: int) -> Figures:
    """Figures of one mean quality and cost; dollars are per 1,000 requests."""
    best = float(hull.quality[-1])
    hindsight = hull.cost_at(min(quality, best))
    return {
        "usd_per_1k": cost,
        "quality": quality,
        "good_and_on_time": quality,
        "quality_share": quality / best,
        "attained": float(quality >= aim - KEPT_WITHIN),
        "usd_vs_hull": cost / max(hindsight, 1e-12),
        "regret_usd": (cost - hindsight) * n / 1000.0,
    }


def _percentiles(mean: float, values: Sequence[float]) -> Interval | None:
    """None where the figure is out of reach, such as a cost of what no λ attains."""
    known = np.array([value for value in values if np.isfinite(value)])
    if not np.isfinite(mean) or not len(known):
        return None
    low, high = np.percentile(known, [2.5, 97.5])
    return Interval(mean=mean, low=float(low), high=float(high))
