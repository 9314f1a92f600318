"""A request decided: within its key's limits, at a seller's price, its money set aside.

What comes out is `Flying`: the order that dispatch fills, and the flight record that is written
once at the end.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Struct

from bidding.auction import decide
from bidding.decision import Decision, NoBid
from bidding.errors import MarketError
from bidding.market import PriceList
from bidding.params import Params
from bidding.request import BidRequest
from bidding.view import MarketView
from bidding.waiting import Forecast
from broker.auth import Caller
from broker.budgets import budget_record
from broker.errors import BudgetSpent
from broker.gateway_state import GatewayState
from broker.order import Order
from broker.response_cache import NO_LOOKUP, Lookup
from broker.sessions import Step, note_step
from broker.tenancy import Hold, cost_bound
from broker.trimming import Trimmed, room_tokens, shortened, trimmed
from broker.wire.neutral import NeutralRequest
from feeds.flight import decision_record, note_budget
from feeds.records import DecisionRecord

_NS_PER_MS: Final = 1_000_000
_PATIENCE: Final = 3.0
_USUAL_TOKENS: Final = 256
_PATIENT_TAIL: Final = 0.95
_LEAST_PATIENCE_MS: Final = 10_000.0


def decision_id() -> str:
    """A fresh id of 128 random bits."""
    return f"dec_{secrets.token_hex(16)}"


def trial_key(step: Step | None, made: str) -> str:
    """By what a request is part of a trial of params or not: its session, so that it stays, else
    its own decision.
    """
    return made if step is None else step.session


class Flying(Struct):
    """One request under way: what was asked and decided, and its order."""

    request: NeutralRequest
    asked: BidRequest
    decision: Decision
    order: Order
    record: DecisionRecord
    decided_ns: int
    hold: Hold
    step: Step | None
    view: MarketView
    params: Params
    lookup: Lookup = NO_LOOKUP

    @property
    def started_ns(self) -> int:
        return self.order.started_ns

    @property
    def trial_key(self) -> str:
        """By what the request is part of a trial of params or not."""
        return trial_key(self.step, self.record.decision_id)


class Decider:
    """Turns requests into orders.

    Parameters
    ----------
    forecast : callable
        What is believed of an offer's next call; None where nothing is.
    """

    def __init__(self, state: GatewayState, forecast: Callable[[str], Forecast | None]) -> None:
        self._state = state
        self._forecast = forecast

    async def admitted(
        self,
        request: NeutralRequest,
        asked: BidRequest,
        caller: Caller,
        started_ns: int,
        session: str | None,
    ) -> Flying:
        """The request decided, within its key's limits, and its money set aside."""
        step = await self._state.sessions.step_of_request(request, caller.key_id, session)
        if step is not None:
            asked = step.ask(asked)
        n_tokens = _most_tokens(asked)
        stated = None if request.sla is None else request.sla.budget
        hold = await self._state.tenancy.admit(caller, n_tokens, stated)
        flying = None
        try:
            flying = self._decide(request, asked, caller, started_ns, hold, step)
            # An ask that another worker has just used up is no longer in the next view.
            while not await self._claimed(flying, n_tokens):
                flying = self._decide(request, asked, caller, started_ns, hold, step)
            await self._set_aside(flying)
            return flying
        except BaseException:
            hold.close(0, 0)
            if flying is not None:
                self._state.spot.settle(flying.order.decision_id, [])
            raise

    async def _claimed(self, flying: Flying, n_tokens: int) -> bool:
        """Whether the winner's spot ask, if that is what made its price, still has room."""
        spot = self._state.spot
        view, decision = flying.view, flying.decision
        if not await spot.claim(flying.order.decision_id, decision.ranked[0], n_tokens):
            return False
        spot.note(decision, flying.asked, view, flying.params)
        return True

    def _decide(
        self,
        request: NeutralRequest,
        asked: BidRequest,
        caller: Caller,
        started_ns: int,
        hold: Hold,
        step: Step | None,
    ) -> Flying:
        state = self._state
        view = state.view()
        made = decision_id()
        before_ns = state.clock.monotonic_ns()
        params, asked = state.trials.assigned(asked, trial_key(step, made))
        decision, asked = self._decision(view, asked, hold, params)
        cut: Trimmed | None = None
        if caller.policy.trim and NoBid.CONTEXT_WINDOW.value in decision.no_bids:
            unserved = decision.winner is None
            cut = trimmed(request, room_tokens(view, asked, params)) if unserved else None
        if cut is not None:
            request = cut.request
            asked = shortened(asked, cut)
            decision, asked = self._decision(view, asked, hold, params)
        decided_ns = state.clock.monotonic_ns()
        state.metrics.decision_seconds.observe((decided_ns - before_ns) * 1e-9)
        record = decision_record(decision, asked, decision_id=made, at_us=state.clock.now_us())
        if step is not None:
            note_step(step, record)
        if cut is not None:
            record.trimmed_messages, record.trimmed_tokens = cut.n_messages, cut.n_tokens
        rejected = asked.sla.on_miss == "reject" and not decision.feasible
        if decision.winner is None or rejected:
            state.trials.compare(record, view, asked, trial_key(step, made))
            state.journal.decision(record, [])
            raise state.no_eligible_offer(decision, asked)
        sla = asked.sla
        n = _expected_tokens(view.task(asked.task).out_log_tokens[decision.winner.row])
        order = Order(
            decision_id=made,
            decision=decision,
            request=request,
            tenant=caller.tenant,
            task=asked.task,
            sla_class=record.sla_class,
            started_ns=started_ns,
            deadline_ns=started_ns + round(state.settings.gateway.default_deadline_s * 1e9),
            input_tokens=asked.input_tokens,
            output_tokens=n,
            ttft_target_ns=_after(started_ns, sla.ttft_ms),
            latency_target_ns=_after(started_ns, sla.latency_ms or self._patience_ms(decision, n)),
            is_promised=sla.latency_ms is not None,
            hedge=_may_hedge(request, asked, hold),
            prices=_prices_of(view, decision),
            most_tokens=_most_tokens(asked),
            history_family=state.sessions.family_before(step),
        )
        record.overhead_us = (decided_ns - started_ns) * 1e-3
        state.metrics.overhead_seconds.observe((decided_ns - started_ns) * 1e-9)
        return Flying(request, asked, decision, order, record, decided_ns, hold, step, view, params)

    def _decision(
        self, view: MarketView, asked: BidRequest, hold: Hold, params: Params
    ) -> tuple[Decision, BidRequest]:
        """The auction, under what its budgets have left as far as that is known, and at what money
        is worth to them.
        """
        seed = self._state.seed()
        money_price = hold.money_price
        if money_price > 0.0:
            asked = msgspec.structs.replace(asked, money_price=money_price)
        reserve_nusd = hold.reserve_nusd
        if reserve_nusd < math.inf:
            within = msgspec.structs.replace(asked, reserve_nusd=reserve_nusd)
            decision = decide(view, within, params, seed)
            if decision.winner is not None:
                return decision, within
        return decide(view, asked, params, seed), asked

    async def _set_aside(self, flying: Flying) -> None:
        """Set the call's money aside; a tight budget narrows the ranking and the answer."""
        order, state = flying.order, self._state
        if not flying.hold.has_budget:
            return
        bound = cost_bound(
            state.market.view, flying.asked, flying.decision.ranked, flying.request.n
        )
        left_us = (order.deadline_ns - state.clock.monotonic_ns()) // 1000
        try:
            reserved = await flying.hold.reserve(bound, state.clock.now_us() + left_us)
        except MarketError as error:
            if isinstance(error, BudgetSpent):
                error.decision_id = flying.record.decision_id
                if error.budget is not None:
                    note_budget(flying.record, budget_record(error.budget, error.left_nusd))
            state.trials.compare(flying.record, flying.view, flying.asked, flying.trial_key)
            state.journal.decision(flying.record, [])
            raise
        if reserved is None:
            return
        most_tokens = bound.n_tokens if reserved.held else None
        left = (reserved.left_nusd, reserved.nusd, most_tokens)
        note_budget(flying.record, budget_record(reserved.tightest, *left))
        if reserved.held:
            order.request = msgspec.structs.replace(order.request, max_output_tokens=bound.n_tokens)
            order.decision = msgspec.structs.replace(order.decision, ranked=bound.kept)

    def _patience_ms(self, decision: Decision, n_tokens: float) -> float | None:
        """How long an answer may take that has no deadline, before another seller is better:
        several times what is usual for the winner. Nothing is promised by it.
        """
        forecast = self._forecast(decision.ranked[0].offer)
        if forecast is None:
            return None
        usual_ms = forecast.finish_ms(_PATIENT_TAIL, 2.0 * n_tokens)
        return max(_LEAST_PATIENCE_MS, _PATIENCE * usual_ms)

    async def afford(self, flying: Flying, more: Order) -> bool:
        """Set the money for another answer aside, where the key has a budget."""
        if not flying.hold.has_budget:
            return True
        state, ranked = self._state, more.decision.ranked
        bound = cost_bound(state.market.view, flying.asked, ranked, flying.request.n)
        left_us = (more.deadline_ns - state.clock.monotonic_ns()) // 1000
        try:
            reserved = await flying.hold.reserve(bound, state.clock.now_us() + left_us)
        except MarketError:
            return False
        if reserved is not None and reserved.held:
            more.request = msgspec.structs.replace(more.request, max_output_tokens=bound.n_tokens)
            more.decision = msgspec.structs.replace(more.decision, ranked=bound.kept)
        return True


def _prices_of(view: MarketView, decision: Decision) -> dict[str, PriceList]:
    """What each seller that may yet be called asked on the view the decision read."""
    lists = view.prices.lists
    bids = decision.ranked if decision.best is None else (*decision.ranked, decision.best)
    return {bid.offer: lists[bid.row] for bid in bids}


def _may_hedge(request: NeutralRequest, asked: BidRequest, hold: Hold) -> bool:
    """Whether a second seller may be asked while the first is silent: the app has stated a
    deadline, nothing happens but an answer (tools may act), and the money set aside for one
    call need not cover two.
    """
    sla = asked.sla
    has_deadline = sla.ttft_ms is not None or sla.latency_ms is not None
    return has_deadline and not request.tools and not hold.has_budget


def _after(started_ns: int, ms: float | None) -> int | None:
    return None if ms is None else started_ns + round(ms * _NS_PER_MS)


def _most_tokens(asked: BidRequest) -> int:
    return asked.input_tokens + (asked.max_output_tokens or _USUAL_TOKENS)


def _expected_tokens(log_tokens: float) -> float:
    return math.exp(min(float(log_tokens), 16.0))
