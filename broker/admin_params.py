"""The operators' routes to the live params: read, changed, previewed, rolled back."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from bidding.errors import BadRequest
from bidding.params import describe
from bidding.params_change import flat, with_changes
from broker.admin_call import (
    CONTROL,
    PREVIEWING,
    STORE,
    Changes,
    Why,
    body_of,
    caller_of,
    control_of,
)
from broker.http_call import json_response
from broker.whatif import in_words, preview


class ChangeBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`PATCH /admin/params`."""

    if_version: Annotated[int, Meta(ge=0)]
    changes: Changes
    why: Why


class RollbackBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /admin/params/rollback`."""

    to: Annotated[int, Meta(ge=0)]
    why: Why
    if_version: Annotated[int, Meta(ge=0)] | None = None


class PreviewBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /admin/params/preview`."""

    changes: Changes
    since: Annotated[str, Meta(min_length=1, max_length=64)] = "24h"
    most: Annotated[int, Meta(ge=1, le=20_000)] = 2_000


async def get_params(request: web.Request) -> web.Response:
    """`GET /admin/params`: the version in force, and what may be said of every number."""
    caller_of(request)
    control = control_of(request)
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
    body = await body_of(request, ChangeBody)
    made = await request.app[CONTROL].change(
        body.changes, if_version=body.if_version, by=caller.key_id, why=body.why
    )
    return json_response(made)


async def post_preview(request: web.Request) -> web.Response:
    """`POST /admin/params/preview`: what a change would have done to recorded traffic."""
    caller_of(request)
    control = control_of(request)
    body = await body_of(request, PreviewBody)
    with_changes(control.params, body.changes, version=0)
    async with request.app[PREVIEWING]:
        made = await preview(
            request.app[STORE], body.changes, since=body.since, most=body.most, now=control.params
        )
    return json_response({**msgspec.structs.asdict(made), "words": in_words(made)})


async def get_history(request: web.Request) -> web.Response:
    """`GET /admin/params/history`: newest first."""
    caller_of(request)
    return json_response(await request.app[CONTROL].history())


async def get_followed(request: web.Request) -> web.Response:
    """`GET /admin/params/{version}/followed`: what followed it, in force and as a canary."""
    caller_of(request)
    text = request.match_info["version"]
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise BadRequest(f"{text[:40]!r} is not a version", path="version")
    return json_response(await request.app[CONTROL].followed(int(text)))


async def post_rollback(request: web.Request) -> web.Response:
    """`POST /admin/params/rollback`: an earlier version's numbers again, as a new version."""
    caller = caller_of(request)
    body = await body_of(request, RollbackBody)
    made = await request.app[CONTROL].rollback(
        body.to, by=caller.key_id, why=body.why, if_version=body.if_version
    )
    return json_response(made)
