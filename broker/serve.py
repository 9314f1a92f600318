"""The request's line, top to bottom: decode, ask, decide, dispatch, answer, settle.

A surface's bytes become a neutral request, that becomes what the auction is asked, the decision
becomes attempts, and what was delivered goes back through the same surface. Whatever happens,
the flight record is written once, at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
from typing import Final

import msgspec
from aiohttp import web

from bidding.auction import decide
from bidding.decision import Decision, NoBid
from bidding.errors import MarketError
from bidding.market import PriceList
from bidding.outcome import FailureClass
from bidding.request import BidRequest, Verify
from bidding.units import usd_from_nusd
from bidding.view import MarketView
from broker.asking import bid_request
from broker.auth import Caller
from broker.cached_serving import cached_record, hit_headers, send_hit, settle_hit
from broker.delivery import Delivery
from broker.dispatch import Dispatcher
from broker.errors import CheckFailed, SellersFailed, Shed, answer_for, body_for
from broker.gateway_state import GatewayState
from broker.key_rules import merged_sla
from broker.order import Order
from broker.response_cache import HEADER as CACHE_HEADER
from broker.response_cache import NO_LOOKUP, Cached
from broker.resume import continuation, may_resume
from broker.sessions import Step, headers_of, note_step, session_named
from broker.settle import Settlement, fill, settle
from broker.tenancy import Hold, cost_bound
from broker.tracing import RequestTrace
from broker.trimming import Trimmed, room_tokens, shortened, trimmed
from broker.verify.escalate import Checked, checked_answer, scores_of
from broker.wire.neutral import (
    Answer,
    Event,
    Failed,
    NeutralRequest,
    Started,
    TextDelta,
    Usage,
    collect,
)
from broker.wire.surface import ErrorBody, ReplyMeta, StreamEncoder, Surface
from feeds.flight import decision_record
from feeds.records import DecisionRecord

_WRITE_TIMEOUT_S: Final = 30.0
_NS_PER_MS: Final = 1_000_000
_PATIENCE: Final = 3.0
_USUAL_TOKENS: Final = 256
_PATIENT_TAIL: Final = 0.95
_LEAST_PATIENCE_MS: Final = 10_000.0


def decision_id() -> str:
    """A fresh id of 128 random bits."""
    return f"dec_{secrets.token_hex(16)}"


class _Flying:
    """One request under way: what was asked and decided, and its order."""

    __slots__ = (
        "asked",
        "decided_ns",
        "decision",
        "hold",
        "lookup",
        "order",
        "record",
        "request",
        "started_ns",
        "step",
        "view",
    )

    def __init__(
        self,
        request: NeutralRequest,
        asked: BidRequest,
        decision: Decision,
        order: Order,
        record: DecisionRecord,
        decided_ns: int,
        hold: Hold,
        step: Step | None,
        view: MarketView,
    ) -> None:
        self.view = view
        self.hold = hold
        self.step = step
        self.lookup = NO_LOOKUP
        self.request = request
        self.asked = asked
        self.decision = decision
        self.order = order
        self.record = record
        self.started_ns = order.started_ns
        self.decided_ns = decided_ns


class RequestLine:
    """Serves requests of every surface."""

    def __init__(self, state: GatewayState, dispatcher: Dispatcher) -> None:
        self._state = state
        self._dispatcher = dispatcher
        self._n_open = 0

    async def serve(
        self, http: web.Request, body: bytes, caller: Caller, surface: Surface
    ) -> web.StreamResponse:
        """Answer one request.

        Raises
        ------
        MarketError
            Whatever keeps it from being answered; the gateway turns it into an answer.
        """
        limit = self._state.settings.gateway.max_in_flight
        if self._n_open >= limit:
            raise Shed(f"{limit} requests are under way already", retry_after_s=1.0)
        self._n_open += 1
        tracing = self._state.tracing
        try:
            if tracing is None:
                return await self._serve(http, body, caller, surface, None)
            with tracing.request(http.headers, http.path) as trace:
                response = await self._serve(http, body, caller, surface, trace)
                trace.answered(response.status)
                return response
        finally:
            self._n_open -= 1

    async def _serve(
        self,
        http: web.Request,
        body: bytes,
        caller: Caller,
        surface: Surface,
        trace: RequestTrace | None,
    ) -> web.StreamResponse:
        started_ns = self._state.clock.monotonic_ns()
        request = surface.decode(body)
        asked = self._asked(request, caller)
        verify = None if request.sla is None else request.sla.verify
        if verify is not None:
            await self._state.judge.look_at(verify, request)
        lookup = self._state.cache.look_up(request, caller, http.headers.get(CACHE_HEADER))
        if lookup.word != "off":
            self._state.metrics.cache_lookups.labels(lookup.word).inc()
        if lookup.hit is not None:
            return await self._cached(http, request, asked, caller, surface, lookup.hit)
        features = await self._state.prompts.read(request)
        if features:
            asked = msgspec.structs.replace(asked, features=features)
        flying = await self._admitted(request, asked, caller, started_ns, session_named(http))
        flying.lookup = lookup
        if trace is not None:
            flying.order.trace = trace
            trace.decided(request, flying.record, flying.decided_ns - started_ns)
        vault = self._state.vault
        if vault is not None and vault.keeps(caller.tenant):
            self._state.journal.prompt(vault.seal(flying.record, body))
        if verify is not None:
            return await self._checked(http, flying, surface, verify)
        if request.stream:
            return await self._stream(http, flying, surface)
        return await self._whole(flying, surface)

    def _asked(self, request: NeutralRequest, caller: Caller) -> BidRequest:
        """What the auction is asked, within what the key may ask."""
        request.sla = merged_sla(request.sla, caller.policy.sla)
        view = self._state.market.view
        return bid_request(request, caller.tenant, view.offers, caller.policy)

    async def _cached(
        self,
        http: web.Request,
        request: NeutralRequest,
        asked: BidRequest,
        caller: Caller,
        surface: Surface,
        hit: Cached,
    ) -> web.StreamResponse:
        """An answer bought before: within the key's rate limits, for nothing."""
        state = self._state
        hold = await state.tenancy.admit(caller, 0)
        hold.close(0, 0)
        begun_ns, now_us = state.clock.monotonic_ns(), state.clock.now_us()
        answer, version = hit.answer(), state.market.params.version
        record = cached_record(
            hit, asked, decision_id=decision_id(), at_us=now_us, params_version=version
        )
        took_ms = (state.clock.monotonic_ns() - begun_ns) / _NS_PER_MS
        settle_hit(record, hit, answer, asked.sla, took_ms)
        state.journal.decision(record, [])
        meta = ReplyMeta(
            id=surface.id_prefix + record.decision_id[4:],
            created_s=now_us // 1_000_000,
            model=hit.model,
        )
        headers = hit_headers(record, hit, (now_us - hit.at_us) * 1e-6)
        return await send_hit(http, request, answer, surface, meta, headers)

    def _keep(self, flying: _Flying, delivery: Delivery, answer: Answer | None) -> None:
        """Keep a delivered answer for the key, where its policy says so."""
        record, offer = flying.record, delivery.seat.offer
        if flying.decision.feasible:
            self._state.cache.keep(
                flying.lookup,
                answer,
                decision_id=record.decision_id,
                model=offer.model,
                p_good=next((b.p_good for b in record.ranked if b.offer == offer.id), 0.0),
            )

    async def _admitted(
        self,
        request: NeutralRequest,
        asked: BidRequest,
        caller: Caller,
        started_ns: int,
        session: str | None,
    ) -> _Flying:
        """The request decided, within its key's limits, and its money set aside."""
        step = await self._state.sessions.step_of_request(request, caller.key_id, session)
        if step is not None:
            asked = step.ask(asked)
        n_tokens = asked.input_tokens + (asked.max_output_tokens or _USUAL_TOKENS)
        hold = await self._state.tenancy.admit(caller, n_tokens)
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

    async def _claimed(self, flying: _Flying, n_tokens: int) -> bool:
        """Whether the winner's spot ask, if that is what made its price, still has room."""
        spot, state = self._state.spot, self._state
        view, decision = flying.view, flying.decision
        if not await spot.claim(flying.order.decision_id, decision.ranked[0], n_tokens):
            return False
        spot.note(decision, flying.asked, view, state.market.params)
        return True

    def _decide(
        self,
        request: NeutralRequest,
        asked: BidRequest,
        caller: Caller,
        started_ns: int,
        hold: Hold,
        step: Step | None,
    ) -> _Flying:
        state = self._state
        view = state.view()
        before_ns = state.clock.monotonic_ns()
        decision, asked = self._decision(view, asked, caller)
        cut: Trimmed | None = None
        if caller.policy.trim and NoBid.CONTEXT_WINDOW.value in decision.no_bids:
            cut = self._trimmed(view, asked, request) if decision.winner is None else None
        if cut is not None:
            request = cut.request
            asked = shortened(asked, cut)
            decision, asked = self._decision(view, asked, caller)
        decided_ns = state.clock.monotonic_ns()
        state.metrics.decision_seconds.observe((decided_ns - before_ns) * 1e-9)
        made = decision_id()
        record = decision_record(decision, asked, decision_id=made, at_us=state.clock.now_us())
        if step is not None:
            note_step(step, record)
        if cut is not None:
            record.trimmed_messages, record.trimmed_tokens = cut.n_messages, cut.n_tokens
        rejected = asked.sla.on_miss == "reject" and not decision.feasible
        if decision.winner is None or rejected:
            state.journal.decision(record, [])
            raise state.no_eligible_offer(decision)
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
            hedge=_may_hedge(request, asked, hold),
            prices=_prices_of(view, decision),
            history_family=state.sessions.family_before(step),
        )
        record.overhead_us = (decided_ns - started_ns) * 1e-3
        state.metrics.overhead_seconds.observe((decided_ns - started_ns) * 1e-9)
        return _Flying(request, asked, decision, order, record, decided_ns, hold, step, view)

    def _trimmed(
        self, view: MarketView, asked: BidRequest, request: NeutralRequest
    ) -> Trimmed | None:
        """A conversation that fits nobody, shortened to what the roomiest offer takes."""
        return trimmed(request, room_tokens(view, asked, self._state.market.params))

    def _decision(
        self, view: MarketView, asked: BidRequest, caller: Caller
    ) -> tuple[Decision, BidRequest]:
        """The auction, under what the key has left as far as that is known, and at what money is
        worth to it.
        """
        state = self._state
        params, seed = state.market.params, state.seed()
        money_price = state.tenancy.money_price(caller)
        if money_price > 0.0:
            asked = msgspec.structs.replace(asked, money_price=money_price)
        reserve_nusd = state.tenancy.reserve_nusd(caller)
        if reserve_nusd < math.inf:
            within = msgspec.structs.replace(asked, reserve_nusd=reserve_nusd)
            decision = decide(view, within, params, seed)
            if decision.winner is not None:
                return decision, within
        return decide(view, asked, params, seed), asked

    async def _set_aside(self, flying: _Flying) -> None:
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
        except MarketError:
            state.journal.decision(flying.record, [])
            raise
        if reserved is not None and reserved.held:
            order.request = msgspec.structs.replace(order.request, max_output_tokens=bound.n_tokens)
            order.decision = msgspec.structs.replace(order.decision, ranked=bound.kept)

    def _patience_ms(self, decision: Decision, n_tokens: float) -> float | None:
        """How long an answer may take that has no deadline, before another seller is better:
        several times what is usual for the winner. Nothing is promised by it.
        """
        forecast = self._dispatcher.forecast(decision.ranked[0].offer)
        if forecast is None:
            return None
        usual_ms = forecast.finish_ms(_PATIENT_TAIL, 2.0 * n_tokens)
        return max(_LEAST_PATIENCE_MS, _PATIENCE * usual_ms)

    async def _whole(self, flying: _Flying, surface: Surface) -> web.Response:
        delivery: Delivery | None = None
        try:
            delivery = await self._dispatcher.run(flying.order)
        finally:
            settled = self._settle(flying, None if delivery is None else delivery.first_ns)
        answer = delivery.answer
        if answer is None:
            raise SellersFailed([])
        self._keep(flying, delivery, answer)
        meta = self._meta(flying, delivery, surface)
        return web.Response(
            body=surface.reply(flying.request, answer, meta),
            content_type="application/json",
            headers=self._headers(flying, delivery, settled),
        )

    async def _checked(
        self, http: web.Request, flying: _Flying, surface: Surface, verify: Verify
    ) -> web.StreamResponse:
        """Answer with what has passed its check; a stream is held back until then."""
        asked, order, record = flying.request, flying.order, flying.record
        order.request = msgspec.structs.replace(order.request, stream=False)
        checked: Checked | None = None
        try:
            checked = await checked_answer(
                self._dispatcher,
                self._state.judge,
                order,
                flying.asked.sla,
                verify,
                record.verdicts,
                afford=lambda more: self._afford(flying, more),
                clock=self._state.clock,
            )
        finally:
            settled = self._settle(flying, None)
            self._score(flying, verify)
        if settled.delivered_offer is None:
            raise CheckFailed(
                [(v.offer, v.check) for v in record.verdicts],
                decision_id=record.decision_id,
                spent_usd=usd_from_nusd(settled.cost_nusd),
            )
        delivery, answer = checked.delivery, checked.answer
        if checked.word == "passed":
            self._keep(flying, delivery, answer)
        meta = self._meta(flying, delivery, surface)
        headers = self._headers(flying, delivery, settled) | {"x-broker-verify": checked.header}
        return await send_hit(http, asked, answer, surface, meta, headers)

    async def _afford(self, flying: _Flying, more: Order) -> bool:
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

    def _score(self, flying: _Flying, verify: Verify) -> None:
        """Write the verdicts down as quality scores."""
        record, journal = flying.record, self._state.journal
        flight = journal.recent.get(record.decision_id, record.tenant)
        if flight is not None:
            for score in scores_of(record, verify, self._state.clock.now_us()):
                journal.feedback(score, flight)

    async def _stream(
        self, http: web.Request, flying: _Flying, surface: Surface
    ) -> web.StreamResponse:
        first_ns: int | None = None
        try:
            async with await self._dispatcher.open(flying.order) as delivery:
                first_ns = delivery.first_ns
                meta = self._meta(flying, delivery, surface)
                encoder = surface.stream(flying.request, meta)
                response = web.StreamResponse(headers=self._headers(flying, delivery, None))
                response.content_type = "text/event-stream"
                response.headers["Cache-Control"] = "no-cache"
                await response.prepare(http)
                sent = await self._relay(response, encoder, delivery, flying.order)
                await response.write_eof()
                if sent is not None and flying.lookup.key:
                    answer = collect([*sent, delivery.usage])
                    self._keep(flying, delivery, answer)
                return response
        finally:
            self._settle(flying, first_ns)

    async def _relay(
        self, response: web.StreamResponse, encoder: StreamEncoder, delivery: Delivery, order: Order
    ) -> list[Event] | None:
        """Pass events on as they come. A break becomes the surface's error event, or, where the
        app opted in, the place from which the runner-up goes on. What one seller sent to its
        end is returned.
        """
        sent: list[Event] = []
        first = delivery
        opening = encoder.start()
        if opening:
            await _write(response, opening)
        async with contextlib.AsyncExitStack() as stack:
            while True:
                await _pass_on(response, encoder, delivery, sent)
                failed = delivery.failed
                if failed is None:
                    await _write(response, encoder.end())
                    return sent if first is delivery else None
                broken = delivery.seat.offer.id
                rest = await self._resumed(order, broken, failed.failure, sent)
                if rest is None:
                    error = SellersFailed([(broken, str(failed.failure))])
                    await _write(response, encoder.error(error_body(error)))
                    return None
                delivery = await stack.enter_async_context(rest)
                mark = f": resumed after {broken} by {delivery.seat.offer.id}\n\n"
                await _write(response, mark.encode())

    async def _resumed(
        self, order: Order, broken: str, failure: FailureClass, sent: list[Event]
    ) -> Delivery | None:
        """The runner-up's continuation of what was sent; None where there is none."""
        if not may_resume(order.request, sent):
            return None
        text = "".join(event.text for event in sent if isinstance(event, TextDelta))
        rest = continuation(order, text, broken, failure)
        if rest is None:
            return None
        try:
            return await self._dispatcher.open(rest)
        except MarketError:
            return None

    def _settle(self, flying: _Flying, first_ns: int | None) -> Settlement:
        order = flying.order
        settled = settle(
            order,
            ended_ns=self._state.clock.monotonic_ns(),
            first_ns=first_ns,
            sla=flying.asked.sla,
        )
        record = fill(flying.record, settled)
        record.at_us = self._state.clock.now_us()
        if flying.step is not None:
            self._state.sessions.served(flying.step, record, order.attempts)
        self._state.journal.decision(record, order.attempts)
        if order.trace is not None:
            order.trace.settled(record)
        flying.hold.close(settled.cost_nusd, settled.input_tokens + settled.output_tokens)
        self._state.spot.settle(order.decision_id, order.attempts)
        return settled

    def _meta(self, flying: _Flying, delivery: Delivery, surface: Surface) -> ReplyMeta:
        return ReplyMeta(
            id=surface.id_prefix + flying.order.decision_id[4:],
            created_s=self._state.clock.now_us() // 1_000_000,
            model=delivery.seat.offer.model,
        )

    def _headers(
        self, flying: _Flying, delivery: Delivery, settled: Settlement | None
    ) -> dict[str, str]:
        """What is known when the headers go out; a stream's cost is the one expected."""
        offer = delivery.seat.offer.id
        clock = self._state.clock
        if settled is None:
            bid = next((b for b in flying.decision.ranked if b.offer == offer), None)
            cost_nusd = 0.0 if bid is None else bid.cost_nusd
            target_ns = flying.order.ttft_target_ns
            late = target_ns is not None and (delivery.first_ns or 0) > target_ns
            word = "missed" if late else "met"
            n_attempts = len(flying.order.attempts) + 1
        else:
            cost_nusd, word, n_attempts = settled.cost_nusd, settled.sla_word, settled.n_attempts
        decided_ms = (flying.decided_ns - flying.started_ns) / _NS_PER_MS
        total_ms = (clock.monotonic_ns() - flying.started_ns) / _NS_PER_MS
        step, record = flying.step, flying.record
        of_session = {} if step is None else headers_of(step, record, offer, flying.order.attempts)
        if record.trimmed_messages:
            of_session["x-broker-trimmed"] = (
                f"messages={record.trimmed_messages}; tokens={record.trimmed_tokens}"
            )
        if flying.lookup.word != "off":
            of_session[CACHE_HEADER] = flying.lookup.word
        return {
            **of_session,
            "x-broker-decision": flying.order.decision_id,
            "x-broker-offer": offer,
            "x-broker-cost-usd": f"{usd_from_nusd(cost_nusd):.9f}",
            "x-broker-sla": word if flying.decision.feasible else "best_effort",
            "x-broker-attempts": str(n_attempts),
            "server-timing": f"decide;dur={decided_ms:.3f}, total;dur={total_ms:.1f}",
        }


def error_body(error: BaseException) -> ErrorBody:
    """An error as a surface needs it for its own shape."""
    told = body_for(error)["error"]
    return ErrorBody(
        status=answer_for(error).status,
        kind=told["type"],
        message=f"{told['message']}; {told['remedy']}",
        code=told["code"],
        param=told["param"],
    )


def _is_output(event: Event) -> bool:
    """Whether an event, once sent, is part of the answer the app has."""
    return not isinstance(event, Started | Usage | Failed)


async def _pass_on(
    response: web.StreamResponse, encoder: StreamEncoder, delivery: Delivery, sent: list[Event]
) -> None:
    """Send on what a seller sends, noting visible output in `sent`."""
    async for events in delivery:
        sent += [e for e in events if _is_output(e)]
        piece = b"".join(encoder.event(event) for event in events)
        if piece:
            await _write(response, piece)


async def _write(response: web.StreamResponse, piece: bytes) -> None:
    """Write, but do not wait for ever on a client that does not read."""
    async with asyncio.timeout(_WRITE_TIMEOUT_S):
        await response.write(piece)


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


def _expected_tokens(log_tokens: float) -> float:
    return math.exp(min(float(log_tokens), 16.0))
