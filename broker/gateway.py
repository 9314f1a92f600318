"""The public port: routes, and what is common to all of them.

Every route states the scope it asks for in `ROUTES`; a test fails on one that does not. Errors
become answers in one place. What a route does is in the files it calls.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from aiohttp import web

from bidding.errors import BadRequest, MarketError
from broker import app_routes, page_routes, seller_routes
from broker.auth import Scope
from broker.error_answers import answer_for, body_for
from broker.errors import BodyTooLarge, NotFound, NotReady, SellersFailed, Shed
from broker.gateway_state import GatewayState
from broker.http_call import LINE, STATE, caller_of, json_response
from broker.market_routes import market_body, models_body
from broker.openapi import document
from broker.public_port import PORT, PublicPort, watch
from broker.replying import error_body
from broker.serve import RequestLine
from broker.wire.anthropic_messages import ANTHROPIC_MESSAGES

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_encoder = msgspec.json.Encoder()


def make_app(
    state: GatewayState, line: RequestLine, port: PublicPort | None = None
) -> web.Application:
    """The public application, and the port that it will be served at."""
    app = web.Application(
        client_max_size=state.settings.gateway.max_body_bytes, middlewares=[watch, answer_errors]
    )
    if port is not None:
        app[PORT] = port
    app[STATE] = state
    app[LINE] = line
    for method, path, _, handler in ROUTES:
        app.router.add_route(method, path, handler)
    return app


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn what a handler raises into an answer in the surface's error shape; count answers."""
    state = request.app[STATE]
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
        if isinstance(error.__cause__, web.RequestPayloadError):
            # aiohttp closes after a body it could not inflate; a client not told so would send its
            # next request into the closing connection.
            response.force_close()
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
    limit = request.app[STATE].settings.gateway.max_body_bytes
    return BodyTooLarge(f"the body is over {limit} bytes")


async def models(request: web.Request) -> web.Response:
    """`GET /v1/models`."""
    caller_of(request, "app")
    return json_response(models_body(request.app[STATE].market))


async def market(request: web.Request) -> web.Response:
    """`GET /v1/market`: every offer's quote."""
    caller_of(request, "app")
    state = request.app[STATE]
    return json_response(market_body(state.market, state.clock.now_us()))


async def healthz(request: web.Request) -> web.Response:
    """Whether this process is alive."""
    return json_response({"status": "ok"})


async def readyz(request: web.Request) -> web.Response:
    """Whether this gateway should get traffic: it has caught up, and is not draining."""
    state = request.app[STATE]
    if not state.market.ready or state.draining:
        raise NotReady("draining" if state.draining else "catching up with the market")
    return json_response({"status": "ready", "view": state.market.view.number})


async def feeds(request: web.Request) -> web.Response:
    """`GET /v1/feeds`: how feeds are doing, incidents going on, prices held back."""
    caller_of(request, "app")
    state = request.app[STATE]
    return json_response(state.market.feeds.body(state.clock.now_us()))


async def metrics(request: web.Request) -> web.Response:
    """Prometheus' text format."""
    state = request.app[STATE]
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
    return await page_routes.stream_market(request, request.app[STATE].stream)


async def reports(request: web.Request) -> web.Response:
    """`GET /v1/reports`: the named questions."""
    caller_of(request, "analyst")
    return page_routes.list_reports()


async def report(request: web.Request) -> web.Response:
    """`GET /v1/reports/{name}`: a named question's answer."""
    caller_of(request, "analyst")
    desk = request.app[STATE].desk
    return await page_routes.answer_report(desk, request.match_info["name"], request.query)


async def page(request: web.Request) -> web.Response:
    """`GET /` and `GET /page/...`: the market page. It asks for a key itself."""
    state = request.app[STATE]
    name = request.match_info.get("name", "index.html")
    return page_routes.page_file(state.page_files, name, state.settings.gateway.admin_url)


async def page_settings(request: web.Request) -> web.Response:
    """`GET /page/settings.json`: where the page finds the admin port, if anywhere."""
    return json_response({"admin_url": request.app[STATE].settings.gateway.admin_url})


ROUTES: Final[tuple[tuple[str, str, Scope | None, Handler], ...]] = (
    ("POST", "/v1/chat/completions", "app", app_routes.chat_completions),
    ("POST", "/v1/responses", "app", app_routes.responses),
    ("POST", "/v1/embeddings", "app", app_routes.embeddings),
    ("POST", "/v1/messages", "app", app_routes.anthropic_messages),
    ("POST", "/v1/messages/count_tokens", "app", app_routes.count_tokens),
    ("POST", "/v1/auctions", "app", app_routes.auctions),
    ("POST", "/v1/outcomes", "app", app_routes.post_outcomes),
    ("POST", "/v1/telemetry", "telemetry", seller_routes.post_telemetry),
    ("POST", "/otlp/v1/traces", "telemetry", seller_routes.post_traces),
    ("POST", "/otlp/v1/metrics", "telemetry", seller_routes.post_metrics),
    ("POST", "/v1/asks", "seller", seller_routes.post_asks),
    ("GET", "/v1/notices", "seller", seller_routes.get_notices),
    ("GET", "/v1/decisions/{id}", "app", app_routes.get_decision),
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
