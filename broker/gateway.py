"""The public port: routes, and what is common to all of them.

Every route states the scope it asks for in `ROUTES`; a test fails on one that does not. Errors
become answers in one place. What a route does is in the files it calls.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from aiohttp import web

from bidding.auction import decide
from bidding.errors import BadRequest, MarketError
from broker import asks, outcomes, page_routes
from broker.auctions import auction_answer, auction_messages, auction_request, decode_auction
from broker.auth import Caller, Scope, require
from broker.autopsy import autopsy
from broker.errors import (
    BodyTooLarge,
    NotFound,
    NotReady,
    SellersFailed,
    Shed,
    answer_for,
    body_for,
)
from broker.gateway_state import GatewayState
from broker.market_routes import market_body, models_body
from broker.openapi import document
from broker.public_port import PORT, PublicPort, watch
from broker.recent import Flight
from broker.response_cache import BAD
from broker.serve import RequestLine, decision_id, error_body
from broker.sessions import headers_of, session_named
from broker.wire.anthropic_messages import ANTHROPIC_MESSAGES
from broker.wire.openai_chat import OPENAI_CHAT
from broker.wire.openai_embeddings import OPENAI_EMBEDDINGS
from broker.wire.openai_responses import OPENAI_RESPONSES
from broker.wire.surface import Surface
from feeds.errors import BadRecord
from feeds.flight import decision_record

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_encoder = msgspec.json.Encoder()
_STATE: Final = web.AppKey("state", GatewayState)
_LINE: Final = web.AppKey("line", RequestLine)


def make_app(
    state: GatewayState, line: RequestLine, port: PublicPort | None = None
) -> web.Application:
    """The public application, and the port that it will be served at."""
    app = web.Application(
        client_max_size=state.settings.gateway.max_body_bytes, middlewares=[watch, answer_errors]
    )
    if port is not None:
        app[PORT] = port
    app[_STATE] = state
    app[_LINE] = line
    for method, path, _, handler in ROUTES:
        app.router.add_route(method, path, handler)
    return app


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn what a handler raises into an answer in the surface's error shape; count answers."""
    state = request.app[_STATE]
    route = request.match_info.route.resource
    name = route.canonical if route is not None else "unknown"
    state.metrics.in_flight.inc()
    status = 500
    try:
        response = await handler(request)
        status = response.status
        return response
    except MarketError as error:
        response = error_response(error, request.path)
        status = response.status
        return response
    except web.HTTPRequestEntityTooLarge:
        response = error_response(_too_large(request), request.path)
        status = response.status
        return response
    except web.HTTPException as error:
        status = error.status
        kind = NotFound if error.status == 404 else BadRequest
        message = f"{request.method} {request.path}: {error.reason.lower()}"
        response = error_response(kind(message), request.path)
        response.set_status(status)
        return response
    except asyncio.CancelledError:
        status = 499
        raise
    except Exception as error:
        logger.exception("unhandled in %s", name)
        return error_response(error, request.path)
    finally:
        state.metrics.in_flight.dec()
        state.metrics.requests.labels(name, f"{status // 100}xx").inc()


def error_response(error: BaseException, path: str = "") -> web.Response:
    """An error as the clients of `path` expect it, with `Retry-After` where waiting helps."""
    answer = answer_for(error)
    headers = {}
    if isinstance(error, Shed | SellersFailed):
        headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    if answer.level >= logging.WARNING and isinstance(error, MarketError):
        logger.log(answer.level, "%s: %s", answer.code, error)
    anthropic = path.startswith("/v1/messages")
    body = ANTHROPIC_MESSAGES.error(error_body(error)) if anthropic else None
    return web.Response(
        status=answer.status,
        body=_encoder.encode(body_for(error)) if body is None else body,
        content_type="application/json",
        headers=headers,
    )


def _too_large(request: web.Request) -> BodyTooLarge:
    limit = request.app[_STATE].settings.gateway.max_body_bytes
    return BodyTooLarge(f"the body is over {limit} bytes")


def caller_of(request: web.Request, scope: Scope) -> Caller:
    """Whoever sent the request, if they may do this."""
    state = request.app[_STATE]
    header = request.headers.get("Authorization") or request.headers.get("x-api-key")
    caller = state.market.keys.caller(header, state.clock.now_us())
    require(caller, scope)
    return caller


async def body_of(request: web.Request, limit: int | None = None) -> bytes:
    """The whole body, decompressed, within its time and `limit` (default: the settings').

    Raises
    ------
    BadRequest
        It did not come in time, or cannot be inflated.
    BodyTooLarge
        Known from its stated length before any of it is read, else once over the limit.
    """
    settings = request.app[_STATE].settings.gateway
    most = settings.max_body_bytes if limit is None else limit
    if (request.content_length or 0) > most:
        raise BodyTooLarge(f"the body is over {most} bytes")
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            if limit is None:
                return await request.read()
            parts, n_bytes = [], 0
            async for part in request.content.iter_any():
                n_bytes += len(part)
                if n_bytes > most:
                    raise BodyTooLarge(f"the body is over {most} bytes")
                parts.append(part)
            return b"".join(parts)
    except TimeoutError as error:
        raise BadRequest("the body did not arrive in time") from error
    except web.RequestPayloadError as error:
        raise BadRequest(
            f"the body cannot be read: {error}", remedy="send it whole, encoded as it says"
        ) from error


def json_response(body: Any, *, status: int = 200) -> web.Response:
    """`body` as JSON."""
    return web.Response(status=status, body=_encoder.encode(body), content_type="application/json")


async def _served(request: web.Request, surface: Surface) -> web.StreamResponse:
    """What the surfaces have in common: a caller, a body, and the request's line."""
    caller = caller_of(request, "app")
    return await request.app[_LINE].serve(request, await body_of(request), caller, surface)


async def chat_completions(request: web.Request) -> web.StreamResponse:
    """`POST /v1/chat/completions`: OpenAI's chat completions."""
    return await _served(request, OPENAI_CHAT)


async def responses(request: web.Request) -> web.StreamResponse:
    """`POST /v1/responses`: OpenAI's responses."""
    return await _served(request, OPENAI_RESPONSES)


async def embeddings(request: web.Request) -> web.StreamResponse:
    """`POST /v1/embeddings`: OpenAI's embeddings, bought among the sellers of one model."""
    return await _served(request, OPENAI_EMBEDDINGS)


async def anthropic_messages(request: web.Request) -> web.StreamResponse:
    """`POST /v1/messages`: Anthropic's messages."""
    return await _served(request, ANTHROPIC_MESSAGES)


async def count_tokens(request: web.Request) -> web.StreamResponse:
    """`POST /v1/messages/count_tokens`: our estimate of a message's input."""
    caller_of(request, "app")
    body = ANTHROPIC_MESSAGES.count_tokens(await body_of(request))
    return web.Response(body=body, content_type="application/json")


async def auctions(request: web.Request) -> web.Response:
    """`POST /v1/auctions`: a decision only."""
    state = request.app[_STATE]
    caller = caller_of(request, "app")
    body = decode_auction(await body_of(request))
    market = state.market
    asked = auction_request(body, caller.tenant, market.view.offers, caller.policy)
    step = await state.sessions.step_of(
        auction_messages(body),
        key_id=caller.key_id,
        name=body.session or body.sla.session or session_named(request),
    )
    asked = step.ask(asked)
    view = state.view()
    decision = decide(view, asked, market.params, state.seed())
    made = decision_id()
    record = decision_record(
        decision, asked, decision_id=made, at_us=state.clock.now_us(), only=True
    )
    state.sessions.served(step, record)
    state.journal.decision(record, [])
    if asked.sla.on_miss == "reject" and not decision.feasible:
        raise state.no_eligible_offer(decision)
    response = json_response(auction_answer(made, decision))
    response.headers.update(headers_of(step, record, record.winner or "", []))
    return response


async def post_outcomes(request: web.Request) -> web.Response:
    """`POST /v1/outcomes`: one JSON object, or NDJSON; bad lines do not spoil good ones."""
    state = request.app[_STATE]
    caller = caller_of(request, "app")
    n_accepted = 0
    refused: list[dict[str, Any]] = []
    lines = outcomes.lines_of(await body_of(request))
    for i, line in enumerate(lines):
        try:
            told = outcomes.decode_line(line)
            flight = await find_flight(state, told.decision_id, caller.tenant)
            now_us = state.clock.now_us()
            attempt = outcomes.attempt_of(told, flight, now_us)
            feedback = outcomes.feedback_of(told, flight, now_us)
        except MarketError as error:
            state.journal.dead("http:/v1/outcomes", line, str(error))
            refused.append({"line": i, **body_for(error)["error"]})
            continue
        if attempt is not None:
            state.journal.own_attempt(attempt, flight)
        if feedback is not None:
            state.journal.feedback(feedback, flight)
            if feedback.quality < BAD:
                state.cache.forget(flight.decision.cached_from or feedback.decision_id)
        n_accepted += 1
    if refused and not n_accepted and len(lines) == 1:
        return json_response({"error": refused[0]}, status=_status_of(refused[0]))
    return json_response(
        {"accepted": n_accepted, "refused": len(refused), "errors": refused[:20]}, status=202
    )


async def post_telemetry(request: web.Request) -> web.Response:
    """`POST /v1/telemetry`: NDJSON of calls made elsewhere; bad lines do not spoil good ones."""
    state = request.app[_STATE]
    caller = caller_of(request, "telemetry")
    hold = await state.tenancy.admit(caller, 0)
    hold.close(0, 0)
    body = await body_of(request, state.settings.gateway.max_telemetry_bytes)
    if not body.strip():
        raise BadRequest("the body is empty", remedy="send one JSON object a line")
    return json_response(msgspec.to_builtins(await state.intake.take(body, caller)), status=202)


async def post_traces(request: web.Request) -> web.Response:
    """`POST /otlp/v1/traces`: OpenTelemetry spans of GenAI calls, protobuf or JSON."""
    return await _otlp(request, "traces")


async def post_metrics(request: web.Request) -> web.Response:
    """`POST /otlp/v1/metrics`: OpenTelemetry histograms of GenAI calls, protobuf or JSON."""
    return await _otlp(request, "metrics")


async def _otlp(request: web.Request, kind: str) -> web.Response:
    try:
        otlp = importlib.import_module("feeds.otlp")
    except ImportError as error:
        raise NotFound("OTLP is not served here: the extra [feeds] is not installed") from error
    state = request.app[_STATE]
    caller = caller_of(request, "telemetry")
    hold = await state.tenancy.admit(caller, 0)
    hold.close(0, 0)
    content_type = request.content_type
    if content_type not in (otlp.PROTOBUF, otlp.JSON):
        raise BadRequest(
            f"content type {content_type!r}", remedy=f"send {otlp.PROTOBUF} or {otlp.JSON}"
        )
    body = await body_of(request, state.settings.gateway.max_telemetry_bytes)
    read = otlp.read_traces if kind == "traces" else otlp.read_metrics
    try:
        # Protobuf's parser holds the loop some 10 ms a megabyte; a thread does not.
        told = await asyncio.to_thread(read, body, content_type)
    except BadRecord as error:
        state.journal.dead(f"http:/otlp/v1/{kind}", body, str(error))
        raise BadRequest(str(error), remedy="send an OTLP export request") from error
    n_refused, why = await state.intake.take_told(told, caller)
    return web.Response(
        body=otlp.answer(told, content_type, kind, n_refused, why), content_type=content_type
    )


async def post_asks(request: web.Request) -> web.Response:
    """`POST /v1/asks`: what a seller asks for one of its offers, signed."""
    state = request.app[_STATE]
    caller = caller_of(request, "seller")
    body = await body_of(request, asks.MAX_BODY_BYTES)
    signature = request.headers.get(asks.SIGNATURE, "")
    now_us = state.clock.now_us()
    record = asks.ask_record(body, signature, caller, state.market.book, now_us)
    state.journal.ask(record)
    told = {"ask_id": record.ask_id, "offer": record.offer, "until_us": record.until_us}
    return json_response(told, status=202)


async def get_notices(request: web.Request) -> web.Response:
    """`GET /v1/notices`: what became of the caller's asks, newest first."""
    state = request.app[_STATE]
    caller = caller_of(request, "seller")
    offer = request.query.get("offer", "")
    try:
        since_us = int(request.query.get("since_us", "0"))
        most = min(max(int(request.query.get("limit", "1000")), 1), 10_000)
    except ValueError as error:
        raise BadRequest("since_us and limit are whole numbers") from error
    asked = state.notices
    found = [] if asked is None else await asked(caller.tenant, offer, since_us, most)
    return json_response({"notices": found})


def _status_of(error: dict[str, Any]) -> int:
    return 404 if error["code"] == "not_found" else 400


async def find_flight(state: GatewayState, wanted: str, tenant: str) -> Flight:
    """A tenant's decision: from memory, or from ClickHouse when it is older or another's.

    Raises
    ------
    NotFound
        The same words whether it does not exist or is not the caller's.
    """
    flight = state.journal.recent.get(wanted, tenant)
    if flight is None:
        flight = await state.stored_flight(wanted, tenant)
    if flight is None:
        raise NotFound(f"no decision {wanted!r}")
    return flight


async def get_decision(request: web.Request) -> web.Response:
    """`GET /v1/decisions/{id}`: the autopsy; with `?replay=1` decided again and compared."""
    state = request.app[_STATE]
    caller = caller_of(request, "app")
    flight = await find_flight(state, request.match_info["id"], caller.tenant)
    told = autopsy(flight)
    if request.query.get("replay", "") in ("1", "true"):
        told["replay"] = await state.replayed(flight.decision)
    return json_response(told)


async def models(request: web.Request) -> web.Response:
    """`GET /v1/models`."""
    caller_of(request, "app")
    return json_response(models_body(request.app[_STATE].market))


async def market(request: web.Request) -> web.Response:
    """`GET /v1/market`: every offer's quote."""
    caller_of(request, "app")
    state = request.app[_STATE]
    return json_response(market_body(state.market, state.clock.now_us()))


async def healthz(request: web.Request) -> web.Response:
    """Whether this process is alive."""
    return json_response({"status": "ok"})


async def readyz(request: web.Request) -> web.Response:
    """Whether this gateway should get traffic: it has caught up, and is not draining."""
    state = request.app[_STATE]
    if not state.market.ready or state.draining:
        raise NotReady("draining" if state.draining else "catching up with the market")
    return json_response({"status": "ready", "view": state.market.view.number})


async def feeds(request: web.Request) -> web.Response:
    """`GET /v1/feeds`: how feeds are doing, incidents going on, prices held back."""
    caller_of(request, "app")
    state = request.app[_STATE]
    return json_response(state.market.feeds.body(state.clock.now_us()))


async def metrics(request: web.Request) -> web.Response:
    """Prometheus' text format."""
    state = request.app[_STATE]
    state.journal.update_gauges()
    state.market.update_gauges()
    age_us = state.clock.now_us() - state.market.view.at_us
    state.metrics.view_age_seconds.set(age_us * 1e-6)
    state.market.feeds.measure(state.metrics, state.clock.now_us())
    return web.Response(
        body=state.metrics.exposition(), headers={"Content-Type": "text/plain; version=0.0.4"}
    )


async def openapi(request: web.Request) -> web.Response:
    """`GET /openapi.json`: this API, described."""
    return json_response(document(ROUTES))


async def market_stream(request: web.Request) -> web.StreamResponse:
    """`GET /v1/market/stream`: live quotes as server-sent events."""
    caller_of(request, "app")
    return await page_routes.stream_market(request, request.app[_STATE].stream)


async def reports(request: web.Request) -> web.Response:
    """`GET /v1/reports`: the named questions."""
    caller_of(request, "analyst")
    return page_routes.list_reports()


async def report(request: web.Request) -> web.Response:
    """`GET /v1/reports/{name}`: a named question's answer."""
    caller_of(request, "analyst")
    desk = request.app[_STATE].desk
    return await page_routes.answer_report(desk, request.match_info["name"], request.query)


async def page(request: web.Request) -> web.Response:
    """`GET /` and `GET /page/...`: the market page. It asks for a key itself."""
    state = request.app[_STATE]
    name = request.match_info.get("name", "index.html")
    return page_routes.page_file(state.page_files, name, state.settings.gateway.admin_url)


async def page_settings(request: web.Request) -> web.Response:
    """`GET /page/settings.json`: where the page finds the admin port, if anywhere."""
    return json_response({"admin_url": request.app[_STATE].settings.gateway.admin_url})


ROUTES: Final[tuple[tuple[str, str, Scope | None, Handler], ...]] = (
    ("POST", "/v1/chat/completions", "app", chat_completions),
    ("POST", "/v1/responses", "app", responses),
    ("POST", "/v1/embeddings", "app", embeddings),
    ("POST", "/v1/messages", "app", anthropic_messages),
    ("POST", "/v1/messages/count_tokens", "app", count_tokens),
    ("POST", "/v1/auctions", "app", auctions),
    ("POST", "/v1/outcomes", "app", post_outcomes),
    ("POST", "/v1/telemetry", "telemetry", post_telemetry),
    ("POST", "/otlp/v1/traces", "telemetry", post_traces),
    ("POST", "/otlp/v1/metrics", "telemetry", post_metrics),
    ("POST", "/v1/asks", "seller", post_asks),
    ("GET", "/v1/notices", "seller", get_notices),
    ("GET", "/v1/decisions/{id}", "app", get_decision),
    ("GET", "/v1/models", "app", models),
    ("GET", "/v1/market", "app", market),
    ("GET", "/v1/market/stream", "app", market_stream),
    ("GET", "/v1/feeds", "app", feeds),
    ("GET", "/v1/reports", "analyst", reports),
    ("GET", "/v1/reports/{name}", "analyst", report),
    ("GET", "/", None, page),
    ("GET", "/page/settings.json", None, page_settings),
    ("GET", "/page/{name:[A-Za-z0-9_./-]+}", None, page),
    ("GET", "/healthz", None, healthz),
    ("GET", "/readyz", None, readyz),
    ("GET", "/metrics", None, metrics),
    ("GET", "/openapi.json", None, openapi),
)
"""Method, path, scope asked for (None: open to all), handler."""
