"""Routes of sellers and of other gateways: telemetry, OTLP, spot asks and what became of them."""

from __future__ import annotations

import asyncio
import importlib

import msgspec
from aiohttp import web

from bidding.errors import BadRequest
from broker import asks
from broker.errors import NotFound
from broker.http_call import STATE, body_of, caller_of, json_response
from feeds.errors import BadRecord


async def post_telemetry(request: web.Request) -> web.Response:
    """`POST /v1/telemetry`: NDJSON of calls made elsewhere; bad lines do not spoil good ones."""
    state = request.app[STATE]
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
    state = request.app[STATE]
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
    state = request.app[STATE]
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
    state = request.app[STATE]
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
