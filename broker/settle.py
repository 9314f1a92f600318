"""What is owed, and whether it was on time: pure, from an order and its attempts.

Every attempt is paid for, not only the one that was delivered. Times run from when the request
began, not from when the last seller was asked: an app does not care who was slow. A request
that failed was not on time.
"""

from __future__ import annotations

from msgspec import Struct

from bidding.outcome import FailureClass
from bidding.request import Sla
from broker.order import Order
from feeds.records import AttemptRecord, DecisionRecord


class Settlement(Struct, frozen=True, kw_only=True):
    """The delivered part of a flight record."""

    delivered_offer: str | None
    delivered_model: str | None
    n_attempts: int
    failure: FailureClass
    ttft_ms: float | None
    total_ms: float
    on_time: bool | None
    input_tokens: int
    output_tokens: int
    cost_nusd: int
    usage_estimated: bool

    @property
    def sla_word(self) -> str:
        """The `x-broker-sla` header, as far as it is about time."""
        return "missed" if self.on_time is False else "met"


def is_on_time(sla: Sla | None, ttft_ms: float | None, total_ms: float, ok: bool) -> bool | None:
    """Whether an answer kept its deadlines; None when there were none.

    Examples
    --------
    >>> is_on_time(Sla(ttft_ms=500), 300.0, 2000.0, ok=True)
    True
    """
    if sla is None or (sla.ttft_ms is None and sla.latency_ms is None):
        return None
    if not ok:
        return False
    first_ms = total_ms if ttft_ms is None else ttft_ms
    first_kept = sla.ttft_ms is None or first_ms <= sla.ttft_ms
    return first_kept and (sla.latency_ms is None or total_ms <= sla.latency_ms)


def settle(
    order: Order, *, ended_ns: int, first_ns: int | None = None, sla: Sla | None = None
) -> Settlement:
    """Close `order`, whose attempts have all ended.

    Parameters
    ----------
    ended_ns : int
        Monotonic, when the answer was complete or given up.
    first_ns : int or None
        Monotonic, when its first visible output went out (`Delivery.first_ns`). For an app that
        does not stream nothing goes out before the end, so it is ignored.
    sla : Sla or None
        What was asked; by default the request's own.
    """
    attempts = order.attempts
    last = _final(order)
    delivered = last if last is not None and last.failure is FailureClass.OK else None
    failure = FailureClass.SERVER_ERROR if last is None else last.failure
    if delivered is not None and delivered.attempt_id in order.rejected:
        delivered, failure = None, FailureClass.MALFORMED
    total_ms = (ended_ns - order.started_ns) * 1e-6
    ttft_ms = None
    if first_ns is not None and order.request.stream:
        ttft_ms = (first_ns - order.started_ns) * 1e-6
    asked = order.request.sla if sla is None else sla
    return Settlement(
        delivered_offer=None if delivered is None else delivered.offer,
        delivered_model=None if delivered is None else delivered.model,
        n_attempts=len(attempts),
        failure=failure,
        ttft_ms=ttft_ms,
        total_ms=total_ms,
        on_time=is_on_time(asked, ttft_ms, total_ms, delivered is not None),
        input_tokens=sum(a.input_tokens for a in attempts),
        output_tokens=0 if last is None else last.output_tokens,
        cost_nusd=sum(a.cost_nusd for a in attempts),
        usage_estimated=any(a.usage_estimated for a in attempts),
    )


def _final(order: Order) -> AttemptRecord | None:
    """The attempt that was delivered, else the last one made."""
    attempts = order.attempts
    for attempt in attempts:
        if attempt.failure is FailureClass.OK and attempt.attempt_id not in order.rejected:
            return attempt
    return max(attempts, key=lambda a: a.n) if attempts else None


def fill(record: DecisionRecord, settled: Settlement) -> DecisionRecord:
    """Write `settled` into the delivered part of `record`, in place; returns it."""
    record.delivered_offer = settled.delivered_offer
    record.delivered_model = settled.delivered_model
    record.n_attempts = settled.n_attempts
    record.failure = settled.failure
    record.ttft_ms = settled.ttft_ms
    record.total_ms = settled.total_ms
    record.on_time = settled.on_time
    record.input_tokens_billed = settled.input_tokens
    record.output_tokens = settled.output_tokens
    record.cost_nusd = settled.cost_nusd
    bid = next((b for b in record.ranked if b.offer == settled.delivered_offer), None)
    if bid is not None:
        record.p_good, record.p_on_time = bid.p_good, bid.p_on_time
    return record
