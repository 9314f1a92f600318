"""What a process knows of its sellers between requests, and whom to ask next.

Calls that are out, who asked to be left alone, whose last attempt failed, and the budgets for
whatever is more than one attempt a request: one object a process, since all of it spans requests.
What is believed of a seller's speed comes from the market; how long to wait for one is
`broker.patience`'s to say.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from bidding.fallback import Candidate, Standings, Stop, StopReason, Try, next_step
from bidding.outcome import FailureClass
from bidding.retry_budget import Budget
from bidding.waiting import Forecast
from broker.dispatch_settings import DispatchSettings
from broker.order import Order
from broker.providers.base import Seat
from feeds.clock import Clock
from feeds.records import AttemptRecord

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
    ) -> None:
        self.forecast = forecasts
        self.settings = settings
        self.clock = clock
        self._rng = rng
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
        """Whom to ask now, by `bidding.fallback`. A probe is one call, however it ends."""
        if ended and order.source == "probe":
            return Stop(StopReason.SPENT)
        now_ns = self.clock.monotonic_ns()
        may_retry = self._retries.allows(now_ns * 1e-9)
        return next_step(
            [self._candidate(seat, now_ns) for seat in seats],
            ended,
            remaining_ms=(order.deadline_ns - now_ns) * 1e-6,
            budget_allows=may_retry,
            same_offer_allows=may_retry,
            rules=self.settings.wait,
            jitter=self._rng.random(),
            waiting=waiting,
        )

    def runner_up(self, seats: Sequence[Seat], place: int, ended: Ended) -> str | None:
        """Who would be asked next; None when nobody is left who could be."""
        tried = {offer for offer, _ in ended}
        now_ns = self.clock.monotonic_ns()
        for i, seat in enumerate(seats):
            if i == place or seat.offer.id in tried:
                continue
            candidate = self._candidate(seat, now_ns)
            if candidate.good_standing and not candidate.full and not candidate.busy_ms:
                return seat.offer.id
        return None

    def runner_ups_forecast(
        self, seats: Sequence[Seat], place: int, ended: Ended
    ) -> Forecast | None:
        """What is believed of who would be asked next."""
        offer = self.runner_up(seats, place, ended)
        return None if offer is None else self.forecast(offer)

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

    def take(self, seat: Seat, *, falling_back: bool) -> int:
        """A call goes out to `seat`; how many were out to its offer before.

        Falling back to a seller whose own last attempt failed is a retry, and counted here, as it
        goes out: many requests that fail at once cannot overdraw the budget together.
        """
        if falling_back and not self._standings.good(seat.offer.id):
            self.retry()
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


def _less(counts: dict[str, int], key: str) -> None:
    left = counts.get(key, 0) - 1
    if left > 0:
        counts[key] = left
    else:
        counts.pop(key, None)
