"""One call to one seller: opened, read until it shows something, then read on; recorded once.

An attempt has four clocks, all inside the request's hard deadline: connecting (the client's),
the first token, the gap between events, and the total. Only events restart the gap, never mere
bytes: a seller that drips keep-alives, or one byte a second, is as silent as one that hangs.

`start` holds events back until there is visible output (or, for an app that does not stream,
until the end), so whoever called can still turn to another seller; what it held comes first out
of `more`. However an attempt ends, `AttemptRecord` leaves through `on_end` exactly once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from msgspec import Struct, field

from bidding.decision import Decision
from bidding.errors import BadRequest
from bidding.market import PriceList
from bidding.outcome import CENSORED, FailureClass
from broker.handoff import readable
from broker.meter import Meter
from broker.providers.base import Dialect, Reader, Seat, WireCall, malformed
from broker.providers.failures import MAX_ERROR_BYTES, retry_after_s
from broker.providers.secrets import masked
from broker.tracing import CallTrace, RequestTrace
from broker.upstream import AttemptFailed, Reply, Upstream
from broker.wire.neutral import Event, Failed, NeutralRequest, Started, Usage, is_visible
from feeds.clock import Clock
from feeds.records import AttemptRecord, Source

_BILLED_WHEN_CUT = {
    FailureClass.TIMEOUT_TTFT,
    FailureClass.TIMEOUT_GAP,
    FailureClass.TIMEOUT_TOTAL,
    FailureClass.CANCELLED,
    FailureClass.HEDGE_LOST,
}


class Order(Struct, kw_only=True):
    """A decided request on its way to sellers.

    Attributes
    ----------
    deadline_ns : int
        Monotonic; ends the request whatever happens.
    ttft_target_ns, latency_target_ns : int or None
        Monotonic; the SLA's, which may be missed: they steer timeouts and fallback.
    input_tokens, output_tokens : int, float
        Our estimate of the prompt, and the expected length of the answer.
    history_family : str or None
        Family of models that wrote the reasoning in the history; others are not shown it.
    prices : dict of str to PriceList
        What each offer that bid asked when it was decided; what is owed goes by it.
    attempts : list of AttemptRecord
        Filled as attempts end, whatever becomes of the request.
    rejected : list of str
        Ids of attempts whose answer came whole and failed its check.
    """

    decision_id: str
    decision: Decision
    request: NeutralRequest
    tenant: str
    task: str
    sla_class: str
    started_ns: int
    deadline_ns: int
    input_tokens: int
    output_tokens: float = 256.0
    ttft_target_ns: int | None = None
    latency_target_ns: int | None = None
    source: Source = "gateway"
    hedge: bool = False
    history_family: str | None = None
    attempts: list[AttemptRecord] = field(default_factory=list)
    trace: RequestTrace | None = None
    rejected: list[str] = field(default_factory=list)
    prices: dict[str, PriceList] = field(default_factory=dict)


def on_grid(ms: float) -> float:
    """A duration as it is written down: to a 1,024th of a millisecond.

    Clocks are not better than that, and such numbers have few bits: half the bytes in the store.

    Examples
    --------
    >>> on_grid(523.4)
    523.400390625
    """
    return round(ms * 1024.0) / 1024.0


class Attempt:
    """One call; see the module's docstring for its life."""

    def __init__(
        self,
        order: Order,
        seat: Seat,
        dialect: Dialect,
        *,
        attempt_id: str,
        n: int,
        n_inflight: int,
        hedge: bool,
        stream: bool,
        first_token_ms: float,
        overdue_ms: float,
        gap_ms: float,
        upstream: Upstream,
        clock: Clock,
        may_reconnect: Callable[[], bool],
        on_end: Callable[[AttemptRecord], None],
        on_headers: Callable[[str, Mapping[str, str]], None],
    ) -> None:
        self.order = order
        self.seat = seat
        self.n = n
        self._id = attempt_id
        self.failed: Failed | None = None
        self.usage: Usage | None = None
        self._dialect = dialect
        self._n_inflight = n_inflight
        self._hedge = hedge
        self._stream = stream
        self._upstream = upstream
        self._clock = clock
        self._may_reconnect = may_reconnect
        self._on_end = on_end
        self._on_headers = on_headers
        self._sent_ns = clock.monotonic_ns()
        self._started_at_us = clock.now_us()
        self._first_by_ns = self._sent_ns + round(first_token_ms * 1e6)
        self._overdue_ns = self._sent_ns + round(overdue_ms * 1e6)
        self._gap_ns = round(gap_ms * 1e6)
        self._progress_ns: int | None = None
        self.meter = Meter(order.request, self._sent_ns)
        self._reply: Reply | None = None
        self._reader: Reader | None = None
        self._held: list[Event] = []
        self._losing = False
        self._ended = False
        self._at_eof = False
        self._usage_told = False
        self._trace: CallTrace | None = None

    async def start(
        self, *, whole: bool, too_slow: Callable[[Attempt, int], bool] | None = None
    ) -> Failed | None:
        """Read until there is visible output, or with `whole` to the end.

        Parameters
        ----------
        too_slow : callable or None
            Asked with this attempt and the time after every batch nobody has seen yet.

        Returns
        -------
        Failed or None
            How it failed; None when it may be delivered.
        """
        try:
            await self._open()
            while not self._at_eof:
                events = await self._batch()
                self._held.extend(events)
                if self.failed is not None:
                    break
                if not whole and any(is_visible(e, self.order.request) for e in events):
                    return None
                if too_slow is not None and too_slow(self, self._clock.monotonic_ns()):
                    self._fail(Failed(failure=FailureClass.TIMEOUT_GAP, reason="too slow"))
                    break
        except asyncio.CancelledError:
            self.hang_up()
            raise
        if self.failed is not None:
            return self.failed
        self.finish()
        return None

    async def more(self) -> list[Event]:
        """The next events, those held back first; empty at the end. A failure comes as the
        last event, and an answer cut short never ends cleanly; one that ended well closes with
        what is billed, whether the seller said so or we counted.
        """
        if self._held:
            held, self._held = self._held, []
            return held
        try:
            while not self._at_eof and self.failed is None:
                events = await self._batch()
                if events:
                    return events
        except asyncio.CancelledError:
            self.hang_up()
            raise
        self.finish()
        if self.failed is None and self.usage is not None and not self._usage_told:
            self._usage_told = True
            return [self.usage]
        return []

    def lose(self) -> None:
        """The other of two hedged attempts has won; being cancelled now is not the app's doing.

        One that should have shown something by now has timed out, hedged or not: a seller that
        hangs must not go unnoticed because another was asked meanwhile.
        """
        self._losing = True
        if not self._ended and self.is_overdue:
            self.give_up("hedge won")

    @property
    def is_overdue(self) -> bool:
        """Whether it has shown nothing and, unhedged, would have been given up by now."""
        silent = self.meter.first_ns is None
        return silent and self._clock.monotonic_ns() >= self._overdue_ns

    @property
    def overdue_in_s(self) -> float:
        """Until it would be given up, were it not hedged."""
        return max(self._overdue_ns - self._clock.monotonic_ns(), 0) * 1e-9

    def give_up(self, reason: str) -> Failed:
        """End it as one that showed nothing in time; whoever runs `start` cancels that."""
        self._fail(Failed(failure=FailureClass.TIMEOUT_TTFT, reason=reason))
        assert self.failed is not None
        return self.failed

    def hang_up(self) -> None:
        """End the call now, wherever it is."""
        if not self._ended:
            lost = FailureClass.HEDGE_LOST if self._losing else FailureClass.CANCELLED
            self._end(Failed(failure=lost, reason=""))

    def finish(self) -> None:
        """Close an attempt that came to its end."""
        if not self._ended:
            self._end(self.failed)

    async def _open(self) -> None:
        request, family = self.order.request, self.order.history_family
        if family and self.seat.model is not None and self.seat.model.family != family:
            request = readable(request)
        try:
            call = self._dialect.build(request, self.seat, stream=self._stream)
        except BadRequest as error:
            self._fail(
                Failed(failure=FailureClass.REFUSED, reason="not expressible", message=str(error))
            )
            return
        if self.order.trace is not None:
            self._trace = self.order.trace.call(self.seat, self.n, hedge=self._hedge)
            self._trace.inject(call.headers)
        limit_ns, late = self._limit()
        try:
            async with asyncio.timeout(max(limit_ns - self._clock.monotonic_ns(), 0) * 1e-9):
                self._reply = await self._sent(call)
        except TimeoutError:
            self._fail(Failed(failure=late, reason="no headers"))
            return
        except AttemptFailed as error:
            self._fail(Failed(failure=error.failure, reason=error.reason))
            return
        self._on_headers(self.seat.offer.id, self._reply.headers)
        if 200 <= self._reply.status < 300 and self._reply.status != 204:
            self._choose_reader(self._reply)
        else:
            await self._refusal(self._reply)

    async def _sent(self, call: WireCall) -> Reply:
        """The answer's headers; an idle connection that proves dead is replaced once."""
        try:
            return await self._upstream.call(call, self.seat.provider)
        except AttemptFailed as error:
            if not (error.stale and self._may_reconnect()):
                raise
        return await self._upstream.call(call, self.seat.provider)

    def _choose_reader(self, reply: Reply) -> None:
        """By what the seller says it sends, rather than by what was asked for."""
        kind = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "application/json" or kind.endswith("+json"):
            self._reader = self._dialect.reader(stream=False, seat=self.seat)
        elif kind == "text/event-stream":
            self._reader = self._dialect.reader(stream=True, seat=self.seat)
        elif kind in ("", "text/plain", "application/octet-stream") or "eventstream" in kind:
            self._reader = self._dialect.reader(stream=self._stream, seat=self.seat)
        else:
            self._fail(malformed("content-type"))

    async def _refusal(self, reply: Reply) -> None:
        body = bytearray()
        wait = retry_after_s(reply.headers, self._clock.now_us() * 1e-6)
        limit_ns, _ = self._limit()
        limit_ns = min(limit_ns, self._clock.monotonic_ns() + self._gap_ns)
        try:
            async with asyncio.timeout(max(limit_ns - self._clock.monotonic_ns(), 0) * 1e-9):
                while len(body) < MAX_ERROR_BYTES:
                    piece = await reply.read()
                    if not piece:
                        break
                    body += piece
        except (TimeoutError, AttemptFailed):
            body.clear()
        self._fail(
            self._dialect.refusal(reply.status, bytes(body[:MAX_ERROR_BYTES]), wait, self.seat)
        )

    async def _batch(self) -> list[Event]:
        """The events in the next piece of the body; sets `failed` or `_at_eof` as it must."""
        reply, reader = self._reply, self._reader
        if self.failed is not None or reply is None or reader is None:
            self._at_eof = True
            return []
        limit_ns, late = self._limit()
        try:
            async with asyncio.timeout(max(limit_ns - self._clock.monotonic_ns(), 0) * 1e-9):
                piece = await reply.read()
        except TimeoutError:
            return self._fail(Failed(failure=late, reason="silence"))
        except AttemptFailed as error:
            return self._cut(reader, error)
        if piece:
            events = reader.feed(piece)
            self._at_eof = reader.done
        else:
            events = reader.close()
            self._at_eof = True
        return self._observed(events)

    def _cut(self, reader: Reader, error: AttemptFailed) -> list[Event]:
        """The connection broke; the answer may have been complete all the same."""
        self._at_eof = True
        events = reader.close()
        if events and isinstance(events[-1], Failed):
            events[-1] = Failed(failure=error.failure, reason=error.reason)
        return self._observed(events)

    def _observed(self, events: list[Event]) -> list[Event]:
        if not events:
            return events
        now_ns = self._clock.monotonic_ns()
        self.meter.observe(events, now_ns)
        if not (len(events) == 1 and isinstance(events[0], Started)):
            self._progress_ns = now_ns
        last = events[-1]
        if isinstance(last, Failed):
            events[-1:] = self._fail(last)
        return [e for e in events if type(e) is not Usage] if self._at_eof else events

    def _limit(self) -> tuple[int, FailureClass]:
        """Until when to wait for the next thing, and what it is called if it does not come."""
        hard = self.order.deadline_ns
        if self._progress_ns is None:
            late, limit = FailureClass.TIMEOUT_TTFT, self._first_by_ns
        else:
            late, limit = FailureClass.TIMEOUT_GAP, self._progress_ns + self._gap_ns
        if hard < limit:
            return hard, FailureClass.TIMEOUT_TOTAL if self._progress_ns else late
        return limit, late

    def _fail(self, failed: Failed) -> list[Event]:
        if self.failed is None:
            self.failed = failed = masked(failed, self.seat.key)
            self._end(failed)
        return [self.failed]

    def _end(self, failed: Failed | None) -> None:
        if self._ended:
            return
        self._ended = True
        if self._reply is not None:
            self._reply.close()
        end_ns = self._clock.monotonic_ns()
        failure = FailureClass.OK if failed is None else failed.failure
        usage = self.usage = self._usage(failure)
        seat, order = self.seat, self.order
        total_ms = (end_ns - self._sent_ns) * 1e-6
        record = AttemptRecord(
            attempt_id=self._id,
            decision_id=order.decision_id,
            n=self.n,
            offer=seat.offer.id,
            provider=seat.provider.id,
            model=seat.offer.model,
            task=order.task,
            tenant=order.tenant,
            sla_class=order.sla_class,
            source=order.source,
            at_us=self._started_at_us + round(total_ms * 1e3),
            started_at_us=self._started_at_us,
            failure=failure,
            streaming=self._stream,
            ttft_ms=None if self.meter.ttft_ms is None else on_grid(self.meter.ttft_ms),
            total_ms=on_grid(total_ms) if failure is FailureClass.OK else None,
            waited_ms=on_grid(total_ms) if failure in CENSORED else None,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cached_tokens=usage.cached_tokens,
            usage_estimated=usage.estimated,
            cost_nusd=order.prices.get(seat.offer.id, seat.offer.prices).cost_nusd(
                usage.input_tokens,
                usage.output_tokens,
                cached_tokens=usage.cached_tokens,
                written_tokens=usage.written_tokens,
            )
            if usage.input_tokens
            else 0,
            n_inflight=self._n_inflight,
            http_status=self._reply.status if self._reply is not None else 0,
            retry_after_s=None if failed is None else failed.retry_after_s,
            reason="" if failed is None else failed.reason,
            hedge=self._hedge,
        )
        if self._trace is not None:
            self._trace.end(record)
        order.attempts.append(record)
        self._on_end(record)

    def _usage(self, failure: FailureClass) -> Usage:
        """What this attempt will be billed.

        A seller that refuses, or breaks before it has written, bills nothing. One that had
        answered 200 when we left, or that wrote something, bills the prompt and what it wrote.
        """
        if failure is not FailureClass.OK:
            answered = self._reader is not None
            cut = failure in _BILLED_WHEN_CUT and answered
            if not cut and self.meter.n_events == 0:
                return Usage()
        return self.meter.usage(self.order.input_tokens)
