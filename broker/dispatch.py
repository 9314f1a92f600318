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
import itertools
import random
import secrets
from collections.abc import Awaitable, Callable, Mapping

from bidding.errors import BadRequest
from bidding.fallback import Stop, StopReason, Try
from bidding.outcome import CENSORED, FailureClass
from bidding.waiting import Forecast
from broker.attempt import Attempt
from broker.attempt_clocks import AttemptClocks
from broker.delivery import Delivery
from broker.dispatch_settings import DispatchSettings
from broker.errors import DeadlineExceeded, SellersFailed
from broker.hedging import race
from broker.order import Order
from broker.patience import hedge_ms, slowness, waits_for
from broker.providers.base import Seat
from broker.providers.dialects import dialect_of
from broker.sellers import Ended, Sellers
from broker.silence import Silence
from broker.stalls import Stalls
from broker.upstream import Upstream
from broker.wire.neutral import Event, Failed, collect
from feeds.clock import Clock
from feeds.records import AttemptRecord

_APPS_FAULT = {FailureClass.BAD_REQUEST, FailureClass.CONTEXT_TOO_LONG, FailureClass.REFUSED}


class Dispatcher:
    """Makes the calls of one process.

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
        Takes the offer's id, and the tokens it will about use, as each call goes out.
    secure : callable
        Awaited with the order and the offer's id before each call goes out: whatever is sold in
        limited quantity is set aside then, and the order's price changed where there is none left.
    on_headers : callable
        Takes the offer's id, the headers of each answer, good or bad, and how many seconds after
        its call they came.
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
        on_sent: Callable[[str, float], None] = lambda _o, _n: None,
        on_headers: Callable[[str, Mapping[str, str], float], None] = lambda _o, _h, _s: None,
        secure: Callable[[Order, str], Awaitable[None]] | None = None,
    ) -> None:
        self._upstream = upstream
        # Numbers in order take a tenth of the room that random ones do, in a history of millions.
        self._boot = secrets.token_hex(5)
        self._numbers = itertools.count()
        self._seats = seats
        self._clock = clock
        self._on_attempt = on_attempt
        self._on_sent = on_sent
        self._on_headers = on_headers
        self._secure = secure
        self.silence = Silence(clock)
        self.stalls = Stalls(clock)
        self.sellers = Sellers(forecasts, settings, clock, rng, self.silence)

    @property
    def n_inflight(self) -> int:
        """Calls open now."""
        return self.sellers.n_inflight

    def forecast(self, offer: str) -> Forecast | None:
        """What is believed of an offer's next call now."""
        return self.sellers.forecast(offer)

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
        if order.source != "probe":
            self.sellers.earn()
        seats = self._seated(order)
        ended: Ended = []
        last: Failed | None = None
        while True:
            step = self.sellers.next_step(order, seats, ended, set())
            if isinstance(step, Stop):
                raise _defeat(ended, last, step)
            if step.delay_ms:
                self.sellers.retry()
                await asyncio.sleep(step.delay_ms * 1e-3)
            attempt, last = await self._attempt(order, seats, step.place, ended, whole=whole)
            if last is None:
                return attempt

    async def _attempt(
        self, order: Order, seats: list[Seat], place: int, ended: Ended, *, whole: bool
    ) -> tuple[Attempt, Failed | None]:
        sellers = self.sellers
        after_ms = hedge_ms(sellers, order, seats, place, ended)
        if self._secure is not None:
            await self._secure(order, seats[place].offer.id)
        first = self._begin(
            order, seats, place, ended, set(), whole=whole, patient=after_ms is not None
        )

        def note(attempt: Attempt, failed: Failed) -> None:
            ended.append((attempt.seat.offer.id, failed.failure))

        if after_ms is None:
            watch = slowness(sellers, order, seats, place, ended) if whole else None
            failed = await first.start(whole=whole, too_slow=watch)
            if failed is not None:
                note(first, failed)
            return first, failed

        async def beside(waiting: set[str]) -> Attempt | None:
            step = sellers.next_step(order, seats, ended, waiting)
            if isinstance(step, Try) and not step.delay_ms and sellers.hedge():
                if self._secure is not None:
                    await self._secure(order, seats[step.place].offer.id)
                return self._begin(order, seats, step.place, ended, waiting, whole=whole)
            return None

        return await race(first, after_ms, beside, note, whole=whole)

    def _seated(self, order: Order) -> list[Seat]:
        seats = (self._seats(bid.offer) for bid in order.decision.ranked)
        return [seat for seat in seats if seat is not None]

    def _begin(
        self,
        order: Order,
        seats: list[Seat],
        place: int,
        ended: Ended,
        waiting: set[str],
        *,
        whole: bool,
        patient: bool = False,
    ) -> Attempt:
        """Take a place at a seller, beside calls to those in `waiting` if any: then it is a
        hedge. A `patient` attempt will be hedged rather than given up.
        """
        seat, hedge = seats[place], bool(waiting)
        stream = self._streams(order, seat)
        tried = {offer for offer, _ in ended}
        falling_back = bool(tried) and seat.offer.id not in tried
        waits = waits_for(
            self.sellers,
            order,
            seats,
            place,
            ended,
            waiting,
            stream=stream,
            whole=whole,
            patient=patient,
        )
        n_inflight = self.sellers.take(order, seat, falling_back=falling_back)
        self._on_sent(seat.offer.id, order.input_tokens + order.output_tokens)

        def gives_way() -> bool:
            return self.sellers.gives_way(order, seats, ended, waiting, seat.offer.id)

        clocks = AttemptClocks(waits, order.deadline_ns, self._clock, self.stalls, gives_way)
        attempt_id = f"{self._boot}-{next(self._numbers):x}"
        attempt = Attempt(
            order,
            seat,
            dialect_of(seat, order.request),
            attempt_id=attempt_id,
            n=len(order.attempts) + 1 + (1 if hedge else 0),
            n_inflight=n_inflight,
            hedge=hedge,
            stream=stream,
            clocks=clocks,
            upstream=self._upstream,
            clock=self._clock,
            may_reconnect=self.sellers.may_reconnect,
            gives_way=gives_way,
            on_end=self._ended,
            on_headers=self._on_headers,
        )
        self.silence.begun(attempt_id, seat.offer.id, clocks)
        return attempt

    def _streams(self, order: Order, seat: Seat) -> bool:
        if order.request.stream or order.request.embedding is not None:
            return order.request.stream
        able = seat.model is None or "streaming" in seat.model.capabilities
        return self.sellers.settings.stream_upstream and able

    def _ended(self, record: AttemptRecord) -> None:
        self.silence.ended(record.attempt_id, well=record.failure is FailureClass.OK)
        self.sellers.ended(record)
        self._on_attempt(record)


def _defeat(
    ended: Ended, last: Failed | None, stop: Stop
) -> BadRequest | DeadlineExceeded | SellersFailed:
    """What to tell the app now that nobody is left to ask."""
    if last is not None and all(failure in _APPS_FAULT for _, failure in ended):
        message = last.message or f"the seller refused the request ({last.failure})"
        return BadRequest(message, path="messages", remedy="change what the seller's message names")
    late = bool(ended) and ended[-1][1] in CENSORED
    if stop.reason is StopReason.DEADLINE and (late or not ended):
        return DeadlineExceeded("the deadline passed before a seller had answered")
    return SellersFailed(
        [(offer, str(failure)) for offer, failure in ended],
        retry_after_s=max(stop.retry_after_ms * 1e-3, 0.05),
    )
