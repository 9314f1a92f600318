"""What a process knows of its sellers between requests, and whom to ask next.

Calls that are out, who asked to be left alone, whose last attempt failed, and the budgets for
whatever is more than one attempt a request: one object a process, since all of it spans requests.
What is believed of a seller's speed comes from the market; how long to wait for one is
`broker.patience`'s to say.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from bidding.fallback import Budget, Candidate, Standings, Stop, StopReason, Try, next_step
from bidding.outcome import FailureClass
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
        self.failing = Budget(s.failing_share, s.failing_burst)
        self.same_offer = Budget(s.same_offer_share, s.same_offer_burst)
        self.hedges = Budget(s.hedge_share, s.hedge_burst)

    @property
    def n_inflight(self) -> int:
        """Calls open now."""
        return sum(self._provider_inflight.values())

    def earn(self) -> None:
        """A request has come: each budget grows by its share of an attempt."""
        for budget in (self.failing, self.same_offer, self.hedges):
            budget.earn()

    def next_step(
        self, order: Order, seats: Sequence[Seat], ended: Ended, waiting: set[str]
    ) -> Try | Stop:
        """Whom to ask now, by `bidding.fallback`. A probe is one call, however it ends."""
        if ended and order.source == "probe":
            return Stop(StopReason.SPENT)
        now_ns = self.clock.monotonic_ns()
        return next_step(
            [self._candidate(seat, now_ns) for seat in seats],
            ended,
            remaining_ms=(order.deadline_ns - now_ns) * 1e-6,
            budget_allows=self.failing.allows(),
            same_offer_allows=self.same_offer.allows(),
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

    def take(self, seat: Seat) -> int:
        """A call goes out to `seat`; how many were out to its offer before."""
        offer, provider = seat.offer.id, seat.provider.id
        n_inflight = self._offer_inflight.get(offer, 0)
        self._offer_inflight[offer] = n_inflight + 1
        self._provider_inflight[provider] = self._provider_inflight.get(provider, 0) + 1
        return n_inflight

    def may_reconnect(self) -> bool:
        """Whether a call whose idle connection proved dead may be sent again; counts it."""
        allowed = self.same_offer.allows()
        if allowed:
            self.same_offer.spend()
        return allowed

    def ended(self, record: AttemptRecord) -> None:
        """Every attempt's end passes here, once."""
        offer, provider = record.offer, record.provider
        _less(self._offer_inflight, offer)
        _less(self._provider_inflight, provider)
        was_bad = not self._standings.good(offer)
        self._standings.note(offer, record.failure)
        if record.n > 1 and not self._standings.good(offer) and was_bad:
            self.failing.spend()
        if record.retry_after_s:
            wait_s = min(record.retry_after_s, self.settings.max_busy_s)
            self._busy_until_ns[offer] = self.clock.monotonic_ns() + round(wait_s * 1e9)


def _less(counts: dict[str, int], key: str) -> None:
    left = counts.get(key, 0) - 1
    if left > 0:
        counts[key] = left
    else:
        counts.pop(key, None)
