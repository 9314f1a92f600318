"""What this gateway has seen itself and the log has not told it yet: circuits and open calls.

Circuits must not wait for the log. Each offer has one, and each provider: a provider that
refuses connections is left with all its offers after a few failures, not after a few at each.
A circuit that stands open blocks its offers until its next probe is due; an offer that said
"full" is held for as long as it asked. Where somebody tries broken offers aside (`aside`), they
stay blocked until that has closed the circuit: no request is spent on finding out. Times are
seconds on the monotonic clock.
"""

from __future__ import annotations

import math

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

_RETURNS_S = 5.0
"""For how long requests are drawn to an offer that was closed again by tries aside."""
_LOOK_AGAIN_S = 0.25
"""What a broken offer that is being tried now is worth waiting for."""


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
        self.aside: Bools = np.zeros(len(offers), dtype=np.bool_)
        """Offers that are tried beside the requests while they are broken, shape (n_offers,)."""
        self._back_until_s: Floats = np.full(len(offers), -np.inf)
        self._back_at_s: Floats = np.full(len(offers), -np.inf)
        self._n_since_back: Floats = np.zeros(len(offers))
        """Calls out that were sent since: others may hang for long after their seller is well."""
        self._returning_until_s = -math.inf
        self._silent: Bools = np.zeros(len(offers), dtype=np.bool_)

    def steer(self, params: CircuitParams) -> None:
        """Go on under other params."""
        self._by_offer.steer(params)
        self._by_provider.steer(params)

    def sent(self, offer: str, n_tokens: float, now_s: float) -> bool:
        """Note a call sent; whether what is blocked may have changed (a probe was spent)."""
        row = self._offers.row_of[offer]
        provider = int(self._offers.provider[row])
        self.n_inflight[row] += 1
        self._n_since_back[row] += 1
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
            or self._back_until_s[row] > now_s
        )

    def told(self, offer: str, left: QuotaLeft, sent_at_s: float, now_s: float) -> bool:
        """Note what the headers of the answer to a call sent then say of a quota; whether what is
        blocked has changed.
        """
        return self.quotas.told(offer, left, sent_at_s, now_s)

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
        if sent_at_s >= self._back_at_s[row]:
            self._n_since_back[row] = max(self._n_since_back[row] - 1, 0)
        self._n_at_provider[provider] -= 1
        taught: Lesson = lesson(failure)
        before = (self._blocked_until(row), self._provider_blocked_until(provider))
        was_open = (
            self._by_offer.circuits[row].is_open,
            self._by_provider.circuits[provider].is_open,
        )
        self._by_offer.record(row, taught, now_s, sent_at_s=sent_at_s, retry_after_s=retry_after_s)
        # What says nothing of the provider still ends a probe of it.
        taught_of_provider: Lesson = taught if failure in _OF_PROVIDER else "nothing"
        self._by_provider.record(provider, taught_of_provider, now_s, sent_at_s=sent_at_s)
        after = (self._blocked_until(row), self._provider_blocked_until(provider))
        if any(was_open) and self.aside[row]:
            self._return(row, provider, was_open, now_s)
        return bool(was_full or before != after or self._back_until_s[row] > now_s)

    def _return(self, row: int, provider: int, was_open: tuple[bool, bool], now_s: float) -> None:
        """Draw requests to what tries aside have closed; the first that fails opens it again."""
        own, whole = self._by_offer.circuits[row], self._by_provider.circuits[provider]
        if own.is_open or whole.is_open:
            return
        for circuit, was in zip((own, whole), was_open, strict=True):
            if was:
                circuit.put_on_probation()
        self._back_until_s[row] = self._returning_until_s = now_s + _RETURNS_S
        self._back_at_s[row], self._n_since_back[row] = now_s, 0

    def silent_now(self, offers: frozenset[str]) -> list[str]:
        """Pass over those whose calls that are out are silent; the first that fails opens it.
        Returns those that were not silent before.
        """
        new = [o for o in offers if not self._silent[self._offers.row_of[o]]]
        for offer in new:
            self._by_offer.circuits[self._offers.row_of[offer]].put_on_probation()
        self._silent = np.zeros_like(self._silent)
        self._silent[[self._offers.row_of[o] for o in offers]] = True
        return new

    def circuit_open(self, now_s: float) -> Bools:
        """Offers that must not be sent a call now, shape (n_offers,). Those that are only silent
        may, where nobody else who may be sent one sells their model.
        """
        at_provider = ~self._by_provider.may_send(now_s)
        blocked: Bools = ~self._by_offer.may_send(now_s) | at_provider[self._offers.provider]
        blocked |= self.aside & self._open
        if not self._silent.any():
            return blocked
        model = self._offers.model
        free = ~(blocked | self._silent | self.quota_blocked(now_s))
        others = np.bincount(model[free], minlength=len(self._offers.model_ids))
        return blocked | (self._silent & (others[model] > 0))

    @property
    def _open(self) -> Bools:
        """Offers whose circuit, or provider's, is not closed."""
        mask: Bools = self._by_offer.is_open | self._by_provider.is_open[self._offers.provider]
        return mask

    def broken_aside(self) -> list[int]:
        """Rows of the offers to be tried aside, whether or not that is due."""
        return [int(row) for row in np.flatnonzero(self.aside & self._open)]

    def provider_open(self, provider: int) -> bool:
        """Whether a provider's own circuit is not closed."""
        return bool(self._by_provider.is_open[provider])

    def try_at_s(self, row: int) -> float:
        """From when a broken offer may be tried aside, whoever else is trying it."""
        own = self._by_offer.circuits[row]
        provider = self._by_provider.circuits[int(self._offers.provider[row])]
        due = [c.retry_at_s for c in (own, provider) if c.is_open]
        return max(own.held_until_s, provider.held_until_s, *due)

    def half_open(self, now_s: float) -> Bools:
        """Offers to draw requests to, shape (n_offers,): their circuit, or their provider's, is
        half open, with nobody else to try them; or tries aside have closed it just now, and what
        its failures cost it would keep requests from finding out. One at a time: an offer that
        answers, but slowly, is closed too, and should cost one request its time and not many.
        """
        of = self._offers.provider
        waiting = self._by_offer.half_open(now_s) | self._by_provider.half_open(now_s)[of]
        mask: Bools = waiting & ~self.circuit_open(now_s)
        if now_s < self._returning_until_s:
            back = (self._back_until_s > now_s) & (self._n_since_back == 0.0)
            mask |= self.aside & back & ~self.circuit_open(now_s)
        return mask

    def quota_blocked(self, now_s: float) -> Bools:
        """Offers of providers where we have as many calls open as we may, or no quota left."""
        full: Bools = (self._n_at_provider >= self._limit)[self._offers.provider]
        return full | self.quotas.blocked(now_s) if self.quotas.any else full

    def retry_in_s(self, now_s: float) -> float:
        """Until the first blocked offer may be tried again; 0 when none is blocked."""
        until = np.concatenate([self._by_offer.blocked_until_s, self._by_provider.blocked_until_s])
        aside = [max(self.try_at_s(row), now_s + _LOOK_AGAIN_S) for row in self.broken_aside()]
        until = np.concatenate([until, aside])
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
