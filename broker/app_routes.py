"""Routes of apps: calls on every surface, auctions, outcomes, autopsies."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from bidding.auction import decide
from bidding.errors import MarketError
from broker import outcomes
from broker.asking import with_features
from broker.auctions import auction_answer, auction_messages, auction_request, decode_auction
from broker.autopsy import autopsy
from broker.deciding import decision_id
from broker.error_answers import body_for
from broker.errors import NotFound
from broker.gateway_state import GatewayState
from broker.http_call import LINE, STATE, body_of, caller_of, json_response
from broker.recent import Flight
from broker.response_cache import BAD
from broker.sessions import headers_of, session_named
from broker.wire.anthropic_messages import ANTHROPIC_MESSAGES
from broker.wire.openai_chat import OPENAI_CHAT
from broker.wire.openai_embeddings import OPENAI_EMBEDDINGS
from broker.wire.openai_responses import OPENAI_RESPONSES
from broker.wire.surface import Surface
from feeds.flight import decision_record


async def _served(request: web.Request, surface: Surface) -> web.StreamResponse:
    """What the surfaces have in common: a caller, a body, and the request's line."""
    caller = caller_of(request, "app")
    return await request.app[LINE].serve(request, await body_of(request), caller, surface)


async def chat_completions(request: web.Request) -> web.StreamResponse:
    """`POST /v1/chat/completions`: OpenAI's chat completions."""
    return await _served(request, OPENAI_CHAT)


async def responses(request: web.Request) -> web.StreamResponse:
    """`POST /v1/responses`: OpenAI's responses."""
    return await _served(request, OPENAI_RESPONSES)


async def embeddings(request: web.Request) -> web.StreamResponse:
    """`POST /v1/embeddings`: OpenAI's embeddings, bought among the sellers of one model."""
    return await _served(request, OPENAI_EMBEDDINGS)


async def anthropic_messages(request: web.Request) -> web.StreamResponse:
    """`POST /v1/messages`: Anthropic's messages."""
    return await _served(request, ANTHROPIC_MESSAGES)


async def count_tokens(request: web.Request) -> web.StreamResponse:
    """`POST /v1/messages/count_tokens`: our estimate of a message's input."""
    caller_of(request, "app")
    body = ANTHROPIC_MESSAGES.count_tokens(await body_of(request))
    return web.Response(body=body, content_type="application/json")


async def auctions(request: web.Request) -> web.Response:
    """`POST /v1/auctions`: a decision only."""
    state = request.app[STATE]
    caller = caller_of(request, "app")
    body = decode_auction(await body_of(request))
    market = state.market
    asked = auction_request(body, caller.tenant, market.view.offers, caller.policy)
    if asked.features:
        least_n = market.params.choice.found_task_prompts
        asked = with_features(asked, asked.features, market.view.found, least_n)
    step = await state.sessions.step_of(
        auction_messages(body),
        key_id=caller.key_id,
        name=body.session or body.sla.session or session_named(request),
    )
    asked = step.ask(asked)
    view = state.view()
    made = decision_id()
    params, asked = state.trials.assigned(asked, step.session)
    decision = decide(view, asked, params, state.seed())
    record = decision_record(
        decision, asked, decision_id=made, at_us=state.clock.now_us(), only=True
    )
    state.sessions.served(step, record)
    state.trials.compare(record, view, asked, step.session)
    state.journal.decision(record, [])
    if asked.sla.on_miss == "reject" and not decision.feasible:
        raise state.no_eligible_offer(decision, asked)
    response = json_response(auction_answer(made, decision))
    response.headers.update(headers_of(step, record, record.winner or "", []))
    return response


async def post_outcomes(request: web.Request) -> web.Response:
    """`POST /v1/outcomes`: one JSON object, or NDJSON; bad lines do not spoil good ones."""
    state = request.app[STATE]
    caller = caller_of(request, "app")
    n_accepted = 0
    refused: list[dict[str, Any]] = []
    lines = outcomes.lines_of(await body_of(request))
    for i, line in enumerate(lines):
        try:
            told = outcomes.decode_line(line)
            flight = await find_flight(state, told.decision_id, caller.tenant)
            now_us = state.clock.now_us()
            attempt = outcomes.attempt_of(told, flight, now_us)
            feedback = outcomes.feedback_of(told, flight, now_us)
        except MarketError as error:
            state.journal.dead("http:/v1/outcomes", line, str(error))
            refused.append({"line": i, **body_for(error)["error"]})
            continue
        if attempt is not None:
            state.journal.own_attempt(attempt, flight)
        if feedback is not None:
            state.journal.feedback(feedback, flight)
            if feedback.quality < BAD:
                state.cache.forget(flight.decision.cached_from or feedback.decision_id)
        n_accepted += 1
    if refused and not n_accepted and len(lines) == 1:
        return json_response({"error": refused[0]}, status=_status_of(refused[0]))
    return json_response(
        {"accepted": n_accepted, "refused": len(refused), "errors": refused[:20]}, status=202
    )


def _status_of(error: dict[str, Any]) -> int:
    return 404 if error["code"] == "not_found" else 400


async def find_flight(state: GatewayState, wanted: str, tenant: str) -> Flight:
    """A tenant's decision: from memory, or from ClickHouse when it is older or another's.

    Raises
    ------
    NotFound
        The same words whether it does not exist or is not the caller's.
    """
    flight = state.journal.recent.get(wanted, tenant)
    if flight is None:
        flight = await state.stored_flight(wanted, tenant)
    if flight is None:
        raise NotFound(f"no decision {wanted!r}")
    return flight


async def get_decision(request: web.Request) -> web.Response:
    """`GET /v1/decisions/{id}`: the autopsy; with `?replay=1` decided again and compared."""
    state = request.app[STATE]
    caller = caller_of(request, "app")
    flight = await find_flight(state, request.match_info["id"], caller.tenant)
    told = autopsy(flight)
    if request.query.get("replay", "") in ("1", "true"):
        told["replay"] = await state.replayed(flight.decision)
    return json_response(told)
