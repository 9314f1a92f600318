"""A conversation that fits no seller, shortened, where the key lets it: oldest turns first. Pure.

What tells the model who it is (leading system messages) and the turn that is asked about stay. A
turn goes whole, from a user's message to the next, so that no tool's result is left without its
call. Nothing is summarised: what was dropped is counted, and said.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from bidding.decision import NoBid
from bidding.gates import code_of
from bidding.params import Params
from bidding.request import BidRequest
from bidding.slate import slate_for
from bidding.view import MarketView
from broker.wire.neutral import Message, NeutralRequest
from broker.wire.tokens import estimate_tokens


class Trimmed(Struct, frozen=True, kw_only=True):
    """The shortened request, and what was dropped."""

    request: NeutralRequest
    n_messages: int
    n_tokens: int


def room_tokens(view: MarketView, asked: BidRequest, params: Params) -> int:
    """The longest prompt that an offer could take of those turned away for its length alone."""
    codes = slate_for(view, asked, params).codes
    windows = view.offers.context_window[codes == code_of(NoBid.CONTEXT_WINDOW)]
    if not len(windows):
        return 0
    return int(windows.max()) - (asked.max_output_tokens or 0)


def trimmed(request: NeutralRequest, room: int) -> Trimmed | None:
    """`request` without as many of its oldest turns as it takes to fit into `room` tokens.

    None where it fits already, or even the last turn alone does not.
    """
    whole = estimate_tokens(request)
    if whole <= room:
        return None
    messages = request.messages
    start = next((i for i, m in enumerate(messages) if m.role != "system"), len(messages))
    turns = [i for i in range(start, len(messages)) if _begins_turn(messages, i)]
    for first in turns[1:] if turns and turns[0] == start else turns:
        kept = msgspec.structs.replace(request, messages=(*messages[:start], *messages[first:]))
        n_tokens = estimate_tokens(kept)
        if n_tokens <= room:
            return Trimmed(request=kept, n_messages=first - start, n_tokens=whole - n_tokens)
    return None


def shortened(asked: BidRequest, cut: Trimmed) -> BidRequest:
    """What the auction is asked then. What was warm of the prompt began with what is gone."""
    return msgspec.structs.replace(
        asked,
        input_tokens=max(asked.input_tokens - cut.n_tokens, 0),
        incumbent_cached_tokens=0,
    )


def _begins_turn(messages: tuple[Message, ...], i: int) -> bool:
    return messages[i].role == "user" and (i == 0 or messages[i - 1].role != "user")
