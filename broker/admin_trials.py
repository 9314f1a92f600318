"""The operators' routes to trials of params: begun in the shadow or as a canary, told of, ended."""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from bidding.trial import TrialKind
from broker.admin_call import CONTROL, WATCH, Changes, Handler, Why, body_of, caller_of
from broker.http_call import json_response
from broker.params_log import Event


class ShadowBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /admin/params/shadow`. `share` is of all requests, or of the tenant's."""

    changes: Changes
    why: Why
    share: float = 1.0
    tenant: Annotated[str, Meta(max_length=128)] = ""


class CanaryBody(ShadowBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /admin/params/canary`."""

    share: float = 0.1
    hours: float = 1.0


class EndBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /admin/params/shadow/stop`, `…/canary/promote`, `…/canary/abort`; `version` refuses
    to end another trial than the one that was looked at.
    """

    why: Why
    version: Annotated[int, Meta(ge=0)] | None = None


async def get_trials(request: web.Request) -> web.Response:
    """`GET /admin/params/trials`: what is tried in the shadow and as a canary."""
    caller_of(request)
    told = request.app[CONTROL].trials()
    if told["canary"] is not None:
        watch = request.app.get(WATCH)
        told["canary"]["guard"] = None if watch is None else watch.told()
    return json_response(told)


def beginning(kind: TrialKind, asked: type[ShadowBody]) -> Handler:
    """The route that begins a trial: computed and told of in the shadow, or bought as a canary."""

    async def post_begin(request: web.Request) -> web.Response:
        """Begin a trial."""
        caller = caller_of(request)
        body = await body_of(request, asked)
        made = await request.app[CONTROL].begin(
            kind, by=caller.key_id, **msgspec.structs.asdict(body)
        )
        return json_response(made)

    return post_begin


def ending(kind: TrialKind, event: Event) -> Handler:
    """The route that ends a trial."""

    async def post_end(request: web.Request) -> web.Response:
        """End a trial."""
        caller = caller_of(request)
        body = await body_of(request, EndBody)
        made = await request.app[CONTROL].end(
            kind, by=caller.key_id, why=body.why, event=event, version=body.version
        )
        return json_response(made)

    return post_end
