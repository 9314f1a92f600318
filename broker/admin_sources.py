"""The operators' routes to the sources of telemetry: who is not heard, and their word on it."""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from msgspec import Meta, Struct

from broker import source_desk
from broker.admin_call import CLOCK, KAFKA, Why, body_of, caller_of
from broker.http_call import json_response


class MuteBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /admin/sources/{source}/mute`."""

    why: Why
    for_s: Annotated[float, Meta(gt=0, le=source_desk.MOST_MUTED_S)] = 86_400.0


class UnmuteBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /admin/sources/{source}/unmute`."""

    why: Why


async def get_sources(request: web.Request) -> web.Response:
    """`GET /admin/sources`: sources of telemetry that are or were muted, and why."""
    caller_of(request)
    now_us = request.app[CLOCK].now_us()
    return json_response({"sources": await source_desk.listing(request.app[KAFKA], now_us)})


async def post_mute(request: web.Request) -> web.Response:
    """`POST /admin/sources/{source}/mute`: not heard for a while."""
    caller = caller_of(request)
    body = await body_of(request, MuteBody)
    made = await source_desk.mute(
        request.app[KAFKA],
        request.match_info["source"],
        now_us=request.app[CLOCK].now_us(),
        for_s=body.for_s,
        by=caller.key_id,
        why=body.why,
    )
    return json_response(made)


async def post_unmute(request: web.Request) -> web.Response:
    """`POST /admin/sources/{source}/unmute`: heard again, judged afresh."""
    caller = caller_of(request)
    body = await body_of(request, UnmuteBody)
    made = await source_desk.unmute(
        request.app[KAFKA],
        request.match_info["source"],
        now_us=request.app[CLOCK].now_us(),
        by=caller.key_id,
        why=body.why,
    )
    return json_response(made)
