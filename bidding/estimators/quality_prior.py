"""What is believed of a model before anyone judged it: published score, family, price, other tasks.

Cold start is a regression by hand. A published score counts as the log-odds itself, shrunk
towards the market's mean; without one, the family's mean is taken; without a family, price: a
tenfold price is worth about one and a half units of log-odds (fitted across zeroeval's 45
priced models: slope 1.5 per decade, residual 0.8; believed is 0.6, `PRICE_SD`, which foretold
labels as they came better, docs/decisions/0035). What other tasks taught of the model
overrules all of it in proportion to how much they know: a model's standing on a task is its
standing elsewhere plus a task-specific part.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec import Struct

BASE_LOGIT: Final = 1.0
"""Log-odds of a good answer where nothing at all is known: 73 %."""

LEVEL_SD: Final = 1.0
"""How far the first task's difficulty may lie from that, log-odds."""

TASKS_APART_SD: Final = 2.0
"""How far a new task lies from those known, log-odds. Grade-school and competition mathematics lie
2.7 apart; 1, 1.5, 2 and 2.5 compared in decision 0030.
"""

SCORE_SD: Final = 0.5
FAMILY_SD: Final = 0.7
PRICE_SD: Final = 0.6
NOTHING_SD: Final = 1.2
TASK_SD: Final = 0.4
"""How far a model's standing on one task lies from its standing on others."""

PRICE_SLOPE: Final = 1.5
_SCORE_EDGE: Final = 0.02
_MID_PRICE_USD: Final = 1.0


class ModelFacts(Struct, frozen=True, kw_only=True):
    """What is known of a model from outside. `output_usd_per_mtok` is its lowest list price."""

    model: str
    family: str = ""
    prior_quality: float | None = None
    output_usd_per_mtok: float | None = None


class Standing(Struct, frozen=True, array_like=True):
    """A model's log-odds relative to the market on a task, with standard deviation."""

    theta: float
    sd: float


def cold_standing(facts: ModelFacts | None, others: Iterable[ModelFacts]) -> Standing:
    """Standing from outside facts alone, relative to `BASE_LOGIT`."""
    if facts is None:
        return Standing(0.0, NOTHING_SD)
    score = _score(facts)
    if score is not None:
        return Standing(score, SCORE_SD)
    family = [s for o in others if o.family and o.family == facts.family for s in [_score(o)]]
    known = [s for s in family if s is not None]
    price = _priced(facts)
    if known:
        mean = sum(known) / len(known)
        return Standing(mean if price is None else 0.7 * mean + 0.3 * price, FAMILY_SD)
    if price is not None:
        return Standing(price, PRICE_SD)
    return Standing(0.0, NOTHING_SD)


def task_standing(cold: Standing, elsewhere: Sequence[Standing]) -> Standing:
    """Standing on a new task: outside facts and what other tasks taught, by precision.

    Parameters
    ----------
    elsewhere : sequence of Standing
        The model's standing on each other task, relative to that task's level.
    """
    precision = 1.0 / (cold.sd * cold.sd)
    total = cold.theta * precision
    for standing in elsewhere:
        weight = 1.0 / (standing.sd * standing.sd + TASK_SD * TASK_SD)
        precision += weight
        total += weight * standing.theta
    return Standing(total / precision, math.sqrt(1.0 / precision + TASK_SD * TASK_SD))


def facts_by_model(facts: Iterable[ModelFacts]) -> Mapping[str, ModelFacts]:
    """The facts by model name; the last one of a name counts."""
    return {fact.model: fact for fact in facts}


def _score(facts: ModelFacts) -> float | None:
    score = facts.prior_quality
    if score is None or not math.isfinite(score):
        return None
    score = min(max(score, _SCORE_EDGE), 1.0 - _SCORE_EDGE)
    return math.log(score / (1.0 - score)) - BASE_LOGIT


def _priced(facts: ModelFacts) -> float | None:
    price = facts.output_usd_per_mtok
    if price is None or not math.isfinite(price) or price <= 0.0:
        return None
    return max(-2.0, min(2.0, PRICE_SLOPE * math.log10(price / _MID_PRICE_USD)))
