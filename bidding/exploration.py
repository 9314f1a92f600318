"""Buying to learn: which bids may be drawn in the best one's place, and with what propensity.

Two small shares of an SLA class's requests. One is drawn among the *safe* bids: those whose
lower bounds of P(good) and P(on time) keep the class's targets, or at least what would be
bought anyway. The other gives *newcomers*, offers with fewer attempts behind them than a stated
number, their first tries: of them nothing is surely known, so their share bounds the risk. In
both a bid may lose at most so much in score, and cost at most so much more than the best bid,
that all exploration stays within a stated share of spend. A strict request is never explored,
nor a session with an incumbent: it would be handed over for our curiosity.

Propensities are exact: shares and counts are known before anything is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

from bidding.columns import Floats
from bidding.decision import Bid
from bidding.draws import uniform
from bidding.kind import on_time_target
from bidding.params import ExplorationParams
from bidding.request import Sla
from bidding.slate import Slate
from bidding.units import NUSD_PER_USD


def explore(
    slate: Slate,
    sla: Sla,
    params: ExplorationParams,
    seed: int,
    bids: list[Bid],
    places: Sequence[int],
    cost: Floats,
    scores: Floats,
) -> tuple[list[Bid], float]:
    """With the exploration shares, put another bid first.

    Parameters
    ----------
    bids, places : the ranked bids, best first, and where they stand on the slate
    cost, scores : ndarray, (n_eligible,)

    Returns
    -------
    list of Bid
        As many as there were, the winner first.
    float
        Probability with which this winner was chosen.
    """
    first = bids[0]
    total = params.share + params.burn_in_share
    if total <= 0.0:
        return bids, 1.0
    worst = first.score_nusd + params.max_loss_usd * NUSD_PER_USD
    dearest = first.cost_nusd * (1.0 + params.max_spend_share / total)
    safe = _safe(slate, sla, params, bids, places, worst, dearest)
    fresh = [
        i for i in slate.newcomers if scores[i] <= worst and cost[i] <= dearest and i != places[0]
    ]
    share = params.share if len(safe) > 1 else 0.0
    burn_in = params.burn_in_share if fresh else 0.0
    if share + burn_in <= 0.0:
        return bids, 1.0
    drawn = uniform(seed, 0)
    chosen = places[0]
    if drawn < share:
        chosen = safe[int(uniform(seed, 1) * len(safe))]
    elif drawn < share + burn_in:
        chosen = fresh[int(uniform(seed, 1) * len(fresh))]
    propensity = 1.0 - share - burn_in if chosen == places[0] else 0.0
    if share and chosen in safe:
        propensity += share / len(safe)
    if chosen in fresh:
        propensity += burn_in / len(fresh)
    if chosen == places[0]:
        return bids, propensity
    if chosen in places:
        at = places.index(chosen)
        return [bids[at], *bids[:at], *bids[at + 1 :]], propensity
    return [_bid_at(slate, chosen, cost, scores), *bids[:-1]], propensity


def _safe(
    slate: Slate,
    sla: Sla,
    params: ExplorationParams,
    bids: list[Bid],
    places: Sequence[int],
    worst: float,
    dearest: float,
) -> list[int]:
    """Places of the bids no less safe than the class's targets, or than the best bid, it first."""
    safe = [places[0]]
    if len(bids) < 2 or bids[1].score_nusd > worst:
        return safe
    doubt = params.safety_sd
    quality = punctuality = -1.0
    if sla.quality is not None:
        quality = min(sla.quality, _least_good(slate, places[0], doubt))
    target = on_time_target(sla)
    if target is not None:
        punctuality = min(target, _least_on_time(slate, places[0], doubt))
    for bid, at in zip(bids[1:], places[1:], strict=False):
        if bid.score_nusd > worst:
            break
        if (
            bid.cost_nusd <= dearest
            and (quality < 0.0 or _least_good(slate, at, doubt) >= quality)
            and (punctuality < 0.0 or _least_on_time(slate, at, doubt) >= punctuality)
        ):
            safe.append(at)
    return safe


def _least_good(slate: Slate, at: int, doubt: float) -> float:
    return max(slate.p_good.item(at) - doubt * slate.p_good_sd.item(at), 0.0)


def _least_on_time(slate: Slate, at: int, doubt: float) -> float:
    return max(slate.p_on_time.item(at) - doubt * slate.p_on_time_sd.item(at), 0.0)


def _bid_at(slate: Slate, at: int, cost: Floats, scores: Floats) -> Bid:
    row = slate.row_list[at]
    return Bid(
        slate.offer_ids[row],
        row,
        scores.item(at),
        cost.item(at),
        slate.p_good.item(at),
        slate.p_on_time.item(at),
    )
