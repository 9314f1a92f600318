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

from bidding.bid_columns import N_OUT, N_SCARCE, SHADOW, SHADOW_TOKEN
from bidding.columns import Floats
from bidding.decision import Bid, Decision, NoBid
from bidding.exploration import Told, explore, tell
from bidding.kernel import Kernel
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
_64_BITS: Final = (1 << 64) - 1

Ranking = tuple[Floats, Floats, list[Told], float, int]
"""Costs, scores, what is told of the best bids (the winner first) with the best and the cheapest
offer behind them, the winner's propensity, and how many bids are above the ceiling."""


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
    n = len(slate.row_list)
    n_ranked = min(params.choice.n_ranked, n)
    if not n_ranked:
        return _nobody(view, slate, params, seed, policy, session)
    exploring = policy.explores and session is None and not request.sla.strict
    held = (slate, request, seed, session, exploring, ceiling_nusd(request), n_ranked)
    if view.kernel is not None and type(policy) is Priced:
        cost, scores, told, propensity, n_above = _compiled(view.kernel, *held)
    else:
        cost, scores, told, propensity, n_above = by_arrays(policy, params, *held)
    n_bids = n - n_above
    rows, ids = slate.row_list, slate.offer_ids
    bids = [
        Bid(ids[row := rows[int(place)]], row, score, cost_nusd, good, on_time)
        for place, score, cost_nusd, good, on_time in told
    ]
    cheapest, best = bids.pop(), bids.pop()
    first = bids[0] if bids else None
    clearing: float | None = None
    if first is not None and len(bids) > 1:
        # Whoever is second scored best of the others, even where another was drawn to win.
        clearing = first.cost_nusd + bids[1].score_nusd - first.score_nusd
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
        propensity=None if policy.draws or first is None else propensity,
        feasible=slate.feasible and first is not None,
        quality_price_nusd=slate.quality_price_nusd,
        punctuality_price_nusd=slate.punctuality_price_nusd,
        best=best if first is not None else None,
        cheapest=cheapest if first is not None else None,
        switch=None if session is None else switch_of(slate, session, bids, cost, scores),
    )


def ceiling_nusd(request: BidRequest) -> float:
    """Most the request may cost; a reserve that is not a number lets nobody bid."""
    cap = request.sla.max_cost_usd
    return request.reserve_nusd if cap is None else min(request.reserve_nusd, cap * NUSD_PER_USD)


def _compiled(
    kernel: Kernel,
    slate: Slate,
    request: BidRequest,
    seed: int,
    session: Session | None,
    exploring: bool,
    ceiling: float,
    n_ranked: int,
) -> Ranking:
    """The broker's own policy, scored, ranked and explored by the kernel."""
    work, out = np.empty((2, len(slate.row_list))), np.empty((n_ranked + 3, N_OUT))
    n_above = kernel.hold(
        slate.columns,
        slate.fresh,
        slate.rules,
        _NOTHING if session is None else session.extra_nusd,
        float(max(request.input_tokens, 0)),
        request.worth_scale,
        ceiling,
        -1 if session is None else session.place,
        0.0 if session is None else session.saved_nusd,
        n_ranked,
        1 if exploring else 0,
        seed & _64_BITS,
        work,
        out,
    )
    told = out.tolist()
    propensity = told.pop()[0]
    n_bids = work.shape[1] - n_above
    if n_bids < n_ranked:
        del told[n_bids:n_ranked]
    return work[0], work[1], told, propensity, n_above


def by_arrays(
    policy: Policy,
    params: Params,
    slate: Slate,
    request: BidRequest,
    seed: int,
    session: Session | None,
    exploring: bool,
    ceiling: float,
    n_ranked: int,
) -> Ranking:
    """Any policy, scored and ranked by array operations."""
    tokens = float(max(request.input_tokens, 0))
    cost = slate.input_nusd * tokens
    cost += slate.fixed_nusd
    if session is not None and session.place >= 0:
        cost[session.place] -= session.saved_nusd
    scores = policy.score(slate, request, cost, params, seed)
    if len(slate.columns) == N_SCARCE:
        scores = scores + (slate.columns[SHADOW] + slate.columns[SHADOW_TOKEN] * tokens)
    if session is not None and len(session.extra_nusd):
        scores = scores + session.extra_nusd
    n_above = 0
    if ceiling != math.inf:
        above = ~(cost <= ceiling)
        n_above = int(np.count_nonzero(above))
        if n_above:
            scores = np.where(above, np.inf, scores)
    good, on_time = slate.p_good.item, slate.p_on_time.item
    ranked = _first(scores, cost, n_ranked)
    told: list[Told] = [[i, s, c, good(i), on_time(i)] for s, c, i in ranked]
    propensity = 1.0
    n_bids = len(cost) - n_above
    if n_bids < n_ranked:
        del told[n_bids:]
    if exploring and n_bids:
        told, propensity = explore(slate, seed, told, cost, scores)
    best = slate.best_places
    dearest_good = best.item() if len(best) == 1 else best.item(cost[best].argmin())
    told.append(tell(slate, dearest_good, cost, scores))
    told.append(tell(slate, int(cost.argmin()), cost, scores))
    return cost, scores, told, propensity, n_above


def _first(scores: Floats, cost: Floats, n: int) -> list[tuple[float, float, int]]:
    """Score, cost and place of the best `n`; ties go to the lower cost, then the smaller offer id.

    What is kept is decided by values alone: where the last one kept has equals beyond it, all of
    them are looked at.
    """
    if n < len(scores):
        at = scores.argpartition(n)[: n + 1]
        found = sorted(zip(scores[at].tolist(), cost[at].tolist(), at.tolist(), strict=True))
        if found[n - 1][0] < found[n][0]:
            del found[n:]
            return found
        at = (scores <= found[n][0]).nonzero()[0]
        found = sorted(zip(scores[at].tolist(), cost[at].tolist(), at.tolist(), strict=True))
        return found[:n]
    return sorted(zip(scores.tolist(), cost.tolist(), range(len(scores)), strict=True))


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
