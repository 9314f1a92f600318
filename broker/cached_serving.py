"""Serving a hit of the response cache: a decision like any other, at no cost, made by nobody."""

from __future__ import annotations

from aiohttp import web

from bidding.decision import Bid, Decision
from bidding.outcome import FailureClass
from bidding.request import BidRequest, Sla
from broker.response_cache import HEADER, OFFER, Cached
from broker.settle import is_on_time
from broker.wire.neutral import Answer, NeutralRequest
from broker.wire.spelled import events_of
from broker.wire.surface import ReplyMeta, Surface
from feeds.flight import decision_record
from feeds.records import DecisionRecord


def cached_record(
    hit: Cached, asked: BidRequest, *, decision_id: str, at_us: int, params_version: int
) -> DecisionRecord:
    """The flight record of a hit: no auction was held, so no view was read."""
    bid = Bid(OFFER, -1, 0.0, 0.0, hit.p_good, 1.0)
    decision = Decision(
        view_number=0,
        params_version=params_version,
        policy=OFFER,
        seed=0,
        ranked=(bid,),
        n_bids=1,
        no_bids={},
        clearing_price_nusd=None,
        propensity=1.0,
        feasible=True,
        quality_price_nusd=0.0,
        punctuality_price_nusd=0.0,
        best=None,
        cheapest=None,
    )
    record = decision_record(decision, asked, decision_id=decision_id, at_us=at_us)
    record.cached_from = hit.decision_id
    return record


def settle_hit(
    record: DecisionRecord, hit: Cached, answer: Answer, sla: Sla, took_ms: float
) -> DecisionRecord:
    """Write what was delivered into a hit's record."""
    record.delivered_offer, record.delivered_model = OFFER, hit.model
    record.failure = FailureClass.OK
    record.p_good, record.p_on_time = hit.p_good, 1.0
    record.total_ms = took_ms
    record.ttft_ms = took_ms if record.streaming else None
    record.on_time = is_on_time(sla, record.ttft_ms, took_ms, ok=True)
    record.output_tokens = 0 if answer.usage is None else answer.usage.output_tokens
    return record


def hit_headers(record: DecisionRecord, hit: Cached, age_s: float) -> dict[str, str]:
    """The headers of a hit's answer."""
    return {
        "x-broker-decision": record.decision_id,
        "x-broker-offer": OFFER,
        "x-broker-cost-usd": "0.000000000",
        "x-broker-sla": "missed" if record.on_time is False else "met",
        "x-broker-attempts": "0",
        HEADER: f"hit; of={hit.decision_id}; age={age_s:.0f}",
        "server-timing": f"total;dur={record.total_ms or 0.0:.1f}",
    }


async def send_hit(
    http: web.Request,
    request: NeutralRequest,
    answer: Answer,
    surface: Surface,
    meta: ReplyMeta,
    headers: dict[str, str],
) -> web.StreamResponse:
    """The answer, whole or as a stream of few pieces."""
    if not request.stream:
        body = surface.reply(request, answer, meta)
        return web.Response(body=body, content_type="application/json", headers=headers)
    return await send_stream(http, request, answer, surface, meta, headers)


async def send_stream(
    http: web.Request,
    request: NeutralRequest,
    answer: Answer,
    surface: Surface,
    meta: ReplyMeta,
    headers: dict[str, str],
) -> web.StreamResponse:
    """An answer that is whole already, as a stream."""
    encoder = surface.stream(request, meta)
    response = web.StreamResponse(headers=headers)
    response.content_type = "text/event-stream"
    response.headers["Cache-Control"] = "no-cache"
    await response.prepare(http)
    pieces = [encoder.start(), *(encoder.event(e) for e in events_of(answer)), encoder.end()]
    await response.write(b"".join(pieces))
    await response.write_eof()
    return response
