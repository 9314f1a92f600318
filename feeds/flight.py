"""From a decision to the flight record, and from the record back to the request: pure.

The record holds the request's shape and never its prompt, everything needed to decide again,
and what was delivered. `request_of` undoes `decision_record` exactly: a test fills every field
of a `BidRequest` and compares, so a field the auction reads cannot be forgotten here.
"""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec
from msgspec import Struct

from bidding.decision import Bid, Decision, Switch
from bidding.kind import on_time_target
from bidding.request import BidRequest, decode_sla
from feeds.records import BidRecord, BudgetRecord, DecisionRecord

_encoder = msgspec.json.Encoder()
_switches = msgspec.json.Decoder(Switch)
_budgets = msgspec.json.Decoder(BudgetRecord)

DECIDED: Final = (
    *("winner", "ranked", "n_bids", "no_bids", "clearing_price_nusd", "propensity", "feasible"),
    *("quality_price_nusd", "punctuality_price_nusd", "best_offer", "best_cost_nusd"),
    *("cheapest_offer", "cheapest_cost_nusd", "target_quality", "target_on_time"),
    *("policy", "seed", "params_version", "view_number", "sla_class", "switch"),
)
"""Fields of the record that the decision alone determines."""


class Difference(Struct, frozen=True):
    """A field in which a decision made again is not the one that was recorded."""

    field: str
    recorded: Any
    again: Any


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
        sla=_encoder.encode(sla).decode(),
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
        arm=request.arm,
        incumbent_blocks=request.incumbent_blocks,
        money_price=request.money_price,
        switch="" if decision.switch is None else _encoder.encode(decision.switch).decode(),
    )


def note_shadow(record: DecisionRecord, version: int, winner: Bid | None) -> None:
    """Write down what params of `version` would have bought in the decision's place."""
    record.shadow_version = version
    if winner is not None:
        record.shadow_winner = winner.offer
        record.shadow_cost_nusd = winner.cost_nusd
        record.shadow_p_good = winner.p_good
        record.shadow_p_on_time = winner.p_on_time


def switch_in(record: DecisionRecord) -> Switch | None:
    """What the auction made of leaving the session's incumbent; None where there was none."""
    return _switches.decode(record.switch) if record.switch else None


def note_budget(record: DecisionRecord, budget: BudgetRecord) -> None:
    """Write down what the request is paid from."""
    record.budget = _encoder.encode(budget).decode()


def budget_in(record: DecisionRecord) -> BudgetRecord | None:
    """The tightest budget of a request; None where it had none."""
    return _budgets.decode(record.budget) if record.budget else None


def bid_record(bid: Bid) -> BidRecord:
    """A bid as the record keeps it."""
    return BidRecord(bid.offer, bid.score_nusd, bid.cost_nusd, bid.p_good, bid.p_on_time)


def request_of(record: DecisionRecord) -> BidRequest:
    """The request as the auction saw it."""
    return BidRequest(
        tenant=record.tenant,
        task=record.task,
        sla=decode_sla(record.sla.encode()),
        input_tokens=record.input_tokens,
        max_output_tokens=record.max_output_tokens,
        needs=record.needs,
        candidates=None if record.candidates is None else tuple(record.candidates),
        features=tuple(record.features),
        incumbent=record.incumbent,
        incumbent_cached_tokens=record.incumbent_cached_tokens,
        reserve_nusd=math.inf if record.reserve_nusd is None else record.reserve_nusd,
        streaming=record.streaming,
        arm=record.arm,
        incumbent_blocks=record.incumbent_blocks,
        money_price=record.money_price,
    )


def differences(recorded: DecisionRecord, again: DecisionRecord) -> list[Difference]:
    """Fields of the decided part that are not the same, floats to the last bit."""
    found = []
    for name in DECIDED:
        was, now = getattr(recorded, name), getattr(again, name)
        if not _same(was, now):
            found.append(Difference(name, was, now))
    return found


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (math.isnan(a) and math.isnan(b))
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, Struct) and type(a) is type(b):
        return _same(msgspec.structs.astuple(a), msgspec.structs.astuple(b))
    return bool(a == b)
