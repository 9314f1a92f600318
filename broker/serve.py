"""The request's line, top to bottom: decode, ask, decide, dispatch, answer, settle.

A surface's bytes become a neutral request, that becomes what the auction is asked, the decision
becomes attempts, and what was delivered goes back through the same surface. Whatever happens,
the flight record is written once, at the end.
"""

from __future__ import annotations

from typing import Final

import msgspec
from aiohttp import web

from bidding.request import BidRequest, Verify
from bidding.units import usd_from_nusd
from broker.asking import bid_request, with_features
from broker.auth import Caller
from broker.cached_serving import cached_record, hit_headers, send_hit, settle_hit
from broker.deciding import Decider, Flying, decision_id
from broker.delivery import Delivery
from broker.dispatch import Dispatcher
from broker.errors import CheckFailed, SellersFailed, Shed
from broker.gateway_state import GatewayState
from broker.key_rules import merged_sla
from broker.replying import relay, reply_headers, reply_meta
from broker.response_cache import HEADER as CACHE_HEADER
from broker.response_cache import Cached
from broker.sessions import session_named
from broker.settle import Settlement, fill, settle
from broker.tracing import RequestTrace
from broker.verify.escalate import Checked, checked_answer, scores_of
from broker.wire.neutral import Answer, NeutralRequest, collect
from broker.wire.surface import ReplyMeta, Surface

_NS_PER_MS: Final = 1_000_000


class RequestLine:
    """Serves requests of every surface."""

    def __init__(self, state: GatewayState, dispatcher: Dispatcher) -> None:
        self._state = state
        self._dispatcher = dispatcher
        self._decider = Decider(state, dispatcher.forecast)
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
            market = self._state.market
            least_n = market.params.choice.found_task_prompts
            asked = with_features(asked, features, market.view.found, least_n)
        flying = await self._decider.admitted(
            request, asked, caller, started_ns, session_named(http)
        )
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

    def _keep(self, flying: Flying, delivery: Delivery, answer: Answer | None) -> None:
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

    async def _whole(self, flying: Flying, surface: Surface) -> web.Response:
        delivery: Delivery | None = None
        try:
            delivery = await self._dispatcher.run(flying.order)
        finally:
            settled = self._settle(flying, None if delivery is None else delivery.first_ns)
        answer = delivery.answer
        if answer is None:
            raise SellersFailed([])
        self._keep(flying, delivery, answer)
        meta = reply_meta(flying, delivery, surface, self._state.clock.now_us())
        return web.Response(
            body=surface.reply(flying.request, answer, meta),
            content_type="application/json",
            headers=reply_headers(flying, delivery, settled, self._state.clock.monotonic_ns()),
        )

    async def _checked(
        self, http: web.Request, flying: Flying, surface: Surface, verify: Verify
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
                afford=lambda more: self._decider.afford(flying, more),
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
        meta = reply_meta(flying, delivery, surface, self._state.clock.now_us())
        headers = reply_headers(flying, delivery, settled, self._state.clock.monotonic_ns()) | {
            "x-broker-verify": checked.header
        }
        return await send_hit(http, asked, answer, surface, meta, headers)

    def _score(self, flying: Flying, verify: Verify) -> None:
        """Write the verdicts down as quality scores."""
        record, journal = flying.record, self._state.journal
        flight = journal.recent.get(record.decision_id, record.tenant)
        if flight is not None:
            for score in scores_of(record, verify, self._state.clock.now_us()):
                journal.feedback(score, flight)

    async def _stream(
        self, http: web.Request, flying: Flying, surface: Surface
    ) -> web.StreamResponse:
        first_ns: int | None = None
        try:
            async with await self._dispatcher.open(flying.order) as delivery:
                first_ns = delivery.first_ns
                meta = reply_meta(flying, delivery, surface, self._state.clock.now_us())
                encoder = surface.stream(flying.request, meta)
                response = web.StreamResponse(
                    headers=reply_headers(flying, delivery, None, self._state.clock.monotonic_ns())
                )
                response.content_type = "text/event-stream"
                response.headers["Cache-Control"] = "no-cache"
                await response.prepare(http)
                sent = await relay(response, encoder, delivery, flying.order, self._dispatcher)
                await response.write_eof()
                if sent is not None and flying.lookup.key:
                    answer = collect([*sent, delivery.usage])
                    self._keep(flying, delivery, answer)
                return response
        finally:
            self._settle(flying, first_ns)

    def _settle(self, flying: Flying, first_ns: int | None) -> Settlement:
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
        self._state.trials.compare(record, flying.view, flying.asked, flying.trial_key)
        self._state.journal.decision(record, order.attempts)
        if order.trace is not None:
            order.trace.settled(record)
        flying.hold.close(settled.cost_nusd, settled.input_tokens + settled.output_tokens)
        self._state.spot.settle(order.decision_id, order.attempts)
        return settled
