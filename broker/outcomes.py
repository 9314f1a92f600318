"""What happened to a decision, as told by the app: `POST /v1/outcomes`, one object or NDJSON.

A quality score becomes feedback, completed here with the decision's offer, class, features and
propensity so that learners join nothing. An app that asked for a decision only and made the
call itself reports the attempt as well. A line that cannot be used becomes a dead letter with
its reason; the rest of the batch is kept. Each decision takes one score per source, once.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from bidding.errors import BadRequest
from bidding.outcome import FailureClass
from broker.recent import Flight
from broker.wire.json_guard import decode_strictly
from feeds.records import AttemptRecord, DecisionRecord, FeedbackRecord

MAX_LINES = 10_000
_Ms = Annotated[float, Meta(ge=0.0, le=86_400_000.0)]
_Tokens = Annotated[int, Meta(ge=0, le=1_000_000_000)]

VERDICT_ID = "vf_"
"""Begins the ids of scores that come from our own checks."""
TRUST = {"verifier": 1.0, "user": 0.7, "app": 0.7, "judge": 0.5}
"""How much a score from each source weighs against a verified one."""


class OutcomeLine(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line: `error` is a failure class; times are milliseconds."""

    decision_id: Annotated[str, Meta(min_length=1, max_length=64)]
    offer: str | None = None
    ttft_ms: _Ms | None = None
    latency_ms: _Ms | None = None
    input_tokens: _Tokens | None = None
    output_tokens: _Tokens | None = None
    error: FailureClass | None = None
    quality: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    source: Literal["user", "verifier", "judge", "app"] = "app"


_decoder = msgspec.json.Decoder(OutcomeLine)


def lines_of(body: bytes) -> list[bytes]:
    """The objects in a body: the whole of it, or a line each.

    Raises
    ------
    BadRequest
        Nothing in it, or more lines than are taken at once.
    """
    lines = [line for line in body.splitlines() if line.strip()]
    if not lines:
        raise BadRequest("the body is empty", remedy="send one JSON object, or one a line")
    if len(lines) > MAX_LINES:
        raise BadRequest(
            f"{len(lines)} lines in one body", remedy=f"send at most {MAX_LINES} lines at once"
        )
    try:
        if isinstance(msgspec.json.decode(body), dict):
            return [body]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    return lines


def decode_line(line: bytes) -> OutcomeLine:
    """One line, strictly. Raises `BadRequest` naming the path."""
    return decode_strictly(line, _decoder, OutcomeLine.__struct_fields__)


def feedback_of(line: OutcomeLine, flight: Flight, at_us: int) -> FeedbackRecord | None:
    """The quality score in a line, completed; None when it has none.

    Raises
    ------
    BadRequest
        Scored before from this source, or nothing was delivered that could be good.
    """
    if line.quality is None:
        return None
    decision = flight.decision
    offer = line.offer or decision.delivered_offer or (decision.winner if decision.only else None)
    if offer is None:
        raise BadRequest("nothing was delivered that could be scored", path="quality")
    if any(f.source == line.source and not is_verdict(f) for f in flight.feedback):
        raise BadRequest(
            f"this decision has its score from {line.source!r} already",
            path="decision_id",
            remedy="send each score once",
        )
    return FeedbackRecord(
        feedback_id=f"fb_{secrets.token_hex(12)}",
        decision_id=decision.decision_id,
        at_us=at_us,
        task=decision.task,
        tenant=decision.tenant,
        sla_class=decision.sla_class,
        offer=offer,
        model=(decision.delivered_model or "") if decision.cached_from else model_of(offer),
        quality=line.quality,
        source=line.source,
        features=decision.features,
        p_good=decision.p_good if decision.p_good is not None else _believed(decision, offer),
        propensity=decision.propensity,
        # The same answer served again is no new draw: its score is kept, and teaches nothing.
        weight=0.0 if decision.cached_from else TRUST[line.source],
        params_version=bought_under(decision, offer),
    )


def bought_under(decision: DecisionRecord, offer: str) -> int:
    """Version of the params that the answer of `offer` was bought and returned under, or -1."""
    bought = offer == decision.delivered_offer and not (decision.only or decision.cached_from)
    return decision.params_version if bought else -1


def is_verdict(score: FeedbackRecord) -> bool:
    """Whether a score comes from our own checks (`sla.verify`) rather than from the app."""
    return score.feedback_id.startswith(VERDICT_ID)


def attempt_of(line: OutcomeLine, flight: Flight, at_us: int) -> AttemptRecord | None:
    """The attempt an app made itself on a decision it only asked for; None when it says none.

    Raises
    ------
    BadRequest
        The offer named was not in the decision's ranking.
    """
    decision = flight.decision
    measured: tuple[Any, ...] = (line.ttft_ms, line.latency_ms, line.error, line.output_tokens)
    if not decision.only or all(value is None for value in measured):
        return None
    offer = line.offer or decision.winner
    if offer is None or offer not in {bid.offer for bid in decision.ranked}:
        raise BadRequest(
            f"offer {offer!r} is not one of the decision's",
            path="offer",
            remedy="name an offer that the decision ranked",
        )
    if flight.attempts:
        raise BadRequest("this decision has its attempt already", path="decision_id")
    failure = line.error or FailureClass.OK
    total_ms = line.latency_ms
    return AttemptRecord(
        attempt_id=f"{decision.decision_id}-1",
        decision_id=decision.decision_id,
        n=1,
        offer=offer,
        provider=offer.partition("/")[0],
        model=model_of(offer),
        task=decision.task,
        tenant=decision.tenant,
        sla_class=decision.sla_class,
        source="app",
        at_us=at_us,
        started_at_us=max(at_us - round((total_ms or 0.0) * 1000), 0),
        failure=failure,
        ttft_ms=line.ttft_ms,
        total_ms=total_ms,
        input_tokens=line.input_tokens or decision.input_tokens,
        output_tokens=line.output_tokens or 0,
        trust=0.5,
    )


def model_of(offer: str) -> str:
    """The canonical model in an offer id.

    Examples
    --------
    >>> model_of("azure/gpt-4o@eu")
    'gpt-4o'
    """
    return offer.partition("/")[2].partition("@")[0]


def _believed(decision: DecisionRecord, offer: str) -> float | None:
    return next((bid.p_good for bid in decision.ranked if bid.offer == offer), None)
