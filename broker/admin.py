"""The operators' port: live params, muted sources of telemetry. Never on the public port.

Every route asks for the scope `ops`. It listens on loopback unless told otherwise, and then only
if some key has that scope. Browsers may call it from the market page's origin and no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, TypeVar

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from analytics.store import StoreSettings
from bidding.errors import BadRequest, MarketError
from bidding.params import describe
from bidding.params_change import flat, with_changes
from bidding.trial import TrialKind
from broker import services, source_desk
from broker.auth import Caller, KeyRing, Scope, require
from broker.canary_watch import CanaryWatch
from broker.config import ConfigError, Settings, analyst_store
from broker.errors import BodyTooLarge, NotFound, NotReady
from broker.gateway import error_response
from broker.http_call import json_response
from broker.key_commands import configured_record
from broker.params_control import ParamsControl
from broker.params_log import Event
from broker.shared_state import SharedState, StateUnavailable
from broker.state import open_state
from broker.whatif import in_words, preview
from feeds.clock import Clock, SystemClock
from feeds.compacted import latest
from feeds.control_records import KeyRecord
from feeds.kafka import KafkaSettings
from feeds.topics import KEYS

logger = logging.getLogger(__name__)

_MOST_BODY_BYTES: Final = 64 * 1024
_REVOKED_EVERY_S: Final = 0.5
T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Why = Annotated[str, Meta(min_length=1, max_length=500)]
_CONTROL: Final = web.AppKey("control", ParamsControl)
_CLOCK: Final = web.AppKey("clock", Clock)
_ORIGIN: Final = web.AppKey("origin", str)
_STORE: Final = web.AppKey("store", StoreSettings)
_KAFKA: Final = web.AppKey("kafka", KafkaSettings)
_WATCH: Final = web.AppKey("watch", CanaryWatch)
_PREVIEWING: Final = web.AppKey("previewing", asyncio.Lock)


class ChangeBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`PATCH /admin/params`."""

    if_version: Annotated[int, Meta(ge=0)]
    changes: Annotated[dict[str, int | float], Meta(min_length=1, max_length=200)]
    why: Why


class ShadowBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /admin/params/shadow`."""

    changes: Annotated[dict[str, int | float], Meta(min_length=1, max_length=200)]
    why: Why
    share: float = 1.0
    tenant: Annotated[str, Meta(max_length=128)] = ""


class CanaryBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /admin/params/canary`. `share` is of all requests, or of the tenant's."""

    changes: Annotated[dict[str, int | float], Meta(min_length=1, max_length=200)]
    why: Why
    share: float = 0.1
    tenant: Annotated[str, Meta(max_length=128)] = ""
    hours: float = 1.0


class EndBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /admin/params/shadow/stop`, `…/canary/promote`, `…/canary/abort`; `version` refuses
    to end another trial than the one that was looked at.
    """

    why: Why
    version: Annotated[int, Meta(ge=0)] | None = None


class RollbackBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /admin/params/rollback`."""

    to: Annotated[int, Meta(ge=0)]
    why: Why
    if_version: Annotated[int, Meta(ge=0)] | None = None


class PreviewBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /admin/params/preview`."""

    changes: Annotated[dict[str, int | float], Meta(min_length=1, max_length=200)]
    since: Annotated[str, Meta(min_length=1, max_length=64)] = "24h"
    most: Annotated[int, Meta(ge=1, le=20_000)] = 2_000


class MuteBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /admin/sources/{source}/mute`."""

    why: Why
    for_s: Annotated[float, Meta(gt=0, le=source_desk.MOST_MUTED_S)] = 86_400.0


class UnmuteBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /admin/sources/{source}/unmute`."""

    why: Why


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
    app[_CONTROL] = control
    app[_CLOCK] = clock
    app[_ORIGIN] = page_origin
    app[_STORE] = store
    app[_KAFKA] = kafka
    app[_PREVIEWING] = asyncio.Lock()
    if watch is not None:
        app[_WATCH] = watch
    for method, path, _, handler in ROUTES:
        app.router.add_route(method, path, handler)
    return app


@web.middleware
async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Preflights answered, errors made answers, the page's origin let in."""
    own_page = request.headers.get("Origin") == request.app[_ORIGIN]
    response: web.StreamResponse
    if request.method == "OPTIONS":
        response = web.Response(status=204 if own_page else 403)
    else:
        response = await _answered(request, handler)
    response.headers["Cache-Control"] = "no-store"
    response.headers["Vary"] = "Origin"
    if own_page:
        response.headers["Access-Control-Allow-Origin"] = request.app[_ORIGIN]
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


def caller_of(request: web.Request) -> Caller:
    """The operator who sent the request. Raises `NotAuthenticated`, `NotAllowed`."""
    header = request.headers.get("Authorization") or request.headers.get("x-api-key")
    control = request.app[_CONTROL]
    caller = control.keys.caller(header, request.app[_CLOCK].now_us())
    require(caller, "ops")
    return caller


async def _body(request: web.Request, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = str(error)
        path = message.rpartition("`$.")[2].rstrip("`") if "`$." in message else ""
        raise BadRequest(message, path=path) from error


async def get_params(request: web.Request) -> web.Response:
    """`GET /admin/params`: the version in force, and what may be said of every number."""
    caller_of(request)
    control = request.app[_CONTROL]
    if not control.ready:
        raise NotReady("the log has not been read to its end yet")
    params = control.params
    numbers: dict[str, Any] = msgspec.to_builtins(params)
    del numbers["version"]
    values = flat(params)
    fields = [
        {
            "path": doc.path,
            "value": values[doc.path],
            "default": doc.default,
            "low": doc.ge,
            "high": doc.le,
            "unit": doc.unit,
            "meaning": doc.meaning,
        }
        for doc in describe()
    ]
    return json_response({"version": params.version, "params": numbers, "fields": fields})


async def patch_params(request: web.Request) -> web.Response:
    """`PATCH /admin/params`: some numbers changed, if the version is still the one seen."""
    caller = caller_of(request)
    body = await _body(request, ChangeBody)
    made = await request.app[_CONTROL].change(
        body.changes, if_version=body.if_version, by=caller.key_id, why=body.why
    )
    return json_response(made)


async def post_preview(request: web.Request) -> web.Response:
    """`POST /admin/params/preview`: what a change would have done to recorded traffic."""
    caller_of(request)
    control = request.app[_CONTROL]
    if not control.ready:
        raise NotReady("the log has not been read to its end yet")
    body = await _body(request, PreviewBody)
    with_changes(control.params, body.changes, version=0)
    async with request.app[_PREVIEWING]:
        made = await preview(
            request.app[_STORE], body.changes, since=body.since, most=body.most, now=control.params
        )
    return json_response({**msgspec.structs.asdict(made), "words": in_words(made)})


async def get_history(request: web.Request) -> web.Response:
    """`GET /admin/params/history`: newest first."""
    caller_of(request)
    return json_response(await request.app[_CONTROL].history())


async def post_rollback(request: web.Request) -> web.Response:
    """`POST /admin/params/rollback`: an earlier version's numbers again, as a new version."""
    caller = caller_of(request)
    body = await _body(request, RollbackBody)
    made = await request.app[_CONTROL].rollback(
        body.to, by=caller.key_id, why=body.why, if_version=body.if_version
    )
    return json_response(made)


async def get_sources(request: web.Request) -> web.Response:
    """`GET /admin/sources`: sources of telemetry that are or were muted, and why."""
    caller_of(request)
    now_us = request.app[_CLOCK].now_us()
    return json_response({"sources": await source_desk.listing(request.app[_KAFKA], now_us)})


async def post_mute(request: web.Request) -> web.Response:
    """`POST /admin/sources/{source}/mute`: not heard for a while."""
    caller = caller_of(request)
    body = await _body(request, MuteBody)
    made = await source_desk.mute(
        request.app[_KAFKA],
        request.match_info["source"],
        now_us=request.app[_CLOCK].now_us(),
        for_s=body.for_s,
        by=caller.key_id,
        why=body.why,
    )
    return json_response(made)


async def post_unmute(request: web.Request) -> web.Response:
    """`POST /admin/sources/{source}/unmute`: heard again, judged afresh."""
    caller = caller_of(request)
    body = await _body(request, UnmuteBody)
    made = await source_desk.unmute(
        request.app[_KAFKA],
        request.match_info["source"],
        now_us=request.app[_CLOCK].now_us(),
        by=caller.key_id,
        why=body.why,
    )
    return json_response(made)


async def get_trials(request: web.Request) -> web.Response:
    """`GET /admin/params/trials`: what is tried in the shadow and as a canary."""
    caller_of(request)
    told = request.app[_CONTROL].trials()
    if told["canary"] is not None:
        watch = request.app.get(_WATCH)
        told["canary"]["guard"] = None if watch is None else watch.told()
    return json_response(told)


async def post_shadow(request: web.Request) -> web.Response:
    """`POST /admin/params/shadow`: compute and record what other params would buy."""
    caller = caller_of(request)
    body = await _body(request, ShadowBody)
    made = await request.app[_CONTROL].begin(
        "shadow",
        body.changes,
        share=body.share,
        tenant=body.tenant,
        by=caller.key_id,
        why=body.why,
    )
    return json_response(made)


async def post_canary(request: web.Request) -> web.Response:
    """`POST /admin/params/canary`: buy under other params for a share of requests."""
    caller = caller_of(request)
    body = await _body(request, CanaryBody)
    made = await request.app[_CONTROL].begin(
        "canary",
        body.changes,
        share=body.share,
        tenant=body.tenant,
        hours=body.hours,
        by=caller.key_id,
        why=body.why,
    )
    return json_response(made)


def _ending(kind: TrialKind, event: Event) -> Handler:
    async def post_end(request: web.Request) -> web.Response:
        """End a trial."""
        caller = caller_of(request)
        body = await _body(request, EndBody)
        made = await request.app[_CONTROL].end(
            kind, by=caller.key_id, why=body.why, event=event, version=body.version
        )
        return json_response(made)

    return post_end


async def healthz(request: web.Request) -> web.Response:
    """Whether this process is alive."""
    return json_response({"status": "ok"})


async def readyz(request: web.Request) -> web.Response:
    """Whether the params in force are known."""
    if not request.app[_CONTROL].ready:
        raise NotReady("the log has not been read to its end yet")
    return json_response({"status": "ready"})


ROUTES: Final[tuple[tuple[str, str, Scope | None, Handler], ...]] = (
    ("GET", "/admin/params", "ops", get_params),
    ("PATCH", "/admin/params", "ops", patch_params),
    ("POST", "/admin/params/preview", "ops", post_preview),
    ("GET", "/admin/params/history", "ops", get_history),
    ("POST", "/admin/params/rollback", "ops", post_rollback),
    ("GET", "/admin/sources", "ops", get_sources),
    ("POST", "/admin/sources/{source}/mute", "ops", post_mute),
    ("POST", "/admin/sources/{source}/unmute", "ops", post_unmute),
    ("GET", "/admin/params/trials", "ops", get_trials),
    ("POST", "/admin/params/shadow", "ops", post_shadow),
    ("POST", "/admin/params/shadow/stop", "ops", _ending("shadow", "end")),
    ("POST", "/admin/params/canary", "ops", post_canary),
    ("POST", "/admin/params/canary/promote", "ops", _ending("canary", "promote")),
    ("POST", "/admin/params/canary/abort", "ops", _ending("canary", "end")),
    ("GET", "/healthz", None, healthz),
    ("GET", "/readyz", None, readyz),
)
"""Method, path, scope asked for (None: open to all), handler."""


def page_origin(settings: Settings) -> str:
    """Where browsers load the market page from."""
    gateway = settings.gateway
    host = f"[{gateway.host}]" if ":" in gateway.host else gateway.host
    return settings.admin.page_origin or f"http://{host}:{gateway.port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`; a name other than localhost is not believed."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def check_exposure(settings: Settings) -> None:
    """Refuse to listen beyond this machine while nobody could be told from anybody.

    Raises
    ------
    ConfigError
        No key, configured or on the log, has the scope ops.
    """
    if is_loopback(settings.admin.host) or any("ops" in k.scopes for k in settings.keys):
        return
    for record, _ in (await latest(settings.kafka, KEYS)).values():
        if isinstance(record, KeyRecord) and "ops" in record.scopes and not record.revoked:
            return
    raise ConfigError(
        [
            f"admin.host: {settings.admin.host} is not loopback and no key has the scope ops; "
            "make one with `broker key create --scope ops`"
        ]
    )


async def run_admin(settings: Settings) -> None:
    """Serve until told to stop. Raises `ConfigError`."""
    clock = SystemClock()
    control = ParamsControl(settings.kafka, analyst_store(settings), clock)
    await check_exposure(settings)
    for held in settings.keys:
        control.keys.apply(configured_record(held))
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
