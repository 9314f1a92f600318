"""The auction: slate, score, rank, explore, clear. A pure function, and the hot path.

What is left to do per request is little: the prompt's share of each cost, one policy's scores,
the best few of them. Everything else is on the slate already. With a kernel (`bidding.kernel`)
the broker's own policy is scored and ranked in one compiled pass; without it in a dozen array
operations. Both give the same decision bit for bit.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from bidding.columns import Floats
from bidding.decision import Bid, Decision, NoBid
from bidding.exploration import explore
from bidding.kernel import N_OUT, Kernel
from bidding.params import Params
from bidding.policies.base import Policy
from bidding.policies.priced import Priced
from bidding.prompted import for_prompt
from bidding.request import BidRequest
from bidding.slate import Slate, slate_for
from bidding.switching import Session, session_of, switch_of
from bidding.units import NUSD_PER_USD
from bidding.view import MarketView

BROKER: Final[Policy] = Priced()
_NOTHING: Final = np.zeros(0)

Ranking = tuple[Floats, Floats, list[list[float]], int]
"""Costs, scores, the best bids' rows (see `kernel.N_OUT`) with the best and the cheapest offer's
behind them, and how many bids are above the ceiling."""


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
    Deterministic in its arguments. About ten array operations on the eligible offers, or one
    compiled pass, once the view has a slate for this kind of request.
    """
    slate = slate_for(view, request, params)
    if request.features:
        slate = for_prompt(slate, request.features, request.sla, view.kernel)
    session = None
    if request.incumbent is not None:
        session = session_of(view, slate, request, params)
    ceiling = _ceiling_nusd(request)
    n_ranked = min(params.choice.n_ranked, len(slate.row_list))
    if not n_ranked:
        return _nobody(view, slate, params, seed, policy, session)
    if view.kernel is not None and type(policy) is Priced:
        ranking = _scanned(view.kernel, slate, request, session, ceiling, n_ranked)
    else:
        ranking = _ranked(policy, slate, request, params, seed, session, ceiling, n_ranked)
    cost, scores, told, n_above = ranking
    n_bids = len(slate.row_list) - n_above
    told_bids = told[: min(n_ranked, n_bids)]
    bids = [_bid(slate, one) for one in told_bids]
    propensity: float | None = None if policy.draws else 1.0
    if bids and policy.explores and not request.sla.strict and session is None:
        places = [int(one[0]) for one in told_bids]
        bids, propensity = explore(
            slate, request.sla, params.exploration, seed, bids, places, cost, scores
        )
    clearing: float | None = None
    if len(bids) > 1:
        second = min([b.score_nusd for b in bids[1:]])
        clearing = bids[0].cost_nusd + second - bids[0].score_nusd
    no_bids = slate.no_bids
    if n_above:
        no_bids = {**no_bids, NoBid.ABOVE_RESERVE.value: n_above}
    return Decision(
        view_number=view.number,
        params_version=params.version,
        policy=policy.name,
        seed=seed,
        ranked=tuple(bids),
        n_bids=n_bids,
        no_bids=no_bids,
        clearing_price_nusd=clearing,
        propensity=propensity if bids else None,
        feasible=slate.feasible and bool(bids),
        quality_price_nusd=slate.quality_price_nusd,
        punctuality_price_nusd=slate.punctuality_price_nusd,
        best=_bid(slate, told[-2]) if bids else None,
        cheapest=_bid(slate, told[-1]) if bids else None,
        switch=None if session is None else switch_of(slate, session, bids, cost, scores),
    )


def _ceiling_nusd(request: BidRequest) -> float:
    """Most the request may cost; a reserve that is not a number lets nobody bid."""
    cap = request.sla.max_cost_usd
    return request.reserve_nusd if cap is None else min(request.reserve_nusd, cap * NUSD_PER_USD)


def _scanned(
    kernel: Kernel,
    slate: Slate,
    request: BidRequest,
    session: Session | None,
    ceiling: float,
    n_ranked: int,
) -> Ranking:
    """The broker's own policy, scored and ranked by the kernel."""
    n = len(slate.row_list)
    cost, scores, out = np.empty(n), np.empty(n), np.empty((n_ranked + 2, N_OUT))
    n_above = kernel.scan(
        slate.fixed_nusd,
        slate.input_nusd,
        slate.worth_nusd,
        slate.p_good,
        slate.p_on_time,
        slate.shadow_nusd,
        slate.shadow_token_nusd,
        _NOTHING if session is None else session.extra_nusd,
        float(max(request.input_tokens, 0)),
        request.worth_scale,
        ceiling,
        -1 if session is None else session.place,
        0.0 if session is None else session.saved_nusd,
        n_ranked,
        cost,
        scores,
        out,
    )
    return cost, scores, out.tolist(), n_above


def _ranked(
    policy: Policy,
    slate: Slate,
    request: BidRequest,
    params: Params,
    seed: int,
    session: Session | None,
    ceiling: float,
    n_ranked: int,
) -> Ranking:
    """Any policy, scored and ranked by array operations."""
    tokens = float(max(request.input_tokens, 0))
    cost = slate.fixed_nusd + slate.input_nusd * tokens
    if session is not None and session.place >= 0:
        cost[session.place] -= session.saved_nusd
    scores = policy.score(slate, request, cost, params, seed)
    if len(slate.shadow_nusd):
        scores = scores + (slate.shadow_nusd + slate.shadow_token_nusd * tokens)
    if session is not None and len(session.extra_nusd):
        scores = scores + session.extra_nusd
    n_above = 0
    if ceiling != math.inf:
        above = ~(cost <= ceiling)
        n_above = int(np.count_nonzero(above))
        if n_above:
            scores = np.where(above, np.inf, scores)
    best = slate.best_places
    places = _first(scores, cost, n_ranked)
    places.append(int(best[0] if len(best) == 1 else best[cost[best].argmin()]))
    places.append(int(cost.argmin()))
    good, on_time = slate.p_good, slate.p_on_time
    told = [[i, scores.item(i), cost.item(i), good.item(i), on_time.item(i)] for i in places]
    return cost, scores, told, n_above


def _first(scores: Floats, cost: Floats, n: int) -> list[int]:
    """Places of the best `n`; ties go to the lower cost, then to the smaller offer id.

    The selection is by value, so that equal scores at its edge are cut by the same rule on
    every machine, whatever its partition does with them.
    """
    if n < len(scores):
        edge = np.partition(scores, n - 1)[n - 1]
        at = (scores <= edge).nonzero()[0]
        found = sorted(zip(scores[at].tolist(), cost[at].tolist(), at.tolist(), strict=True))
        return [i for _, _, i in found[:n]]
    found = sorted(zip(scores.tolist(), cost.tolist(), range(len(scores)), strict=True))
    return [i for _, _, i in found]


def _bid(slate: Slate, told: list[float]) -> Bid:
    place, score, cost, good, on_time = told
    row = slate.row_list[int(place)]
    return Bid(slate.offer_ids[row], row, score, cost, good, on_time)


def _nobody(
    view: MarketView,
    slate: Slate,
    params: Params,
    seed: int,
    policy: Policy,
    session: Session | None,
) -> Decision:
    """The decision where every offer was turned away."""
    return Decision(
        view_number=view.number,
        params_version=params.version,
        policy=policy.name,
        seed=seed,
        ranked=(),
        n_bids=0,
        no_bids=slate.no_bids,
        clearing_price_nusd=None,
        propensity=None,
        feasible=False,
        quality_price_nusd=slate.quality_price_nusd,
        punctuality_price_nusd=slate.punctuality_price_nusd,
        best=None,
        cheapest=None,
        switch=None if session is None else switch_of(slate, session, [], _NOTHING, _NOTHING),
    )
