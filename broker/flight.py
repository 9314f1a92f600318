"""From a decision and what came of it to the flight record: pure, no sockets.

The record holds the request's shape and never its prompt, everything needed to decide again,
and what was delivered.
"""

from __future__ import annotations

import math

import msgspec

from bidding.decision import Bid, Decision
from bidding.request import BidRequest
from bidding.slate import on_time_target
from feeds.records import BidRecord, DecisionRecord

_sla_encoder = msgspec.json.Encoder()


def decision_record(
    decision: Decision, request: BidRequest, *, decision_id: str, at_us: int, only: bool = False
) -> DecisionRecord:
    """The record as it stands before anything is delivered."""
    sla = request.sla
    return DecisionRecord(
        decision_id=decision_id,
        at_us=at_us,
        task=request.task,
        tenant=request.tenant,
        sla_class=request.class_key,
        sla=_sla_encoder.encode(sla).decode(),
        input_tokens=request.input_tokens,
        max_output_tokens=request.max_output_tokens,
        needs=request.needs,
        candidates=None if request.candidates is None else list(request.candidates),
        features=list(request.features),
        incumbent=request.incumbent,
        incumbent_cached_tokens=request.incumbent_cached_tokens,
        reserve_nusd=None if math.isinf(request.reserve_nusd) else request.reserve_nusd,
        streaming=request.streaming,
        seed=decision.seed,
        policy=decision.policy,
        params_version=decision.params_version,
        view_number=decision.view_number,
        winner=None if decision.winner is None else decision.winner.offer,
        ranked=[bid_record(bid) for bid in decision.ranked],
        n_bids=decision.n_bids,
        no_bids=decision.no_bids,
        clearing_price_nusd=decision.clearing_price_nusd,
        propensity=decision.propensity,
        feasible=decision.feasible,
        quality_price_nusd=decision.quality_price_nusd,
        punctuality_price_nusd=decision.punctuality_price_nusd,
        best_offer=None if decision.best is None else decision.best.offer,
        best_cost_nusd=None if decision.best is None else decision.best.cost_nusd,
        cheapest_offer=None if decision.cheapest is None else decision.cheapest.offer,
        cheapest_cost_nusd=None if decision.cheapest is None else decision.cheapest.cost_nusd,
        target_quality=sla.quality,
        target_on_time=on_time_target(sla),
        only=only,
    )


def bid_record(bid: Bid) -> BidRecord:
    """A bid as the record keeps it."""
    return BidRecord(bid.offer, bid.score_nusd, bid.cost_nusd, bid.p_good, bid.p_on_time)
