"""An answer on its way to the app: its headers, and a stream's events as sellers send them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from aiohttp import web

from bidding.errors import MarketError
from bidding.outcome import FailureClass
from bidding.units import usd_from_nusd
from broker.deciding import Flying
from broker.delivery import Delivery
from broker.dispatch import Dispatcher
from broker.error_answers import answer_for, body_for
from broker.errors import SellersFailed
from broker.order import Order
from broker.response_cache import HEADER as CACHE_HEADER
from broker.resume import continuation, may_resume
from broker.sessions import headers_of
from broker.settle import Settlement
from broker.wire.neutral import Event, Failed, Started, TextDelta, Usage
from broker.wire.surface import ErrorBody, ReplyMeta, StreamEncoder, Surface
from feeds.flight import budget_in

_WRITE_TIMEOUT_S: Final = 30.0
_NS_PER_MS: Final = 1_000_000


def reply_meta(flying: Flying, delivery: Delivery, surface: Surface, created_us: int) -> ReplyMeta:
    """What a reply says of itself."""
    return ReplyMeta(
        id=surface.id_prefix + flying.order.decision_id[4:],
        created_s=created_us // 1_000_000,
        model=delivery.seat.offer.model,
    )


def reply_headers(
    flying: Flying, delivery: Delivery, settled: Settlement | None, now_ns: int
) -> dict[str, str]:
    """What is known when the headers go out; a stream's cost is the one expected."""
    offer = delivery.seat.offer.id
    if settled is None:
        bid = next((b for b in flying.decision.ranked if b.offer == offer), None)
        cost_nusd = 0.0 if bid is None else bid.cost_nusd
        target_ns = flying.order.ttft_target_ns
        late = target_ns is not None and (delivery.first_ns or 0) > target_ns
        word = "missed" if late else "met"
        n_attempts = len(flying.order.attempts) + 1
    else:
        cost_nusd, word, n_attempts = settled.cost_nusd, settled.sla_word, settled.n_attempts
    decided_ms = (flying.decided_ns - flying.started_ns) / _NS_PER_MS
    total_ms = (now_ns - flying.started_ns) / _NS_PER_MS
    step, record = flying.step, flying.record
    of_session = {} if step is None else headers_of(step, record, offer, flying.order.attempts)
    if record.trimmed_messages:
        of_session["x-broker-trimmed"] = (
            f"messages={record.trimmed_messages}; tokens={record.trimmed_tokens}"
        )
    budget = budget_in(record)
    if budget is not None:
        of_session["x-broker-budget-left-usd"] = f"{usd_from_nusd(budget.left_nusd):.9f}"
    if flying.lookup.word != "off":
        of_session[CACHE_HEADER] = flying.lookup.word
    return {
        **of_session,
        "x-broker-decision": flying.order.decision_id,
        "x-broker-offer": offer,
        "x-broker-cost-usd": f"{usd_from_nusd(cost_nusd):.9f}",
        "x-broker-sla": word if flying.decision.feasible else "best_effort",
        "x-broker-attempts": str(n_attempts),
        "server-timing": f"decide;dur={decided_ms:.3f}, total;dur={total_ms:.1f}",
    }


def error_body(error: BaseException) -> ErrorBody:
    """An error as a surface needs it for its own shape."""
    told = body_for(error)["error"]
    return ErrorBody(
        status=answer_for(error).status,
        kind=told["type"],
        message=f"{told['message']}; {told['remedy']}",
        code=told["code"],
        param=told["param"],
    )


async def relay(
    response: web.StreamResponse,
    encoder: StreamEncoder,
    delivery: Delivery,
    order: Order,
    dispatcher: Dispatcher,
) -> list[Event] | None:
    """Pass events on as they come. A break becomes the surface's error event, or, where the
    app opted in, the place from which the runner-up goes on. What one seller sent to its
    end is returned.
    """
    sent: list[Event] = []
    first = delivery
    opening = encoder.start()
    if opening:
        await _write(response, opening)
    async with contextlib.AsyncExitStack() as stack:
        while True:
            await _pass_on(response, encoder, delivery, sent)
            failed = delivery.failed
            if failed is None:
                await _write(response, encoder.end())
                return sent if first is delivery else None
            broken = delivery.seat.offer.id
            rest = await _resumed(order, broken, failed.failure, sent, dispatcher)
            if rest is None:
                error = SellersFailed([(broken, str(failed.failure))])
                await _write(response, encoder.error(error_body(error)))
                return None
            delivery = await stack.enter_async_context(rest)
            mark = f": resumed after {broken} by {delivery.seat.offer.id}\n\n"
            await _write(response, mark.encode())


async def _resumed(
    order: Order, broken: str, failure: FailureClass, sent: list[Event], dispatcher: Dispatcher
) -> Delivery | None:
    """The runner-up's continuation of what was sent; None where there is none."""
    if not may_resume(order.request, sent):
        return None
    text = "".join(event.text for event in sent if isinstance(event, TextDelta))
    rest = continuation(order, text, broken, failure)
    if rest is None:
        return None
    try:
        return await dispatcher.open(rest)
    except MarketError:
        return None


def _is_output(event: Event) -> bool:
    """Whether an event, once sent, is part of the answer the app has."""
    return not isinstance(event, Started | Usage | Failed)


async def _pass_on(
    response: web.StreamResponse, encoder: StreamEncoder, delivery: Delivery, sent: list[Event]
) -> None:
    """Send on what a seller sends, noting visible output in `sent`."""
    async for events in delivery:
        sent += [e for e in events if _is_output(e)]
        piece = b"".join(encoder.event(event) for event in events)
        if piece:
            await _write(response, piece)


async def _write(response: web.StreamResponse, piece: bytes) -> None:
    """Write, but do not wait for ever on a client that does not read."""
    async with asyncio.timeout(_WRITE_TIMEOUT_S):
        await response.write(piece)
