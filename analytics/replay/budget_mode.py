"""Budget replay: days of real arrivals, real prompts and prices, and one budget a day.

The Azure traces are half an hour long, so days are made of them: the half hour is stretched to
24 hours, each hour keeps its share of the trace, and a day draws its requests from it with
replacement, at a volume of its own (lognormal, sd 0.15) and with one hour of the day at up to
three times its traffic. Prompts are drawn from the half nothing was learnt from; what each λ
buys is the offline replay's. A day's budget lies at a level between the spend of the least and
of the most that the stated value buys, in logarithm. κ and the arrival profile are carried from
day to day; the first `N_WARM` days of a run teach the profile and are not scored.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from msgspec import Struct

from analytics.embedding import load_prompt_features
from analytics.replay.datasets import DataFolder, learning_half
from analytics.replay.files import Floats
from analytics.replay.hindsight import mixture
from analytics.replay.measures import Interval
from analytics.replay.quality_problem import make_problem
from analytics.replay.quality_splits import run_split
from bidding.budget import DEFAULTS, ArrivalProfile, BudgetParams, BudgetPrice

LEVELS: Final = (0.25, 0.5, 0.75)
TRACES: Final = ("conv", "code")
N_DAYS: Final = 50
N_WARM: Final = 5
STEP_REQUESTS: Final = 10
LEAST_SPEND: Final = 0.97
MOST_SPEND: Final = 1.005
LEAST_QUALITY: Final = 0.98
_NUSD_PER_USD_PER_1K: Final = 1e6


class Choices(NamedTuple):
    """What each λ buys: cost (nusd) and quality, (n_prices, n_prompts).

    `prices` are the λs in rising order, (n_prices,); the last is what a good answer is worth.
    """

    prices: Floats
    cost: Floats
    quality: Floats


class BudgetLine(Struct, frozen=True, kw_only=True):
    """One trace at one level, means over days; intervals are a bootstrap over days.

    `quality_share` is against the best constant λ in hindsight that the whole day's budget pays
    for; `quality_vs_same_spend` against the constant λ that spends what was spent, though a
    smaller one may buy more; `quality_vs_two_prices` against the best two constant λs in turn,
    which is more than any one price can do where the curve of the λs bends inwards.
    """

    trace: str
    level: float
    n_days: int
    spend_share: Interval
    spend_share_least: float
    spend_share_most: float
    quality_share: Interval
    quality_share_least: float
    quality_vs_same_spend: Interval
    quality_vs_two_prices: Interval
    n_days_spend_in_bounds: int
    n_days_in_bounds: int
    kappa_mean: float


class BudgetReport(Struct, frozen=True, kw_only=True):
    """All lines.

    `holds`: every day's spend is within the bounds and every line's mean quality share reaches
    the least with its whole interval. `holds_every_day` asks that of every day's quality too.
    """

    mode: str
    half: str
    requests_per_day: float
    holds: bool
    holds_every_day: bool
    lines: list[BudgetLine]


def report(
    data: Path,
    sets: tuple[str, ...],
    *,
    learning: bool = False,
    n_days: int = N_DAYS,
    seed: int = 0,
    params: BudgetParams = DEFAULTS,
) -> BudgetReport:
    """Replay the days. `learning` stays within the learning half, for picking settings.

    Another `seed` makes other days.
    """
    folder = DataFolder(data)
    choices = choices_of(folder, sets, learning=learning)
    rng = np.random.Generator(np.random.PCG64((7 if learning else 20231116) + seed))
    lines, volumes = [], []
    for trace in TRACES:
        at_share = folder.arrivals(trace).offset_s
        at_share = at_share / at_share[-1] * (1.0 - 1e-9)
        days = [one_day(at_share, len(choices.cost[0]), rng) for _ in range(N_WARM + n_days)]
        volumes += [len(at) for at, _ in days]
        lines += [line(trace, level, days, choices, params) for level in LEVELS]
    return BudgetReport(
        mode="budget",
        half="learning" if learning else "test",
        requests_per_day=float(np.mean(volumes)),
        holds=all(
            one.n_days_spend_in_bounds == one.n_days and one.quality_share.low >= LEAST_QUALITY
            for one in lines
        ),
        holds_every_day=all(one.n_days_in_bounds == one.n_days for one in lines),
        lines=lines,
    )


def choices_of(folder: DataFolder, sets: tuple[str, ...], *, learning: bool) -> Choices:
    """What the model learnt on one half buys on the other (or within the learning half).

    The value of an answer, which is the highest λ, is the one of the highest quality within the
    learning half.
    """
    problem = make_problem(folder, sets, load_prompt_features())
    known = learning_half(problem.questions.items)
    if learning:
        problem = problem.take(known)
        known = learning_half(problem.questions.items, "inner")
    inside = problem if learning else problem.take(known)
    inner = learning_half(inside.questions.items, "inner")
    learnt = run_split(inside, inner.astype(np.float64), (~inner).astype(np.float64)).policy
    top = int(np.argmax(learnt.quality.mean(axis=1))) + 1
    bought = (
        learnt
        if learning
        else run_split(problem, known.astype(np.float64), (~known).astype(np.float64)).policy
    )
    return Choices(
        problem.prices[1:top], bought.cost[1:top] * _NUSD_PER_USD_PER_1K, bought.quality[1:top]
    )


def one_day(
    trace_share: Floats, n_prompts: int, rng: np.random.Generator
) -> tuple[Floats, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """When a day's requests come, as shares of the day in order, and their prompts."""
    busy = np.full(24, math.exp(rng.normal(0.0, 0.15)))
    busy[rng.integers(24)] *= rng.uniform(1.0, 3.0)
    drawn = rng.poisson(busy[(trace_share * 24).astype(np.int64)])
    at = np.repeat(trace_share, drawn) + rng.uniform(-0.5, 0.5, int(drawn.sum())) / (24 * 60)
    return np.sort(np.clip(at, 0.0, 1.0 - 1e-9)), rng.integers(0, n_prompts, len(at))


def line(
    trace: str,
    level: float,
    days: list[tuple[Floats, np.ndarray[tuple[int], np.dtype[np.int64]]]],
    choices: Choices,
    params: BudgetParams,
) -> BudgetLine:
    """All days of one trace at one level."""
    profile, price = ArrivalProfile(params), BudgetPrice(params)
    found = []
    for at, prompts in days:
        totals = choices.cost[:, prompts].sum(axis=1)
        least, most = math.log(totals.min()), math.log(totals.max())
        budget = math.exp(least + level * (most - least))
        spent, quality, kappa = played(at, prompts, budget, choices, profile, price)
        goods = choices.quality[:, prompts].mean(axis=1)
        best = float(goods[totals <= budget].max())
        turns = mixture(goods, totals).quality_at(budget)
        same = float(np.interp(spent, np.maximum.accumulate(totals), goods))
        found.append((spent / budget, quality / best, kappa, quality / turns, quality / same))
    scored = np.array(found[N_WARM:] if len(found) > N_WARM else found)
    spend, good = scored[:, 0], scored[:, 1]
    paced = (spend >= LEAST_SPEND) & (spend <= MOST_SPEND)
    kept = paced & (good >= LEAST_QUALITY)
    return BudgetLine(
        trace=trace,
        level=level,
        n_days=len(scored),
        spend_share=_interval(spend),
        spend_share_least=float(spend.min()),
        spend_share_most=float(spend.max()),
        quality_share=_interval(good),
        quality_share_least=float(good.min()),
        quality_vs_same_spend=_interval(scored[:, 4]),
        quality_vs_two_prices=_interval(scored[:, 3]),
        n_days_spend_in_bounds=int(paced.sum()),
        n_days_in_bounds=int(kept.sum()),
        kappa_mean=float(scored[:, 2].mean()),
    )


def played(
    at: Floats,
    prompts: np.ndarray[tuple[int], np.dtype[np.int64]],
    budget: float,
    choices: Choices,
    profile: ArrivalProfile,
    price: BudgetPrice,
) -> tuple[float, float, float]:
    """One day: spend (nusd), mean quality, mean κ. The price steps every few requests."""
    value = math.log(choices.prices[-1])
    grid = np.log(choices.prices)
    middles = (grid[1:] + grid[:-1]) / 2
    spent = good = kappas = 0.0
    for start in range(0, len(at), STEP_REQUESTS):
        chunk = prompts[start : start + STEP_REQUESTS]
        row = int(np.searchsorted(middles, value - math.log1p(price.money_price)))
        cost = float(choices.cost[row, chunk].sum())
        spent += cost
        good += float(choices.quality[row, chunk].sum())
        kappas += price.money_price * len(chunk)
        now = float(at[min(start + STEP_REQUESTS, len(at)) - 1])
        profile.arrived(now, len(chunk))
        price.spent(
            cost,
            budget_nusd=budget,
            spent_nusd=spent,
            n_to_come=profile.to_come(now),
            n_requests=len(chunk),
        )
    profile.end_period()
    return spent, good / len(at), kappas / len(at)


def _interval(values: Floats) -> Interval:
    rng = np.random.Generator(np.random.PCG64(1))
    means = rng.choice(values, (2000, len(values))).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(mean=float(values.mean()), low=float(low), high=float(high))
