"""Buying to learn: which bids may be drawn in the best one's place, and with what propensity.

Two small shares of an SLA class's requests. One is drawn among the *safe* bids: those whose
lower bounds of P(good) and P(on time) keep the class's targets, or at least what would be
bought anyway. The other gives *newcomers*, offers with fewer attempts behind them than a stated
number, their first tries: of them nothing is surely known, so their share bounds the risk. In
both a bid may lose at most so much in score, and cost at most so much more than the best bid,
that all exploration stays within a stated share of spend. A strict request is never explored,
nor a session with an incumbent: it would be handed over for our curiosity.

*Probes* come in their place while there is anybody to probe: an offer whose circuit is half open
looks bad for as long as nobody tries it, so that by its score alone it would hardly be tried
before its failures are forgotten. A share of requests goes to it, if it would win were it well;
how many may be out at a time is the circuit's to say, and whoever is drawn falls back like anybody
else. The slate says so by its rules (`slate.probing`): to the draw, probes are newcomers.

Propensities are exact: shares and counts are known before anything is drawn. The compiled
kernel does the same (`bidding.kernel_bids`).
"""

from __future__ import annotations

from typing import NamedTuple

from bidding.bid_columns import (
    BURN_IN_SHARE,
    MAX_FACTOR,
    MAX_LOSS,
    PUNCTUALITY,
    QUALITY,
    SHARE,
)
from bidding.columns import Floats
from bidding.draws import uniform
from bidding.slate import Slate

Told = list[float]
"""What is told of a bid; see `bid_columns.N_OUT`."""


class Lots(NamedTuple):
    """Who may be drawn, as places on the slate, and in which shares of requests."""

    safe: list[float]
    share: float
    fresh: list[int]
    burn_in: float


def explore(
    slate: Slate, seed: int, told: list[Told], cost: Floats, scores: Floats
) -> tuple[list[Told], float]:
    """With the exploration shares, put another bid first.

    Parameters
    ----------
    told : the ranked bids, best first
    cost, scores : ndarray, (n_eligible,)

    Returns
    -------
    list
        As many as there were, the winner first.
    float
        Probability with which this winner was chosen.
    """
    lots = lots_of(slate, told, cost, scores)
    if lots is None:
        return told, 1.0
    safe, share, fresh, burn_in = lots
    best = told[0][0]
    drawn = uniform(seed, 0)
    chosen = best
    if drawn < share:
        chosen = safe[int(uniform(seed, 1) * len(safe))]
    elif drawn < share + burn_in:
        chosen = fresh[int(uniform(seed, 1) * len(fresh))]
    propensity = 1.0 - share - burn_in if chosen == best else 0.0
    if share and chosen in safe:
        propensity += share / len(safe)
    if chosen == best:
        return told, propensity
    if chosen in fresh:
        propensity += burn_in / len(fresh)
    at = next((j for j, one in enumerate(told) if one[0] == chosen), len(told) - 1)
    first = told[at] if told[at][0] == chosen else tell(slate, int(chosen), cost, scores)
    return [first, *told[:at], *told[at + 1 :]], propensity


def lots_of(slate: Slate, told: list[Told], cost: Floats, scores: Floats) -> Lots | None:
    """Who may be drawn in the best bid's place; None where nobody is."""
    rules = slate.rule_list
    best, best_score, best_cost = told[0][:3]
    worst = best_score + rules[MAX_LOSS]
    dearest = best_cost * rules[MAX_FACTOR]
    safe = _safe(slate, rules, told, worst, dearest)
    fresh: list[int] = []
    if len(slate.fresh):
        fresh = [
            i
            for i in slate.fresh.tolist()
            if scores[i] <= worst and cost[i] <= dearest and i != best
        ]
    share = rules[SHARE] if len(safe) > 1 else 0.0
    burn_in = rules[BURN_IN_SHARE] if fresh else 0.0
    if share + burn_in <= 0.0:
        return None
    return Lots(safe, share, fresh, burn_in)


def tell(slate: Slate, place: int, cost: Floats, scores: Floats) -> Told:
    """What is told of the bid at `place`."""
    good, on_time = slate.p_good.item(place), slate.p_on_time.item(place)
    return [place, scores.item(place), cost.item(place), good, on_time]


def _safe(
    slate: Slate, rules: list[float], told: list[Told], worst: float, dearest: float
) -> list[float]:
    """Places of the bids no less safe than the class's targets, or than the best bid, it first."""
    best = told[0][0]
    safe = [best]
    if len(told) < 2 or told[1][1] > worst:
        return safe
    quality, punctuality = rules[QUALITY], rules[PUNCTUALITY]
    least_good, least_on_time = slate.least_good.item, slate.least_on_time.item
    if quality >= 0.0:
        quality = min(quality, least_good(int(best)))
    if punctuality >= 0.0:
        punctuality = min(punctuality, least_on_time(int(best)))
    for place, score, cost, _, _ in told[1:]:
        if score > worst:
            break
        if (
            cost <= dearest
            and (quality < 0.0 or least_good(int(place)) >= quality)
            and (punctuality < 0.0 or least_on_time(int(place)) >= punctuality)
        ):
            safe.append(place)
    return safe
