"""`POST /v1/auctions`: a decision only, for apps that make the call themselves. Pure."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from bidding.columns import OfferColumns
from bidding.decision import Bid, Decision
from bidding.errors import BadRequest
from bidding.found_tasks import UNNAMED_TASK
from bidding.market import Capability
from bidding.request import BidRequest, Sla
from bidding.units import usd_from_nusd
from broker.asking import ANYTHING, DEFAULT_SLA, as_decided
from broker.key_rules import merged_sla, restricted
from broker.naming import MARKET, meaning_of
from broker.wire.json_guard import decode_strictly
from broker.wire.neutral import Message, Role, Text
from broker.wire.tokens import estimate_text_tokens
from feeds.control_records import KeyPolicy

_Tokens = Annotated[int, Meta(ge=0, le=100_000_000)]


class _Message(Struct):
    role: str = "user"
    content: str = ""


class AuctionBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be asked. Give `input_tokens`, or the prompt for us to estimate them."""

    model: str = MARKET
    models: tuple[str, ...] = ()
    sla: Sla = DEFAULT_SLA
    messages: list[_Message] | None = None
    prompt: str | None = None
    features: tuple[float, ...] = ()
    input_tokens: _Tokens | None = None
    max_output_tokens: Annotated[int, Meta(gt=0, le=10_000_000)] | None = None
    needs: list[str] = []
    session: Annotated[str, Meta(min_length=1, max_length=256)] | None = None


_decoder = msgspec.json.Decoder(AuctionBody)


def decode_auction(body: bytes) -> AuctionBody:
    """A body, strictly. Raises `BadRequest` with the path of what is wrong."""
    return decode_strictly(body, _decoder, AuctionBody.__struct_fields__)


def auction_messages(asked: AuctionBody) -> tuple[Message, ...]:
    """The conversation in a body, for its session; none where only its size was told."""
    if asked.prompt is not None:
        return (Message("user", (Text(asked.prompt),)),)
    return tuple(Message(_role(m.role), (Text(m.content),)) for m in asked.messages or ())


def _role(role: str) -> Role:
    return "assistant" if role == "assistant" else "system" if role == "system" else "user"


def auction_request(
    asked: AuctionBody, tenant: str, offers: OfferColumns, policy: KeyPolicy = ANYTHING
) -> BidRequest:
    """The request that a body asks for, within what the key may ask.

    Raises
    ------
    BadRequest
        The size of the prompt is not known, or a budget is stated.
    UnknownModel, ModelNotAllowed
    """
    meaning = meaning_of(asked.model, asked.models, offers)
    try:
        needs = Capability.from_names(asked.needs)
    except KeyError as error:
        known = ", ".join(c.name.lower() for c in Capability if c.name)
        raise BadRequest(
            f"unknown capability {error}", path="needs", remedy=f"choose from {known}"
        ) from error
    if asked.sla.budget is not None:
        raise BadRequest(
            "money is set aside for calls that the broker makes, and this is a decision alone",
            path="sla.budget",
            remedy="leave it out here, or let the broker make the call",
        )
    sla = merged_sla(asked.sla, policy.sla) or DEFAULT_SLA
    if Capability.EMBEDDINGS not in needs:
        needs |= Capability.CHAT
    sla = as_decided(sla)
    if policy.models or policy.sla is not None:
        sla = restricted(sla, policy, meaning.candidates, offers)
    return BidRequest(
        tenant=tenant,
        task=sla.task or meaning.task or UNNAMED_TASK,
        sla=sla,
        input_tokens=_input_tokens(asked),
        max_output_tokens=asked.max_output_tokens,
        needs=int(needs),
        candidates=meaning.candidates,
        features=asked.features,
    )


def auction_answer(decision_id: str, decision: Decision) -> dict[str, Any]:
    """The decision as the app sees it, money in dollars."""
    clearing = decision.clearing_price_nusd
    return {
        "decision_id": decision_id,
        "winner": None if decision.winner is None else decision.winner.offer,
        "ranked": [_bid(bid) for bid in decision.ranked],
        "clearing_price_usd": None if clearing is None else usd_from_nusd(clearing),
        "feasible": decision.feasible,
        "no_bids": decision.no_bids,
        "params_version": decision.params_version,
        "view": decision.view_number,
    }


def _bid(bid: Bid) -> dict[str, Any]:
    return {
        "offer": bid.offer,
        "cost_usd": usd_from_nusd(bid.cost_nusd),
        "score_usd": usd_from_nusd(bid.score_nusd),
        "p_good": bid.p_good,
        "p_on_time": bid.p_on_time,
    }


def _input_tokens(asked: AuctionBody) -> int:
    if asked.input_tokens is not None:
        return asked.input_tokens
    texts = [asked.prompt] if asked.prompt is not None else []
    texts += [m.content for m in asked.messages or ()]
    if not texts:
        raise BadRequest(
            "the size of the prompt is not known",
            path="input_tokens",
            remedy="give input_tokens, or prompt, or messages",
        )
    return sum(estimate_text_tokens(text) + 4 for text in texts)
