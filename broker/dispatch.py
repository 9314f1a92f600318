"""A decision into attempts into events: down the ranking until a seller delivers.

Never back to the auction: what is tried, and in which order, the decision has said; how long
and whether to go on, `bidding.fallback` says. For an app that streams, the first visible event
commits the request to that seller: after it there is an answer or an error, never a second
seller's words. For one that does not, nothing is committed until the answer is whole.

    dispatcher = Dispatcher(upstream=…, seats=…, forecasts=…, settings=…, clock=…, rng=…,
                            on_attempt=…)
    delivery = await dispatcher.run(order)              # delivery.answer, whole
    async with await dispatcher.open(order) as delivery:
        async for events in delivery:                   # list[Event] per piece, Failed last
            …

Both raise `BadRequest` (the app's fault), `DeadlineExceeded` or `SellersFailed`; whatever
happens, `order.attempts` holds every attempt's record. Cancelling the caller's task, or leaving
the `async with`, ends the seller's call at once.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Annotated, Self

from msgspec import Meta, Struct, field

from bidding.errors import BadRequest
from bidding.fallback import (
    Aim,
    Budget,
    Candidate,
    Forecast,
    Standings,
    Stop,
    StopReason,
    Try,
    WaitRules,
    first_token_timeout_ms,
    gap_timeout_ms,
    hedge_after_ms,
    is_too_slow,
    next_step,
)
from bidding.outcome import CENSORED, FailureClass
from broker.attempt import Attempt, Order
from broker.errors import DeadlineExceeded, SellersFailed
from broker.providers.base import Seat
from broker.providers.dialects import dialect_of
from broker.upstream import Upstream
from broker.wire.neutral import Answer, Event, Failed, Usage, collect
from feeds.clock import Clock
from feeds.records import AttemptRecord

_PATIENT = 4.0
"""How much longer an offer may keep us waiting when the runner-up is asked meanwhile."""
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
_APPS_FAULT = {FailureClass.BAD_REQUEST, FailureClass.CONTEXT_TOO_LONG, FailureClass.REFUSED}


class DispatchSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How calls are made.

    `gap_ms` is the longest silence within an answer; less, though not below `least_gap_ms`, where
    an offer's own pace or the deadline say so. `stream_upstream` asks sellers to stream
    even when the app does not, so that a hang shows at the first token, not at the deadline.
    `failing_share` bounds attempts at sellers whose last attempt failed, per request;
    `same_offer_share` repeats at the same seller; `hedge_share` hedges.
    """

    wait: WaitRules = field(default_factory=WaitRules)
    gap_ms: Annotated[float, Meta(gt=0, le=600_000)] = 10_000.0
    least_gap_ms: Annotated[float, Meta(gt=0, le=600_000)] = 1_000.0
    stream_upstream: bool = True
    failing_share: Share = 0.1
    failing_burst: Annotated[float, Meta(ge=1.0)] = 10.0
    same_offer_share: Share = 0.1
    same_offer_burst: Annotated[float, Meta(ge=1.0)] = 5.0
    hedge: bool = True
    hedge_share: Share = 0.05
    hedge_burst: Annotated[float, Meta(ge=1.0)] = 5.0
    max_busy_s: Annotated[float, Meta(gt=0)] = 60.0


class Delivery:
    """What one seller delivers. Iterate for batches of events; leaving it ends the call."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self.seat = attempt.seat
        self.answer: Answer | None = None

    @property
    def failed(self) -> Failed | None:
        """How the answer broke off after it had begun; None while it has not."""
        return self._attempt.failed

    @property
    def usage(self) -> Usage:
        """What is billed, once it has ended."""
        return self._attempt.usage or Usage()

    @property
    def ttft_ms(self) -> float | None:
        """From this seller's call to its first visible output."""
        return self._attempt.meter.ttft_ms

    @property
    def first_ns(self) -> int | None:
        """Monotonic moment of the first visible output."""
        return self._attempt.meter.first_ns

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[Event]:
        events = await self._attempt.more()
        if not events:
            raise StopAsyncIteration
        return events

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._attempt.hang_up()


class Dispatcher:
    """Makes the calls of one process, and keeps what spans requests: budgets, concurrency at
    each seller, who asked to be left alone, whose last attempt failed.

    Parameters
    ----------
    seats : callable
        Offer id to the seat as the catalogue has it now; None when it is gone.
    forecasts : callable
        Offer id to what is believed of it now; None when nothing is.
    rng : Random
        For jitter alone.
    on_attempt : callable
        Takes each attempt's record as it ends; must not block.
    on_sent : callable
        Takes the offer's id as each call goes out.
    on_headers : callable
        Takes the offer's id and the headers of each answer, good or bad.
    """

    def __init__(
        self,
        *,
        upstream: Upstream,
        seats: Callable[[str], Seat | None],
        forecasts: Callable[[str], Forecast | None],
        settings: DispatchSettings,
        clock: Clock,
        rng: random.Random,
        on_attempt: Callable[[AttemptRecord], None],
        on_sent: Callable[[str], None] = lambda _: None,
        on_headers: Callable[[str, Mapping[str, str]], None] = lambda _o, _h: None,
    ) -> None:
        self._upstream = upstream
        self._seats = seats
        self._forecasts = forecasts
        self._settings = settings
        self._clock = clock
        self._rng = rng
        self._on_attempt = on_attempt
        self._on_sent = on_sent
        self._on_headers = on_headers
        self._offer_inflight: dict[str, int] = {}
        self._provider_inflight: dict[str, int] = {}
        self._busy_until_ns: dict[str, int] = {}
        self._standings = Standings()
        s = settings
        self._failing = Budget(s.failing_share, s.failing_burst)
        self._same_offer = Budget(s.same_offer_share, s.same_offer_burst)
        self._hedges = Budget(s.hedge_share, s.hedge_burst)

    @property
    def n_inflight(self) -> int:
        """Calls open now."""
        return sum(self._provider_inflight.values())

    def forecast(self, offer: str) -> Forecast | None:
        """What is believed of an offer's next call now."""
        return self._forecasts(offer)

    async def run(self, order: Order) -> Delivery:
        """The whole answer, from the first seller that completes one."""
        attempt = await self._won(order, whole=True)
        delivery = Delivery(attempt)
        events: list[Event] = []
        async for batch in delivery:
            events.extend(batch)
        delivery.answer = collect(events)
        delivery.answer.usage = delivery.usage
        return delivery

    async def open(self, order: Order) -> Delivery:
        """The first seller that shows visible output, ready to be read on."""
        return Delivery(await self._won(order, whole=False))

    async def _won(self, order: Order, *, whole: bool) -> Attempt:
        for budget in (self._failing, self._same_offer, self._hedges):
            budget.earn()
        seats = self._seated(order)
        ended: list[tuple[str, FailureClass]] = []
        waiting: set[str] = set()
        last: Failed | None = None
        while True:
            step = self._next(order, seats, ended, waiting)
            if isinstance(step, Stop):
                raise self._defeat(order, ended, last, step)
            if step.delay_ms:
                self._same_offer.spend()
                await asyncio.sleep(step.delay_ms * 1e-3)
            attempt, last = await self._attempt(order, seats, step.place, ended, whole=whole)
            if last is None:
                return attempt

    async def _attempt(
        self,
        order: Order,
        seats: list[Seat],
        place: int,
        ended: list[tuple[str, FailureClass]],
        *,
        whole: bool,
    ) -> tuple[Attempt, Failed | None]:
        hedge_ms = self._hedge_ms(order, seats, place, ended)
        patient = hedge_ms is not None
        first = self._begin(order, seats, place, ended, whole=whole, patient=patient)
        watch = self._too_slow(order, seats, place) if whole else None
        if hedge_ms is None:
            failed = await first.start(whole=whole, too_slow=watch)
            if failed is not None:
                self._note(first, failed, ended)
            return first, failed
        return await self._race(order, seats, first, hedge_ms, ended, whole=whole)

    async def _race(
        self,
        order: Order,
        seats: list[Seat],
        first: Attempt,
        hedge_ms: float,
        ended: list[tuple[str, FailureClass]],
        *,
        whole: bool,
    ) -> tuple[Attempt, Failed | None]:
        """`first`, and after `hedge_ms` of silence the next best as well: whoever is first.

        Where nobody may be asked as well, `first` is given up when it would be without hedging.
        """
        running = {asyncio.ensure_future(first.start(whole=whole)): first}
        timeout: float | None = hedge_ms * 1e-3
        denied = False
        last: tuple[Attempt, Failed | None] | None = None
        try:
            while running:
                done, _ = await asyncio.wait(
                    running, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    timeout = None
                    if first.meter.first_ns is not None:
                        continue
                    if denied:
                        given_up = first.give_up("silence")
                        self._note(first, given_up, ended)
                        return first, given_up
                    waiting = {a.seat.offer.id for a in running.values()}
                    step = self._next(order, seats, ended, waiting)
                    if isinstance(step, Try) and not step.delay_ms and self._hedges.allows():
                        self._hedges.spend()
                        second = self._begin(
                            order, seats, step.place, ended, whole=whole, hedge=True
                        )
                        running[asyncio.ensure_future(second.start(whole=whole))] = second
                    else:
                        denied, timeout = True, first.overdue_in_s
                for task in done:
                    attempt = running.pop(task)
                    failed = task.result()
                    last = (attempt, failed)
                    if failed is None:
                        return last
                    self._note(attempt, failed, ended)
        finally:
            for task, attempt in running.items():
                if last is not None and last[1] is None:
                    attempt.lose()
                task.cancel()
            if running:
                await asyncio.gather(*running, return_exceptions=True)
            for attempt in running.values():
                attempt.hang_up()
        if last is None:
            raise SellersFailed([])
        return last

    def _seated(self, order: Order) -> list[Seat]:
        seats = (self._seats(bid.offer) for bid in order.decision.ranked)
        return [seat for seat in seats if seat is not None]

    def _next(
        self,
        order: Order,
        seats: list[Seat],
        ended: list[tuple[str, FailureClass]],
        waiting: set[str],
    ) -> Try | Stop:
        now_ns = self._clock.monotonic_ns()
        return next_step(
            [self._candidate(seat, now_ns) for seat in seats],
            ended,
            remaining_ms=(order.deadline_ns - now_ns) * 1e-6,
            budget_allows=self._failing.allows(),
            same_offer_allows=self._same_offer.allows(),
            rules=self._settings.wait,
            jitter=self._rng.random(),
            waiting=waiting,
        )

    def _candidate(self, seat: Seat, now_ns: int) -> Candidate:
        offer = seat.offer.id
        busy_ms = 0.0
        if self._busy_until_ns:
            until = self._busy_until_ns.get(offer, 0)
            if until > now_ns:
                busy_ms = (until - now_ns) * 1e-6
            elif until:
                del self._busy_until_ns[offer]
        provider = seat.provider
        open_calls = self._provider_inflight.get(provider.id, 0)
        full = open_calls >= provider.limit_concurrency
        n_out = self._offer_inflight.get(offer, 0)
        return Candidate(offer, self._standings.good(offer), full, busy_ms, n_out)

    def _begin(
        self,
        order: Order,
        seats: list[Seat],
        place: int,
        ended: list[tuple[str, FailureClass]],
        *,
        whole: bool,
        hedge: bool = False,
        patient: bool = False,
    ) -> Attempt:
        """Take a place at a seller. A `patient` attempt will be hedged rather than given up."""
        seat = seats[place]
        offer, provider = seat.offer.id, seat.provider.id
        stream = self._streams(order, seat)
        aim = self._aim(order)
        own = self._forecasts(offer)
        runner_up = self._runner_up(seats, place, ended)
        wait_ms = first_token_timeout_ms(
            own,
            None if runner_up is None else self._forecasts(runner_up),
            aim,
            self._settings.wait,
            alone=runner_up is None,
        )
        if not stream:
            writing = 0.0 if own is None else own.writing_ms(3.0 * order.output_tokens)
            wait_ms = min(wait_ms + writing, aim.hard_ms) if own is not None else aim.hard_ms
        overdue_ms = wait_ms
        if patient:
            wait_ms = min(wait_ms * _PATIENT, aim.hard_ms)
        n_inflight = self._offer_inflight.get(offer, 0)
        self._offer_inflight[offer] = n_inflight + 1
        self._provider_inflight[provider] = self._provider_inflight.get(provider, 0) + 1
        self._on_sent(offer)
        return Attempt(
            order,
            seat,
            dialect_of(seat, order.request),
            n=len(order.attempts) + 1 + (1 if hedge else 0),
            n_inflight=n_inflight,
            hedge=hedge,
            stream=stream,
            first_token_ms=wait_ms,
            overdue_ms=overdue_ms,
            gap_ms=gap_timeout_ms(
                own if stream else None,
                aim,
                most_ms=self._settings.gap_ms,
                least_ms=min(self._settings.least_gap_ms, self._settings.gap_ms),
                unseen=whole and stream and runner_up is not None,
            ),
            upstream=self._upstream,
            clock=self._clock,
            may_reconnect=self._may_reconnect,
            on_end=self._ended,
            on_headers=self._on_headers,
        )

    def _may_reconnect(self) -> bool:
        allowed = self._same_offer.allows()
        if allowed:
            self._same_offer.spend()
        return allowed

    def _streams(self, order: Order, seat: Seat) -> bool:
        if order.request.stream or order.request.embedding is not None:
            return order.request.stream
        able = seat.model is None or "streaming" in seat.model.capabilities
        return self._settings.stream_upstream and able

    def _aim(self, order: Order) -> Aim:
        now_ns = self._clock.monotonic_ns()
        ttft, latency = order.ttft_target_ns, order.latency_target_ns
        return Aim(
            hard_ms=(order.deadline_ns - now_ns) * 1e-6,
            ttft_ms=None if ttft is None else (ttft - now_ns) * 1e-6,
            latency_ms=None if latency is None else (latency - now_ns) * 1e-6,
            n_tokens=order.output_tokens,
        )

    def _runner_up(
        self, seats: list[Seat], place: int, ended: list[tuple[str, FailureClass]]
    ) -> str | None:
        """Who would be asked next; None when nobody is left who could be."""
        tried = {offer for offer, _ in ended}
        now_ns = self._clock.monotonic_ns()
        for i, seat in enumerate(seats):
            if i == place or seat.offer.id in tried:
                continue
            candidate = self._candidate(seat, now_ns)
            if candidate.good_standing and not candidate.full and not candidate.busy_ms:
                return seat.offer.id
        return None

    def _hedge_ms(
        self,
        order: Order,
        seats: list[Seat],
        place: int,
        ended: list[tuple[str, FailureClass]],
    ) -> float | None:
        if not (self._settings.hedge and order.hedge and self._hedges.allows()):
            return None
        own = self._forecasts(seats[place].offer.id)
        runner_up = self._runner_up(seats, place, ended)
        other = None if runner_up is None else self._forecasts(runner_up)
        if own is None or other is None:
            return None
        aim = self._aim(order)
        patience_ms = first_token_timeout_ms(own, other, aim, self._settings.wait)
        early_ms = hedge_after_ms(own, other, aim)
        return patience_ms if early_ms is None else min(early_ms, patience_ms)

    def _too_slow(
        self, order: Order, seats: list[Seat], place: int
    ) -> Callable[[Attempt, int], bool] | None:
        if order.latency_target_ns is None:
            return None
        aim = Aim(
            hard_ms=(order.deadline_ns - order.started_ns) * 1e-6,
            latency_ms=(order.latency_target_ns - order.started_ns) * 1e-6,
            n_tokens=order.output_tokens,
        )

        def too_slow(attempt: Attempt, now_ns: int) -> bool:
            meter = attempt.meter
            if meter.first_ns is None or meter.n_events < 4:
                return False
            runner_up = self._runner_up(seats, place, [])
            return is_too_slow(
                elapsed_ms=(now_ns - order.started_ns) * 1e-6,
                writing_ms=(now_ns - meter.first_ns) * 1e-6,
                n_written=meter.n_events,
                aim=aim,
                runner_up=None if runner_up is None else self._forecasts(runner_up),
                rules=self._settings.wait,
            )

        return too_slow

    def _note(
        self, attempt: Attempt, failed: Failed, ended: list[tuple[str, FailureClass]]
    ) -> None:
        ended.append((attempt.seat.offer.id, failed.failure))

    def _ended(self, record: AttemptRecord) -> None:
        """Every attempt's end passes here, once."""
        offer, provider = record.offer, record.provider
        _less(self._offer_inflight, offer)
        _less(self._provider_inflight, provider)
        was_bad = not self._standings.good(offer)
        self._standings.note(offer, record.failure)
        if record.n > 1 and not self._standings.good(offer) and was_bad:
            self._failing.spend()
        if record.retry_after_s:
            wait_s = min(record.retry_after_s, self._settings.max_busy_s)
            self._busy_until_ns[offer] = self._clock.monotonic_ns() + round(wait_s * 1e9)
        self._on_attempt(record)

    def _defeat(
        self,
        order: Order,
        ended: list[tuple[str, FailureClass]],
        last: Failed | None,
        stop: Stop,
    ) -> BadRequest | DeadlineExceeded | SellersFailed:
        """What to tell the app now that nobody is left to ask."""
        if last is not None and all(failure in _APPS_FAULT for _, failure in ended):
            message = last.message or f"the seller refused the request ({last.failure})"
            return BadRequest(
                message, path="messages", remedy="change what the seller's message names"
            )
        late = bool(ended) and ended[-1][1] in CENSORED
        if stop.reason is StopReason.DEADLINE and (late or not ended):
            return DeadlineExceeded("the deadline passed before a seller had answered")
        return SellersFailed(
            [(offer, str(failure)) for offer, failure in ended],
            retry_after_s=max(stop.retry_after_ms * 1e-3, 0.05),
        )


def _less(counts: dict[str, int], key: str) -> None:
    left = counts.get(key, 0) - 1
    if left > 0:
        counts[key] = left
    else:
        counts.pop(key, None)
