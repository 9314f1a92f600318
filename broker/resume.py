"""A stream that broke in mid-answer, continued by the runner-up: only where the app opted in.

Pure: what to ask whom. Plain text alone can be continued; tool calls, several choices, logprobs
and JSON formats cannot, since two halves by two models do not make one. The runner-up is shown
what has gone out already and asked to go on from there; nothing is sent twice by us.
"""

from __future__ import annotations

import msgspec

from bidding.outcome import FailureClass, tries_next_offer
from broker.order import Order
from broker.wire.neutral import Event, Message, NeutralRequest, Text, TextDelta

_GO_ON = "Your message was cut off. Go on exactly where it stops; repeat nothing of it."


def may_resume(request: NeutralRequest, events: list[Event]) -> bool:
    """Whether an answer of which `events` have gone out is plain text that the app lets go on."""
    asked = request.sla is not None and request.sla.resume
    plain = not (request.tools or request.response_format or request.logprobs or request.n > 1)
    return asked and plain and all(isinstance(e, TextDelta) for e in events)


def continuation(order: Order, sent: str, failed_offer: str, failure: FailureClass) -> Order | None:
    """The order that goes on after `sent`, at the next offer in the ranking; None without one.

    The attempts are the same list, so that the settlement covers both.
    """
    if not tries_next_offer(failure):
        return None
    tried = {attempt.offer for attempt in order.attempts} | {failed_offer}
    left = tuple(bid for bid in order.decision.ranked if bid.offer not in tried)
    if not left:
        return None
    request = order.request
    halves = (
        Message("assistant", (Text(sent.rstrip()),)),
        Message("user", (Text(_GO_ON),)),
    )
    return msgspec.structs.replace(
        order,
        decision=msgspec.structs.replace(order.decision, ranked=left),
        request=msgspec.structs.replace(request, messages=(*request.messages, *halves)),
        ttft_target_ns=None,
    )
