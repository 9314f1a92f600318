"""What is written down of an attempt that has ended, and what it will be billed."""

from __future__ import annotations

from bidding.outcome import CENSORED, FailureClass
from broker.meter import Meter
from broker.order import Order
from broker.providers.base import Seat
from broker.wire.neutral import Failed, Usage
from feeds.records import AttemptRecord

_BILLED_WHEN_CUT = {
    FailureClass.TIMEOUT_TTFT,
    FailureClass.TIMEOUT_GAP,
    FailureClass.TIMEOUT_TOTAL,
    FailureClass.CANCELLED,
    FailureClass.HEDGE_LOST,
}


def on_grid(ms: float) -> float:
    """A duration as it is written down: to a 1,024th of a millisecond.

    Clocks are not better than that, and such numbers have few bits: half the bytes in the store.

    Examples
    --------
    >>> on_grid(523.4)
    523.400390625
    """
    return round(ms * 1024.0) / 1024.0


def billed(meter: Meter, failure: FailureClass, *, answered: bool, input_tokens: int) -> Usage:
    """What an attempt will be billed.

    A seller that refuses, or breaks before it has written, bills nothing. One that had
    `answered` 200 when we left, or that wrote something, bills the prompt and what it wrote.
    """
    if failure is not FailureClass.OK:
        cut = failure in _BILLED_WHEN_CUT and answered
        if not cut and meter.n_events == 0:
            return Usage()
    return meter.usage(input_tokens)


def attempt_record(
    order: Order,
    seat: Seat,
    meter: Meter,
    usage: Usage,
    failed: Failed | None,
    *,
    attempt_id: str,
    n: int,
    started_at_us: int,
    total_ms: float,
    streaming: bool,
    n_inflight: int,
    http_status: int,
    hedge: bool,
) -> AttemptRecord:
    """The `n`th call of `order`, at `seat`, as the log has it; `failed` is None where all went
    well, `http_status` 0 where there was no reply.
    """
    failure = FailureClass.OK if failed is None else failed.failure
    prices = order.prices.get(seat.offer.id, seat.offer.prices)
    return AttemptRecord(
        attempt_id=attempt_id,
        decision_id=order.decision_id,
        n=n,
        offer=seat.offer.id,
        provider=seat.provider.id,
        model=seat.offer.model,
        task=order.task,
        tenant=order.tenant,
        sla_class=order.sla_class,
        source=order.source,
        at_us=started_at_us + round(total_ms * 1e3),
        started_at_us=started_at_us,
        failure=failure,
        streaming=streaming,
        ttft_ms=None if meter.ttft_ms is None else on_grid(meter.ttft_ms),
        total_ms=on_grid(total_ms) if failure is FailureClass.OK else None,
        waited_ms=on_grid(total_ms) if failure in CENSORED else None,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cached_tokens,
        usage_estimated=usage.estimated,
        cost_nusd=prices.cost_nusd(
            usage.input_tokens,
            usage.output_tokens,
            cached_tokens=usage.cached_tokens,
            written_tokens=usage.written_tokens,
        )
        if usage.input_tokens
        else 0,
        n_inflight=n_inflight,
        http_status=http_status,
        retry_after_s=None if failed is None else failed.retry_after_s,
        reason="" if failed is None else failed.reason,
        hedge=hedge,
    )
