"""What a process knows of its sellers between requests, and whom to ask next.

Calls that are out, who asked to be left alone, whose last attempt failed, and the budgets for
whatever is more than one attempt a request: one object a process, since all of it spans requests.
What is believed of a seller's speed comes from the market; how long to wait for one is
`broker.patience`'s to say.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Sequence
from operator import attrgetter

from bidding.fallback import Candidate, Standings, Stop, StopReason, Try, late_score_nusd, next_step
from bidding.outcome import FailureClass
from bidding.retry_budget import Budget
from bidding.waiting import Aim, Forecast
from broker.dispatch_settings import DispatchSettings
from broker.order import Order
from broker.providers.base import Seat
from broker.silence import Silence
from feeds.clock import Clock
from feeds.records import AttemptRecord

_score_nusd = attrgetter("score_nusd")

Ended = list[tuple[str, FailureClass]]
"""A request's attempts so far, in order."""


class Sellers:
    """Their state as this process sees it.

    Parameters
    ----------
    forecasts : callable
        Offer id to what is believed of it now; None when nothing is.
    rng : Random
        For jitter alone.
    """

    def __init__(
        self,
        forecasts: Callable[[str], Forecast | None],
        settings: DispatchSettings,
        clock: Clock,
        rng: random.Random,
        silence: Silence,
    ) -> None:
        self.forecast = forecasts
        self.settings = settings
        self.clock = clock
        self._rng = rng
        self._silence = silence
        self._offer_inflight: dict[str, int] = {}
        self._provider_inflight: dict[str, int] = {}
        self._busy_until_ns: dict[str, int] = {}
        self._standings = Standings()
        s = settings
        self._retries = Budget(s.retry_share, s.retry_floor, s.budget_window_s)
        self._hedges = Budget(s.hedge_share, s.hedge_floor, s.budget_window_s)

    @property
    def n_inflight(self) -> int:
        """Calls open now."""
        return sum(self._provider_inflight.values())

    def earn(self) -> None:
        """A request has come: each budget grows by its share of an attempt."""
        now_s = self.clock.monotonic_ns() * 1e-9
        self._retries.earn(now_s)
        self._hedges.earn(now_s)

    def next_step(
        self, order: Order, seats: Sequence[Seat], ended: Ended, waiting: set[str]
    ) -> Try | Stop:
        """Whom to ask now, by `bidding.fallback`: at first whom the auction chose, then by what
        the bids are worth in the time that is left. A probe is one call, however it ends.
        """
        if ended and order.source == "probe":
            return Stop(StopReason.SPENT)
        now_ns = self.clock.monotonic_ns()
        may_retry = order.retry_paid or self._retries.allows(now_ns * 1e-9)
        aim = order.aim(now_ns) if ended or waiting else None
        return next_step(
            self._candidates(order, seats, now_ns, aim),
            ended,
            remaining_ms=(order.deadline_ns - now_ns) * 1e-6,
            budget_allows=may_retry,
            same_offer_allows=may_retry,
            rules=self.settings.wait,
            jitter=self._rng.random(),
            waiting=waiting,
        )

    def gives_way(
        self, order: Order, seats: Sequence[Seat], ended: Ended, waiting: set[str], offer: str
    ) -> bool:
        """Whether a silent call to `offer` is to be given up: only where another may be asked.

        Where that counts as a retry it is counted now: of many calls that come to their limits
        together, no more are given up than there are retries left.
        """
        step = self.next_step(order, seats, [*ended, (offer, FailureClass.TIMEOUT_TTFT)], waiting)
        if isinstance(step, Stop):
            return False
        if not order.retry_paid and not self._is_sound(seats[step.place].offer.id):
            self.retry()
        # Whoever was sound as the call was given up is asked, though another's call failed since.
        order.retry_paid = True
        return True

    def _is_sound(self, offer: str) -> bool:
        return self._standings.good(offer) and offer not in self._silence.offers

    def runner_up(
        self,
        order: Order,
        seats: Sequence[Seat],
        place: int,
        ended: Ended,
        waiting: Container[str] = (),
    ) -> str | None:
        """Who would be asked next, with half of the time gone; None when nobody is left who
        could be.
        """
        tried = {offer for offer, _ in ended}
        now_ns = self.clock.monotonic_ns()
        candidates = self._candidates(order, seats, now_ns, _half(order.aim(now_ns)))
        sound = (
            candidate
            for i, candidate in enumerate(candidates)
            if i != place
            and candidate.offer not in tried
            and candidate.offer not in waiting
            and candidate.good_standing
            and not candidate.full
            and not candidate.busy_ms
        )
        best = min(sound, key=_score_nusd, default=None)
        return None if best is None else best.offer

    def runner_ups_forecast(
        self, order: Order, seats: Sequence[Seat], place: int, ended: Ended
    ) -> Forecast | None:
        """What is believed of who would be asked next."""
        offer = self.runner_up(order, seats, place, ended)
        return None if offer is None else self.forecast(offer)

    def _candidates(
        self, order: Order, seats: Sequence[Seat], now_ns: int, aim: Aim | None
    ) -> list[Candidate]:
        """The seats as they stand, scored for `aim` where punctuality has a price."""
        price_nusd = order.decision.punctuality_price_nusd
        if aim is None or price_nusd <= 0.0:
            return [self._candidate(seat, now_ns, 0.0) for seat in seats]
        bids = {bid.offer: bid for bid in order.decision.ranked}
        found = []
        for seat in seats:
            offer = seat.offer.id
            score_nusd = late_score_nusd(bids[offer], self.forecast(offer), aim, price_nusd)
            found.append(self._candidate(seat, now_ns, score_nusd))
        return found

    def _candidate(self, seat: Seat, now_ns: int, score_nusd: float) -> Candidate:
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
        return Candidate(offer, self._is_sound(offer), full, busy_ms, n_out, score_nusd)

    def take(self, order: Order, seat: Seat, *, falling_back: bool) -> int:
        """A call goes out to `seat`; how many were out to its offer before.

        Falling back to a seller whose own last attempt failed is a retry, and counted here, as it
        goes out: many requests that fail at once cannot overdraw the budget together.
        """
        if falling_back and not self._is_sound(seat.offer.id):
            if not order.retry_paid:
                self.retry()
            order.retry_paid = False
        offer, provider = seat.offer.id, seat.provider.id
        n_inflight = self._offer_inflight.get(offer, 0)
        self._offer_inflight[offer] = n_inflight + 1
        self._provider_inflight[provider] = self._provider_inflight.get(provider, 0) + 1
        return n_inflight

    def may_reconnect(self) -> bool:
        """Whether a call whose idle connection proved dead may be sent again; counts it."""
        return self._spent(self._retries)

    def may_hedge(self) -> bool:
        """Whether one more hedge may go out."""
        return self._hedges.allows(self.clock.monotonic_ns() * 1e-9)

    def hedge(self) -> bool:
        """Whether one more hedge goes out; counts it."""
        return self._spent(self._hedges)

    def retry(self) -> None:
        """The same offer is about to be asked again, as `next_step` has allowed."""
        self._retries.spend(self.clock.monotonic_ns() * 1e-9)

    def _spent(self, budget: Budget) -> bool:
        now_s = self.clock.monotonic_ns() * 1e-9
        allowed = budget.allows(now_s)
        if allowed:
            budget.spend(now_s)
        return allowed

    def ended(self, record: AttemptRecord) -> None:
        """Every attempt's end passes here, once."""
        offer, provider = record.offer, record.provider
        _less(self._offer_inflight, offer)
        _less(self._provider_inflight, provider)
        self._standings.note(offer, record.failure)
        if record.retry_after_s:
            wait_s = min(record.retry_after_s, self.settings.max_busy_s)
            self._busy_until_ns[offer] = self.clock.monotonic_ns() + round(wait_s * 1e9)


def _half(aim: Aim) -> Aim:
    """With half of the SLA's time gone."""
    ttft, latency = aim.ttft_ms, aim.latency_ms
    return aim._replace(
        ttft_ms=None if ttft is None else 0.5 * ttft,
        latency_ms=None if latency is None else 0.5 * latency,
    )


def _less(counts: dict[str, int], key: str) -> None:
    left = counts.get(key, 0) - 1
    if left > 0:
        counts[key] = left
    else:
        counts.pop(key, None)
