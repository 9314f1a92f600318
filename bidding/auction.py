"""The auction: slate, score, rank, explore, clear. A pure function, and the hot path.

What is left to do per request is little: the prompt's share of each cost, one policy's scores,
the best few of them. Everything else is on the slate already.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from bidding.columns import Floats
from bidding.decision import Bid, Decision, NoBid
from bidding.draws import uniform
from bidding.params import Params
from bidding.policies.base import Policy
from bidding.policies.priced import Priced
from bidding.request import BidRequest
from bidding.slate import Slate, for_prompt, slate_for
from bidding.units import NUSD_PER_USD
from bidding.view import MarketView

BROKER: Final[Policy] = Priced()


def decide(
    view: MarketView, request: BidRequest, params: Params, seed: int, policy: Policy = BROKER
) -> Decision:
    """Buy for `request` on `view`.

    Returns
    -------
    Decision
        Without a winner when nobody could bid.

    Notes
    -----
    Deterministic in its arguments. About ten array operations on the eligible offers once the
    view has a slate for this kind of request.
    """
    slate = slate_for(view, request, params)
    if request.features:
        slate = for_prompt(slate, request, params)
    cost = slate.fixed_nusd + slate.input_nusd * float(request.input_tokens)
    if request.incumbent is not None:
        cost = _with_warm_cache(view, slate, request, cost)
    scores = policy.score(slate, request, cost, params, seed)
    if request.incumbent is not None:
        scores = scores + _switching_nusd(view, slate, request, params) * request.worth_scale
    no_bids = slate.no_bids
    ceiling = _ceiling_nusd(request)
    n_bids = len(slate.rows)
    if ceiling < math.inf:
        above = cost > ceiling
        n_above = int(np.count_nonzero(above))
        if n_above:
            scores = np.where(above, np.inf, scores)
            no_bids = {**no_bids, NoBid.ABOVE_RESERVE.value: n_above}
            n_bids -= n_above
    bids = _ranked(slate, cost, scores, min(params.choice.n_ranked, n_bids))
    propensity: float | None = None if policy.draws else 1.0
    clearing: float | None = None
    if bids:
        if policy.explores and not request.sla.strict:
            bids, propensity = _explore(bids, params, seed)
        if len(bids) > 1:
            second = min(b.score_nusd for b in bids[1:])
            clearing = bids[0].cost_nusd + second - bids[0].score_nusd
    return Decision(
        view_number=view.number,
        params_version=params.version,
        policy=policy.name,
        seed=seed,
        ranked=bids,
        n_bids=n_bids,
        no_bids=no_bids,
        clearing_price_nusd=clearing,
        propensity=propensity if bids else None,
        feasible=slate.feasible and bool(bids),
        quality_price_nusd=slate.quality_price_nusd,
        punctuality_price_nusd=slate.punctuality_price_nusd,
        best=_bid(slate, cost, scores, slate.best) if bids else None,
        cheapest=_bid(slate, cost, scores, cost.argmin().item()) if bids else None,
    )


def _ceiling_nusd(request: BidRequest) -> float:
    cap = request.sla.max_cost_usd
    return request.reserve_nusd if cap is None else min(request.reserve_nusd, cap * NUSD_PER_USD)


def _with_warm_cache(view: MarketView, slate: Slate, request: BidRequest, cost: Floats) -> Floats:
    """The incumbent's cost with the part of the prompt that it has cached at its cached price."""
    at = np.flatnonzero(slate.rows == view.offers.row_of.get(request.incumbent or "", -1))
    if len(at) and request.incumbent_cached_tokens:
        saved = slate.input_nusd[at] - slate.cache_read_nusd[at]
        cost = cost.copy()
        cost[at] -= saved * min(request.incumbent_cached_tokens, request.input_tokens)
    return cost


def _switching_nusd(view: MarketView, slate: Slate, request: BidRequest, params: Params) -> Floats:
    """What leaving the incumbent's model costs the session, beside the lost cache."""
    row = view.offers.row_of.get(request.incumbent or "", -1)
    if row < 0:
        return np.zeros(len(slate.rows))
    other = view.offers.model[slate.rows] != view.offers.model[row]
    tax: Floats = other * (params.switching.consistency_tax_usd * NUSD_PER_USD)
    return tax


def _ranked(slate: Slate, cost: Floats, scores: Floats, n: int) -> tuple[Bid, ...]:
    """The best `n` bids; ties go to the lower cost, then to the smaller offer id.

    The selection is by value, so that equal scores at its edge are cut by the same rule on
    every machine, whatever its partition does with them.
    """
    if n <= 0:
        return ()
    if n < len(scores):
        edge = np.partition(scores, n - 1)[n - 1]
        at = np.flatnonzero(scores <= edge)
    else:
        at = np.arange(len(scores))
    found = sorted(zip(scores[at].tolist(), cost[at].tolist(), at.tolist(), strict=True))
    bidders, good = slate.bidders, slate.p_good
    bids = []
    for score, price, i in found[:n]:
        offer, row, on_time = bidders[i]
        bids.append(Bid(offer, row, score, price, good.item(i), on_time))
    return tuple(bids)


def _bid(slate: Slate, cost: Floats, scores: Floats, at: int) -> Bid:
    offer, row, on_time = slate.bidders[at]
    return Bid(offer, row, scores.item(at), cost.item(at), slate.p_good.item(at), on_time)


def _explore(bids: tuple[Bid, ...], params: Params, seed: int) -> tuple[tuple[Bid, ...], float]:
    """With the exploration share, put a safe runner-up first; return the exact propensity.

    Safe is what costs at most the stated loss more than the best bid. All safe bids, the best
    one included, are drawn alike.
    """
    share = params.exploration.share
    loss = params.exploration.max_loss_usd * NUSD_PER_USD
    limit = bids[0].score_nusd + loss
    n_safe = sum(1 for b in bids if b.score_nusd <= limit)
    if share <= 0.0 or n_safe < 2:
        return bids, 1.0
    if uniform(seed, 0) >= share:
        return bids, 1.0 - share + share / n_safe
    at = int(uniform(seed, 1) * n_safe)
    if at == 0:
        return bids, 1.0 - share + share / n_safe
    return (bids[at], *bids[:at], *bids[at + 1 :]), share / n_safe
