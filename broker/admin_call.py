"""How every route of the operators' port begins: what it works on, who calls, what is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Final, TypeVar

import msgspec
from aiohttp import web
from msgspec import Meta

from analytics.store import StoreSettings
from bidding.errors import BadRequest
from broker.auth import Caller, require
from broker.canary_watch import CanaryWatch
from broker.errors import NotReady
from broker.params_control import ParamsControl
from feeds.clock import Clock
from feeds.kafka import KafkaSettings

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Why = Annotated[str, Meta(min_length=1, max_length=500)]
Changes = Annotated[dict[str, int | float], Meta(min_length=1, max_length=200)]
CONTROL: Final = web.AppKey("control", ParamsControl)
CLOCK: Final = web.AppKey("clock", Clock)
ORIGIN: Final = web.AppKey("origin", str)
STORE: Final = web.AppKey("store", StoreSettings)
KAFKA: Final = web.AppKey("kafka", KafkaSettings)
WATCH: Final = web.AppKey("watch", CanaryWatch)
PREVIEWING: Final = web.AppKey("previewing", asyncio.Lock)


def caller_of(request: web.Request) -> Caller:
    """The operator who sent the request. Raises `NotAuthenticated`, `NotAllowed`."""
    header = request.headers.get("Authorization") or request.headers.get("x-api-key")
    control = request.app[CONTROL]
    caller = control.keys.caller(header, request.app[CLOCK].now_us())
    require(caller, "ops")
    return caller


async def body_of(request: web.Request, kind: type[T]) -> T:
    """What the request asks. Raises `BadRequest`, which names the field."""
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = str(error)
        path = message.rpartition("`$.")[2].rstrip("`") if "`$." in message else ""
        raise BadRequest(message, path=path) from error


def control_of(request: web.Request) -> ParamsControl:
    """The live params, once they are known. Raises `NotReady`."""
    control = request.app[CONTROL]
    if not control.ready:
        raise NotReady("the log has not been read to its end yet")
    return control
