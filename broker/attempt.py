"""One call to one seller: opened, read until it shows something, then read on; recorded once.

How long it is waited for, `broker.attempt_clocks` says. Only events restart the gap, never mere
bytes: a seller that drips keep-alives, or one byte a second, is as silent as one that hangs.

`start` holds events back until there is visible output (or, for an app that does not stream,
until the end), so whoever called can still turn to another seller; what it held comes first out
of `more`. However an attempt ends, `AttemptRecord` leaves through `on_end` exactly once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from bidding.errors import BadRequest
from bidding.outcome import FailureClass
from broker.attempt_clocks import AttemptClocks
from broker.attempt_record import attempt_record, billed
from broker.handoff import readable
from broker.meter import Meter
from broker.order import Order
from broker.providers.base import Dialect, Reader, Seat, WireCall, malformed
from broker.providers.failures import MAX_ERROR_BYTES, retry_after_s
from broker.providers.secrets import masked
from broker.tracing import CallTrace
from broker.upstream import AttemptFailed, Reply, Upstream
from broker.wire.neutral import Event, Failed, Started, Usage, is_visible
from feeds.clock import Clock
from feeds.records import AttemptRecord


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
        clocks: AttemptClocks,
        upstream: Upstream,
        clock: Clock,
        may_reconnect: Callable[[], bool],
        gives_way: Callable[[], bool],
        on_end: Callable[[AttemptRecord], None],
        on_headers: Callable[[str, Mapping[str, str], float], None],
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
        self.gives_way = gives_way
        """Whether it is to be given up now for another; counts that as a retry if it is one."""
        self._on_end = on_end
        self._on_headers = on_headers
        self.clocks = clocks
        self._started_at_us = clock.now_us()
        self.meter = Meter(order.request, clocks.sent_ns)
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
                slow = too_slow is not None and too_slow(self, self._clock.monotonic_ns())
                if slow and self.gives_way():
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
        self.clocks.unseen = False
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
        return silent and self.clocks.overdue_in_ns <= 0

    @property
    def overdue_in_s(self) -> float:
        """Until it would be given up, were it not hedged."""
        return max(self.clocks.overdue_in_ns, 0) * 1e-9

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
        try:
            async with self.clocks.limited():
                self._reply = await self._sent(call)
        except TimeoutError:
            self._fail(Failed(failure=self.clocks.limit()[1], reason="no headers"))
            return
        except AttemptFailed as error:
            self._fail(Failed(failure=error.failure, reason=error.reason))
            return
        took_s = (self._clock.monotonic_ns() - self.clocks.sent_ns) * 1e-9
        self._on_headers(self.seat.offer.id, self._reply.headers, took_s)
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
        limit_ns, _ = self.clocks.limit()
        limit_ns = min(limit_ns, self._clock.monotonic_ns() + self.clocks.gap_ns)
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
        try:
            async with self.clocks.limited():
                piece = await reply.read()
        except TimeoutError:
            return self._fail(Failed(failure=self.clocks.limit()[1], reason="silence"))
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
            self.clocks.progressed(now_ns)
        last = events[-1]
        if isinstance(last, Failed):
            events[-1:] = self._fail(last)
        return [e for e in events if type(e) is not Usage] if self._at_eof else events

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
        self.usage = billed(
            self.meter,
            failure,
            answered=self._reader is not None,
            input_tokens=self.order.input_tokens,
        )
        record = attempt_record(
            self.order,
            self.seat,
            self.meter,
            self.usage,
            failed,
            attempt_id=self._id,
            n=self.n,
            started_at_us=self._started_at_us,
            total_ms=(end_ns - self.clocks.sent_ns) * 1e-6,
            streaming=self._stream,
            n_inflight=self._n_inflight,
            http_status=0 if self._reply is None else self._reply.status,
            hedge=self._hedge,
        )
        if self._trace is not None:
            self._trace.end(record)
        self.order.attempts.append(record)
        self._on_end(record)
