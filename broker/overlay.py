"""What this gateway has seen itself and the log has not told it yet: circuits and open calls.

Circuits must not wait for the log. Each offer has one, and each provider: a provider that
refuses connections is left with all its offers after a few failures, not after a few at each.
A circuit that stands open blocks its offers until its next probe is due; an offer that said
"full" is held for as long as it asked. Times are seconds on the monotonic clock.
"""

from __future__ import annotations

import numpy as np

from bidding.columns import Bools, Floats, OfferColumns
from bidding.estimators.circuit import CircuitBreakers, CircuitParams
from bidding.market import Catalogue
from bidding.outcome import FailureClass, Lesson, lesson
from broker.providers.limits import QuotaLeft
from broker.quotas import Quotas

_OF_PROVIDER = frozenset(
    {
        FailureClass.CONNECT,
        FailureClass.TLS,
        FailureClass.TIMEOUT_TTFT,
        FailureClass.SERVER_ERROR,
        FailureClass.AUTH,
        FailureClass.OK,
    }
)


class Overlay:
    """Circuits and open calls of one gateway, over the rows of `OfferColumns`."""

    def __init__(self, offers: OfferColumns, catalogue: Catalogue, params: CircuitParams) -> None:
        self._offers = offers
        self._by_offer = CircuitBreakers(params, seed=1)
        self._by_offer.grow(len(offers))
        self._by_provider = CircuitBreakers(params, seed=2)
        self._by_provider.grow(len(offers.provider_ids))
        self.n_inflight: Floats = np.zeros(len(offers))
        self._n_at_provider = np.zeros(len(offers.provider_ids))
        limits = {p.id: p.limit_concurrency for p in catalogue.providers}
        self._limit = np.array([limits[p] for p in offers.provider_ids], dtype=np.float64)
        self.quotas = Quotas(offers)

    def steer(self, params: CircuitParams) -> None:
        """Go on under other params."""
        self._by_offer.steer(params)
        self._by_provider.steer(params)

    def sent(self, offer: str, n_tokens: float, now_s: float) -> bool:
        """Note a call sent; whether what is blocked may have changed (a probe was spent)."""
        row = self._offers.row_of[offer]
        provider = int(self._offers.provider[row])
        self.n_inflight[row] += 1
        self._n_at_provider[provider] += 1
        self._by_offer.sent(row, now_s)
        self._by_provider.sent(provider, now_s)
        is_full = self._n_at_provider[provider] >= self._limit[provider]
        is_spent = self.quotas.sent(offer, n_tokens, now_s)
        return bool(
            is_full
            or is_spent
            or self._by_offer.circuits[row].is_open
            or self._by_provider.circuits[provider].is_open
        )

    def told(self, offer: str, left: QuotaLeft, now_s: float) -> bool:
        """Note what an answer's headers say of a quota; whether what is blocked has changed."""
        others = float(self.n_inflight[self._offers.row_of[offer]]) - 1.0
        return self.quotas.told(offer, left, max(others, 0.0), now_s)

    def ended(
        self,
        offer: str,
        failure: FailureClass,
        now_s: float,
        *,
        sent_at_s: float,
        retry_after_s: float | None,
    ) -> bool:
        """Note how a call ended; whether what is blocked may have changed."""
        row = self._offers.row_of[offer]
        provider = int(self._offers.provider[row])
        was_full = self._n_at_provider[provider] >= self._limit[provider]
        self.n_inflight[row] -= 1
        self._n_at_provider[provider] -= 1
        taught: Lesson = lesson(failure)
        before = (self._blocked_until(row), self._provider_blocked_until(provider))
        self._by_offer.record(row, taught, now_s, sent_at_s=sent_at_s, retry_after_s=retry_after_s)
        # What says nothing of the provider still ends a probe of it.
        taught_of_provider: Lesson = taught if failure in _OF_PROVIDER else "nothing"
        self._by_provider.record(provider, taught_of_provider, now_s, sent_at_s=sent_at_s)
        after = (self._blocked_until(row), self._provider_blocked_until(provider))
        return bool(was_full) or before != after

    def circuit_open(self, now_s: float) -> Bools:
        """Offers that must not be sent a call now, shape (n_offers,)."""
        at_provider = ~self._by_provider.may_send(now_s)
        blocked: Bools = ~self._by_offer.may_send(now_s) | at_provider[self._offers.provider]
        return blocked

    def half_open(self, now_s: float) -> Bools:
        """Offers that may be sent a probe: their circuit, or their provider's, is half open."""
        at_provider = self._by_provider.half_open(now_s)
        mask: Bools = self._by_offer.half_open(now_s) | at_provider[self._offers.provider]
        return mask & ~self.circuit_open(now_s)

    def quota_blocked(self, now_s: float) -> Bools:
        """Offers of providers where we have as many calls open as we may, or no quota left."""
        full: Bools = (self._n_at_provider >= self._limit)[self._offers.provider]
        return full | self.quotas.blocked(now_s) if self.quotas.any else full

    def retry_in_s(self, now_s: float) -> float:
        """Until the first blocked offer may be tried again; 0 when none is blocked."""
        until = np.concatenate([self._by_offer.blocked_until_s, self._by_provider.blocked_until_s])
        waiting = until[until > now_s]
        return float(waiting.min() - now_s) if len(waiting) else 0.0

    def health(self, now_s: float) -> list[str]:
        """State of each offer's circuit, its provider's counting where that is worse."""
        offers = self._by_offer.health(now_s)
        providers = self._by_provider.health(now_s)
        return [
            own if own != "closed" else providers[p]
            for own, p in zip(offers, self._offers.provider.tolist(), strict=True)
        ]

    def _blocked_until(self, row: int) -> float:
        return float(self._by_offer.blocked_until_s[row])

    def _provider_blocked_until(self, provider: int) -> float:
        return float(self._by_provider.blocked_until_s[provider])
