"""What goes wrong in mid-stream: a seller doubles its price, gets worse, appears, or goes down.

The victim is fixed by hindsight before the stream begins, so that all policies meet the same
shock: the offer that the best fixed mixture at the target buys most (its best value). An outage
hits the provider the policy itself bought most from, since losing one that nobody uses shows
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analytics.replay.files import Floats
from analytics.replay.hindsight import Frontier
from analytics.replay.settings import Shock
from analytics.replay.world import World
from bidding.columns import Bools

PRICE_FACTOR = 2.0
QUALITY_LOSS = 0.20


@dataclass(frozen=True, slots=True)
class ShockPlan:
    """What changes at request `at`; arrays over offers are ones or False where nothing does.

    Attributes
    ----------
    price_factor : (n_offers,) from `at` on
    spoilt : (n_models,) share of a model's good answers that turn bad from `at` on
    absent_before : (n_offers,) offers that come to the market at `at`
    takes_down_most_bought : whether the policy's most bought provider fails from `at` on
    victim : row of the offer hit, -1 where it depends on the policy
    """

    kind: Shock | None
    at: int
    price_factor: Floats
    spoilt: Floats
    absent_before: Bools
    takes_down_most_bought: bool
    victim: int


def plan_shock(
    kind: Shock | None, world: World, frontier: Frontier, target: float, at: int
) -> ShockPlan:
    """The shock called `kind` at request number `at`; None changes nothing."""
    n = len(world.offer_ids)
    price_factor = np.ones(n)
    spoilt = np.zeros(len(world.models))
    absent = np.zeros(n, dtype=bool)
    victim = -1
    if kind in ("price", "degrade", "newcomer"):
        victim = max(frontier.shares_at(target), key=lambda share: share[1])[0]
        same_model = world.model_of == world.model_of[victim]
        if kind == "price":
            price_factor[same_model] = PRICE_FACTOR
        elif kind == "degrade":
            model = int(world.model_of[victim])
            mean = float(world.outcome[:, model].mean())
            spoilt[model] = min(QUALITY_LOSS / max(mean, QUALITY_LOSS), 1.0)
        else:
            absent = same_model
    return ShockPlan(kind, at, price_factor, spoilt, absent, kind == "outage", victim)
