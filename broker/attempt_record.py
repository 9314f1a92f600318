"""What is written down of an attempt that has ended, and what it will be billed."""

from __future__ import annotations

import math

from bidding.market import PriceList
from bidding.outcome import CENSORED, FailureClass
from broker.meter import Meter
from broker.order import Order
from broker.providers.base import Seat
from broker.providers.quirks import quirks_of
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


def unseen_output(order: Order, seat: Seat, usage: Usage, *, streaming: bool) -> int:
    """Tokens that a seller may have written after we had hung up, as long as the answer was
    expected to be; 0 where it is known to stop with its stream.
    """
    if streaming and quirks_of(seat.provider).on_hang_up == "stops":
        return 0
    request = order.request
    if request.embedding is not None:
        return 0
    expected, most = order.output_tokens, request.max_output_tokens
    whole = (expected if most is None else min(expected, most)) * request.n
    return max(math.ceil(whole) - usage.output_tokens, 0)


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
    cost_nusd = _cost_nusd(prices, usage, usage.output_tokens)
    unseen_tokens = unseen_nusd = 0
    if failure in _BILLED_WHEN_CUT:
        unseen_tokens = unseen_output(order, seat, usage, streaming=streaming)
        # A call that nothing was heard of may have been read all the same.
        whole = usage if usage.input_tokens else Usage(input_tokens=order.input_tokens)
        if unseen_tokens or not streaming:
            most_nusd = _cost_nusd(prices, whole, usage.output_tokens + unseen_tokens)
            unseen_nusd = max(most_nusd - cost_nusd, 0)
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
        cost_nusd=cost_nusd,
        n_inflight=n_inflight,
        http_status=http_status,
        retry_after_s=None if failed is None else failed.retry_after_s,
        reason="" if failed is None else failed.reason,
        hedge=hedge,
        unseen_tokens=unseen_tokens,
        unseen_nusd=unseen_nusd,
    )


def _cost_nusd(prices: PriceList, usage: Usage, output_tokens: int) -> int:
    if not usage.input_tokens:
        return 0
    return prices.cost_nusd(
        usage.input_tokens,
        output_tokens,
        cached_tokens=usage.cached_tokens,
        written_tokens=usage.written_tokens,
    )
