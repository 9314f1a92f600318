"""The operators' port: live params and trials of them, muted sources. Never on the public port.

Every route asks for the scope `ops`. It listens on loopback unless told otherwise, and then only
if some key has that scope. Browsers may call it from the market page's origin and no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

from aiohttp import web

from analytics.store import StoreSettings
from bidding.errors import BadRequest, MarketError
from broker import admin_params, admin_sources, admin_trials, services
from broker.admin_call import (
    CLOCK,
    CONTROL,
    KAFKA,
    ORIGIN,
    PREVIEWING,
    STORE,
    WATCH,
    Handler,
    control_of,
)
from broker.admin_exposure import check_exposure, page_origin
from broker.auth import KeyRing, Scope
from broker.canary_watch import CanaryWatch
from broker.config import Settings, analyst_store
from broker.errors import BodyTooLarge, NotFound
from broker.gateway import error_response
from broker.http_call import json_response
from broker.params_control import ParamsControl
from broker.shared_state import SharedState, StateUnavailable
from broker.state import open_state
from feeds.clock import Clock, SystemClock
from feeds.kafka import KafkaSettings

logger = logging.getLogger(__name__)

_MOST_BODY_BYTES: Final = 64 * 1024
_REVOKED_EVERY_S: Final = 0.5


def make_admin(
    control: ParamsControl,
    clock: Clock,
    page_origin: str,
    store: StoreSettings,
    kafka: KafkaSettings,
    watch: CanaryWatch | None = None,
) -> web.Application:
    """The operators' application. `store` is where recorded traffic is read for previews, `kafka`
    where sources are muted, `watch` what tells how a canary does.
    """
    app = web.Application(client_max_size=_MOST_BODY_BYTES, middlewares=[answer])
    app[CONTROL] = control
    app[CLOCK] = clock
    app[ORIGIN] = page_origin
    app[STORE] = store
    app[KAFKA] = kafka
    app[PREVIEWING] = asyncio.Lock()
    if watch is not None:
        app[WATCH] = watch
    for method, path, _, handler in ROUTES:
        app.router.add_route(method, path, handler)
    return app


@web.middleware
async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Preflights answered, errors made answers, the page's origin let in."""
    own_page = request.headers.get("Origin") == request.app[ORIGIN]
    response: web.StreamResponse
    if request.method == "OPTIONS":
        response = web.Response(status=204 if own_page else 403)
    else:
        response = await _answered(request, handler)
    response.headers["Cache-Control"] = "no-store"
    response.headers["Vary"] = "Origin"
    if own_page:
        response.headers["Access-Control-Allow-Origin"] = request.app[ORIGIN]
        response.headers["Access-Control-Allow-Methods"] = "GET, PATCH, POST"
        response.headers["Access-Control-Allow-Headers"] = "Authorization, Content-Type"
    return response


async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except MarketError as error:
        return error_response(error)
    except web.HTTPRequestEntityTooLarge:
        return error_response(BodyTooLarge(f"the body is over {_MOST_BODY_BYTES} bytes"))
    except web.HTTPException as error:
        kind = NotFound if error.status == 404 else BadRequest
        response = error_response(kind(f"{request.method} {request.path}: {error.reason.lower()}"))
        response.set_status(error.status)
        return response
    except Exception as error:
        logger.exception("unhandled in %s", request.path)
        return error_response(error)


async def healthz(request: web.Request) -> web.Response:
    """Whether this process is alive."""
    return json_response({"status": "ok"})


async def readyz(request: web.Request) -> web.Response:
    """Whether the params in force are known."""
    control_of(request)
    return json_response({"status": "ready"})


ROUTES: Final[tuple[tuple[str, str, Scope | None, Handler], ...]] = (
    ("GET", "/admin/params", "ops", admin_params.get_params),
    ("PATCH", "/admin/params", "ops", admin_params.patch_params),
    ("POST", "/admin/params/preview", "ops", admin_params.post_preview),
    ("GET", "/admin/params/history", "ops", admin_params.get_history),
    ("GET", "/admin/params/{version}/followed", "ops", admin_params.get_followed),
    ("POST", "/admin/params/rollback", "ops", admin_params.post_rollback),
    ("GET", "/admin/sources", "ops", admin_sources.get_sources),
    ("POST", "/admin/sources/{source}/mute", "ops", admin_sources.post_mute),
    ("POST", "/admin/sources/{source}/unmute", "ops", admin_sources.post_unmute),
    ("GET", "/admin/params/trials", "ops", admin_trials.get_trials),
    (
        "POST",
        "/admin/params/shadow",
        "ops",
        admin_trials.beginning("shadow", admin_trials.ShadowBody),
    ),
    ("POST", "/admin/params/shadow/stop", "ops", admin_trials.ending("shadow", "end")),
    (
        "POST",
        "/admin/params/canary",
        "ops",
        admin_trials.beginning("canary", admin_trials.CanaryBody),
    ),
    ("POST", "/admin/params/canary/promote", "ops", admin_trials.ending("canary", "promote")),
    ("POST", "/admin/params/canary/abort", "ops", admin_trials.ending("canary", "end")),
    ("GET", "/healthz", None, healthz),
    ("GET", "/readyz", None, readyz),
)
"""Method, path, scope asked for (None: open to all), handler."""


async def run_admin(settings: Settings) -> None:
    """Serve until told to stop. Raises `ConfigError`."""
    clock = SystemClock()
    control = ParamsControl(settings.kafka, analyst_store(settings), clock)
    await check_exposure(settings)
    for held in settings.keys:
        control.keys.apply(held.record())
    shared = open_state(settings)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(control.close)
        await shared.start()
        stack.push_async_callback(shared.close)
        following = asyncio.create_task(control.follower.run())
        revoking = asyncio.create_task(_follow_revoked(shared, control.keys))
        watch = CanaryWatch(control, settings.kafka, clock)
        watching = asyncio.create_task(watch.run())
        runner = web.AppRunner(
            make_admin(
                control, clock, page_origin(settings), settings.store, settings.kafka, watch
            ),
            access_log=None,
        )
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, settings.admin.host, settings.admin.port).start()
        logger.info("operators' port at %s:%d", settings.admin.host, settings.admin.port)
        stopped = asyncio.Event()
        services.on_signals(stopped.set)
        stopping = asyncio.create_task(stopped.wait())
        await asyncio.wait([stopping, following, watching], return_when=asyncio.FIRST_COMPLETED)
        for task in (stopping, following, revoking, watching):
            task.cancel()
        ends = await asyncio.gather(following, stopping, revoking, watching, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end


async def _follow_revoked(shared: SharedState, keys: KeyRing) -> None:
    """Revoked keys, as the shared state tells of them, until cancelled."""
    while True:
        try:
            keys.revoke(await shared.revoked())
        except StateUnavailable as error:
            logger.error("revoked keys cannot be looked up: %s", error)
        await asyncio.sleep(_REVOKED_EVERY_S)
