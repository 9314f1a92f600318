"""One provider's HTTP: authenticate, decode, misbehave as told, answer at its own pace.

A plain `aiohttp.web.Server` handler (no router), a socket per provider. Latencies are real
sleeps. The buyer hanging up cancels the handler, which books the call as aborted there and
then. `wires` says which format an address speaks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from bidding.market import Capability, Model, Offer, Provider
from broker.paper import embedders, openai_wire
from broker.paper.ask import Ask, Choice, Reply
from broker.paper.behaviour import Behaviour, Timing
from broker.paper.compose import compose, input_tokens, refuse_impossible
from broker.paper.conditional import unless_known
from broker.paper.draws import uniform
from broker.paper.errors import BadAsk
from broker.paper.faults import MODIFIERS, PORT_FAULTS, Fault, FaultBoard, FaultSpec
from broker.paper.ledger import BUYER_ID_HEADERS, Call, Ledger
from broker.paper.port import reset
from broker.paper.prices import live_prices, price_page
from broker.paper.prompt_cache import PromptCache
from broker.paper.quota import Quota, moment
from broker.paper.sending import send
from broker.paper.spoil import Shown, spoil_body, spoil_stream
from broker.paper.status import StatusPage
from broker.paper.wires import WIRES, Route, authenticate, route_of

QUOTA_WINDOW_S = 60.0
STATED_LIMIT_RPM = 1_000_000
_OVERLOADED = "The server is overloaded or not ready yet."
_SAYS = {500: "The server had an error while processing your request."}


class Seller:
    """A provider's state and its request handler.

    Parameters
    ----------
    capacity : calls at once at which it is twice as slow.
    time_scale : latencies are multiplied by this.
    most_chunks : a stream's content comes in at most this many chunks.
    clock : wall clock, seconds since the epoch.
    """

    def __init__(
        self,
        provider: Provider,
        offers: list[Offer],
        models: dict[str, Model],
        behaviour: Behaviour,
        *,
        api_key: str,
        capacity: int,
        time_scale: float,
        most_chunks: int,
        clock: Callable[[], float],
    ) -> None:
        self.provider = provider
        self.offers = offers
        self.board = FaultBoard()
        self.ledger = Ledger()
        self.status = StatusPage(provider.id, provider.name, sorted({o.model for o in offers}))
        self.prices_updated_s = clock()
        self._by_name = {name: o for o in offers for name in (o.id, o.wire_model)}
        self._models = models
        self._behaviour = behaviour
        embeds = {m for m, model in models.items() if Capability.EMBEDDINGS in model.mask}
        self._embedders = frozenset(o.wire_model for o in offers if o.model in embeds)
        self._api_key = api_key
        self._capacity = capacity
        self._time_scale = time_scale
        self._most_chunks = most_chunks
        self._clock = clock
        self._cache = PromptCache()
        self._nth: dict[str, int] = {}
        self._window_began_s = 0.0
        self._n_in_window = 0
        self._quota = Quota()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one HTTP request."""
        path = request.path
        if request.method == "POST":
            route = route_of(self.provider, request.raw_path, self._embedders)
            if route is not None:
                return await self._call(request, route)
        if request.method == "GET" and path == "/prices":
            page = price_page(self.provider.id, self.offers, self.board, self.prices_updated_s)
            return unless_known(request, msgspec.json.encode(page), "application/json")
        if request.method == "GET" and path in ("/status.json", "/api/v2/summary.json"):
            return _json(msgspec.json.encode(self.status.summary()))
        if request.method == "GET" and path.endswith("/models"):
            listed = [{"id": o.wire_model, "object": "model"} for o in self.offers]
            return _json(msgspec.json.encode({"object": "list", "data": listed}))
        nowhere = BadAsk(f"Unknown URL: {request.method} {path}", status=404)
        return self._refusal(nowhere, "", Route(WIRES[self.provider.wire]))

    async def _call(self, request: web.BaseRequest, route: Route) -> web.StreamResponse:
        answer: Callable[[web.BaseRequest, Route, Call], Awaitable[web.StreamResponse]]
        answer = self._embeddings if route.embeds else self._answer
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        n = self.ledger.totals.calls
        call = Call(
            n=n,
            request_id=f"req_{self.provider.id}_{n:08x}",
            offer="",
            at=self._clock(),
            buyer_ids={h: request.headers[h] for h in BUYER_ID_HEADERS if h in request.headers},
        )
        self.ledger.open(call)
        try:
            return await answer(request, route, call)
        except BadAsk as refused:
            call.status = refused.status
            call.ended = "fault" if call.fault else "refused"
            return self._refusal(refused, call.request_id, route)
        except (asyncio.CancelledError, ConnectionError):
            call.ended = "aborted"
            raise
        finally:
            call.took_ms = round(1000 * (loop.time() - began_s), 3)
            self.ledger.close(call)

    async def _answer(
        self, request: web.BaseRequest, route: Route, call: Call
    ) -> web.StreamResponse:
        raw = await self._authentic(request)
        ask: Ask = route.wire.decode(raw, route.model, route.stream)
        offer = self._sold(ask.model, embeds=False)
        call.offer, call.stream = offer.id, ask.stream
        faults = self.board.of(offer.id)
        self._within_quota(faults)
        fault = self._drawn(faults, call)
        if fault is not None:
            call.fault = fault.kind
            await self._fail_early(fault, request)
        reply = self._reply(ask, offer, faults, call, route)
        timing_s = self._pace(offer, faults)
        headers = self._headers(call.request_id)
        call.input_tokens, call.cached_tokens = reply.input_tokens, reply.cached_tokens
        if fault is None and not ask.stream:
            await asyncio.sleep(timing_s.ttft_ms + timing_s.tpot_ms * reply.output_tokens)
            body = route.wire.encode(reply)
            call.status, call.bytes_out = 200, len(body)
            response: web.StreamResponse = _json(body, headers=headers)
            self._bill(call, offer, reply, reply.output_tokens)
        else:
            if not ask.stream:
                await asyncio.sleep(timing_s.ttft_ms)
            shown = self._shown(ask, reply, fault, route)
            try:
                response = await send(
                    request, shown, headers, timing_s, reply.reasoning_tokens, call
                )
            except (asyncio.CancelledError, ConnectionError):
                self._bill(call, offer, reply, call.output_tokens)
                raise
            self._bill(call, offer, reply, reply.output_tokens)
        call.ended = "served" if fault is None else "fault"
        return response

    async def _embeddings(
        self, request: web.BaseRequest, route: Route, call: Call
    ) -> web.StreamResponse:
        raw = await self._authentic(request)
        is_openai = route.wire is openai_wire
        ask = embedders.decode(raw) if is_openai else route.wire.decode_embed(raw, route.model)
        offer = self._sold(route.model or ask.model, embeds=True)
        call.offer = offer.id
        fault = self._drawn(self.board.of(offer.id), call)
        if fault is not None:
            call.fault = fault.kind
            await self._fail_early(fault, request)
        vectors, n_tokens = embedders.vectors_of(ask, offer.model)
        if is_openai:
            body = embedders.openai_body(ask, vectors, n_tokens)
        else:
            body = route.wire.encode_embed(ask, [v.tolist() for v in vectors], n_tokens)
        nth = self._nth[offer.id] = self._nth.get(offer.id, -1) + 1
        await asyncio.sleep(embedders.took_ms(offer.id, nth) * self._time_scale * 1e-3)
        call.status, call.bytes_out, call.input_tokens = 200, len(body), n_tokens
        call.billed_nusd = live_prices(offer, self.board).cost_nusd(n_tokens, 0)
        call.ended = "served" if fault is None else "fault"
        return _json(body, headers=self._headers(call.request_id))

    def _within_quota(self, faults: dict[Fault, FaultSpec]) -> None:
        """Count a call against the quota, if there is one. Raises `BadAsk`."""
        spec = faults.get(Fault.QUOTA)
        if spec is not None and not self._quota.take(spec, self._clock()):
            _, reset_s = self._quota.left(spec, self._clock())
            raise BadAsk(
                "Rate limit reached for requests.",
                status=429,
                code="rate_limit_exceeded",
                retry_after_s=reset_s,
            )

    async def _authentic(self, request: web.BaseRequest) -> bytes:
        """The body of a request by somebody we know. Raises `BadAsk`."""
        raw = await request.read()
        authenticate(self.provider, request, raw, self._api_key, self._clock())
        return raw

    def _sold(self, name: str, *, embeds: bool) -> Offer:
        """The offer called `name`. Raises `BadAsk` where there is none of that kind."""
        offer = self._by_name.get(name)
        gone = offer is not None and Fault.WITHDRAW in self.board.of(offer.id)
        if (
            offer is None
            or gone
            or embeds != (Capability.EMBEDDINGS in self._models[offer.model].mask)
        ):
            message = f"The model `{name}` does not exist."
            raise BadAsk(message, status=404, code="model_not_found")
        return offer

    def _drawn(self, faults: dict[Fault, FaultSpec], call: Call) -> FaultSpec | None:
        """The fault that hits this call, if any."""
        for kind, spec in faults.items():
            if kind in MODIFIERS or (kind in PORT_FAULTS and kind is not Fault.REFUSE):
                continue
            if spec.share >= 1.0 or uniform("fault", self.provider.id, kind, call.n) < spec.share:
                return spec
        return None

    async def _fail_early(self, fault: FaultSpec, request: web.BaseRequest) -> None:
        """Faults that come instead of an answer."""
        if fault.kind is Fault.REFUSE:
            reset(request.transport)
            raise ConnectionResetError("refused")
        if fault.kind is Fault.HANG:
            await asyncio.Event().wait()
        if fault.kind is Fault.ERROR:
            raise BadAsk(_SAYS.get(fault.status, _OVERLOADED), status=fault.status)
        if fault.kind is Fault.RATE_LIMIT:
            now_s = self._clock()
            if now_s - self._window_began_s >= QUOTA_WINDOW_S:
                self._window_began_s, self._n_in_window = now_s, 0
            self._n_in_window += 1
            if self._n_in_window > fault.per_minute:
                raise BadAsk(
                    "Rate limit reached.",
                    status=429,
                    code="rate_limit_exceeded",
                    retry_after_s=fault.retry_after_s,
                )

    def _reply(
        self, ask: Ask, offer: Offer, faults: dict[Fault, FaultSpec], call: Call, route: Route
    ) -> Reply:
        model = self._models[offer.model]
        n_input = input_tokens(ask)
        refuse_impossible(ask, model, n_input)
        degrade = faults.get(Fault.DEGRADE)
        reply = compose(
            self._behaviour,
            ask,
            model,
            reply_id=route.wire.ID_PREFIX + call.request_id[4:],
            created=int(call.at),
            n_input=n_input,
            points=degrade.points if degrade else 0.0,
        )
        if offer.prices.cache_read_nusd_per_mtok is not None:
            automatic = self.provider.wire not in ("anthropic", "bedrock")
            if automatic or ask.cache_marked:
                text = "\n".join(turn.text for turn in ask.turns)
                cached = min(self._cache.look_up(offer.id, text, call.at), n_input)
                written = n_input - cached if ask.cache_marked and n_input >= 1024 else 0
                reply = msgspec.structs.replace(reply, cached_tokens=cached, written_tokens=written)
        broken = faults.get(Fault.BROKEN_JSON)
        if broken is not None and uniform("json", self.provider.id, call.n) < broken.share:
            call.fault = call.fault or Fault.BROKEN_JSON
            reply = msgspec.structs.replace(reply, choices=[_halved(c) for c in reply.choices])
        lie = faults.get(Fault.LYING_USAGE)
        if lie is not None and uniform("lie", self.provider.id, call.n) < lie.share:
            call.fault = call.fault or Fault.LYING_USAGE
            reply = msgspec.structs.replace(reply, lie=lie.lie)
        return reply

    def _pace(self, offer: Offer, faults: dict[Fault, FaultSpec]) -> Timing:
        nth = self._nth[offer.id] = self._nth.get(offer.id, -1) + 1
        load = (self.ledger.totals.n_open - 1) / self._capacity
        timing = self._behaviour.timing(offer.id, nth, load)
        slow = faults.get(Fault.SLOW)
        hit = slow is not None and uniform("slow", offer.id, nth) < slow.share
        pace = (slow.factor if slow is not None and hit else 1.0) * self._time_scale / 1000
        return Timing(timing.ttft_ms * pace, timing.tpot_ms * pace)

    def _shown(self, ask: Ask, reply: Reply, fault: FaultSpec | None, route: Route) -> Shown:
        wire = route.wire
        if not ask.stream:
            assert fault is not None
            return spoil_body(fault, wire.encode(reply), wire.error_body)
        frames = wire.frames(reply, include_usage=ask.include_usage, most_chunks=self._most_chunks)
        if fault is None:
            return Shown(frames=frames, content_type=wire.STREAM_TYPE)
        return spoil_stream(
            fault, list(frames), wire.error_body, wire.error_frame, wire.STREAM_TYPE
        )

    def _bill(self, call: Call, offer: Offer, reply: Reply, n_output: int) -> None:
        call.output_tokens = n_output
        call.billed_nusd = live_prices(offer, self.board).cost_nusd(
            reply.input_tokens,
            n_output,
            cached_tokens=reply.cached_tokens,
            written_tokens=reply.written_tokens,
        )

    def _headers(self, request_id: str) -> dict[str, str]:
        limit = self.provider.limit_rpm or STATED_LIMIT_RPM
        n_left, reset_s = limit - self.ledger.totals.n_open, 0.06
        spec = self.board.of(None).get(Fault.QUOTA)
        if spec is not None:
            limit = spec.per_window
            n_left, reset_s = self._quota.left(spec, self._clock())
        left = str(max(0, n_left))
        if self.provider.wire == "anthropic":
            return {
                "request-id": request_id,
                "anthropic-ratelimit-requests-limit": str(limit),
                "anthropic-ratelimit-requests-remaining": left,
                "anthropic-ratelimit-requests-reset": moment(self._clock() + reset_s),
            }
        if self.provider.wire == "bedrock":
            return {"x-amzn-requestid": request_id}
        if self.provider.wire in ("gemini", "vertex"):
            return {"x-request-id": request_id}
        return {
            "x-request-id": request_id,
            "x-ratelimit-limit-requests": str(limit),
            "x-ratelimit-remaining-requests": left,
            "x-ratelimit-reset-requests": f"{1000 * reset_s:.0f}ms",
        }

    def _refusal(self, refused: BadAsk, request_id: str, route: Route) -> web.Response:
        headers = self._headers(request_id)
        if refused.status == 429:
            for name in [n for n in headers if "remaining" in n]:
                headers[name] = "0"
            if refused.retry_after_s is not None:
                headers["retry-after"] = f"{refused.retry_after_s:g}"
        told = (refused.status, refused.message, refused.code, refused.param)
        body = route.wire.error_body(*told)
        return _json(body, status=refused.status, headers=headers)


def _halved(choice: Choice) -> Choice:
    """A choice whose text, or whose call's arguments, stop in the middle."""
    call = choice.tool_call
    if call is None:
        return choice._replace(text=choice.text[: len(choice.text) // 2])
    half = call.arguments[: len(call.arguments) // 2]
    return choice._replace(tool_call=call._replace(arguments=half))


def _json(body: bytes, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")
