"""The gateway's circuits in a replay: one an offer and one a provider, as in live dispatch.

Offers behind an open circuit do not bid. They are tried beside the requests with tiny ones of our
own, rarer the longer they are down; two good ones close the circuit, on probation, and for a while
requests are drawn to the offer (docs/decisions/0028). A failed attempt of a request is lost; a try
aside loses nobody anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from bidding.columns import Bools, Floats, OfferColumns
from bidding.estimators.circuit import CircuitBreakers, CircuitParams
from bidding.outcome import Lesson
from bidding.probing import broken_pause_s

RETURNS_S: Final = 5.0
"""For how long requests are drawn to an offer that was closed again by tries aside."""


class Circuits:
    """Circuits over the rows of `OfferColumns`; times are seconds of the replay."""

    def __init__(self, offers: OfferColumns, params: CircuitParams) -> None:
        self._provider = offers.provider
        self._by_offer = CircuitBreakers(params, seed=1)
        self._by_offer.grow(len(offers))
        self._by_provider = CircuitBreakers(params, seed=2)
        self._by_provider.grow(len(offers.provider_ids))
        self._down_since_s: dict[int, float] = {}
        self._tried_at_s: dict[int, float] = {}
        self._back_until_s: Floats = np.full(len(offers), -np.inf)
        self.n_tries = 0

    @property
    def any_open(self) -> bool:
        """Whether some circuit is not closed."""
        return bool(self._by_offer.is_open.any() or self._by_provider.is_open.any())

    def may_send(self, row: int) -> bool:
        """Whether a request may be sent to the offer: while it is broken, only tries are."""
        provider = self._provider[row]
        return not (self._by_offer.is_open[row] or self._by_provider.is_open[provider])

    def attempted(self, row: int, at_s: float, *, failed: bool) -> None:
        """Note a call sent at `at_s`, and how it ended."""
        provider = int(self._provider[row])
        lesson: Lesson = "failure" if failed else "success"
        self._by_offer.sent(row, at_s)
        self._by_provider.sent(provider, at_s)
        self._by_offer.record(row, lesson, at_s, sent_at_s=at_s)
        self._by_provider.record(provider, lesson, at_s, sent_at_s=at_s)

    def look(self, at_s: float, is_down: Callable[[int], bool]) -> None:
        """Try what is broken and due; of a provider that is left as a whole one offer at a time."""
        broken = self.blocked()
        for row in [r for r in self._down_since_s if not broken[r]]:
            del self._down_since_s[row]
            self._tried_at_s.pop(row, None)
        tried_of: set[int] = set()
        for row in np.flatnonzero(broken).tolist():
            since_s = self._down_since_s.setdefault(row, at_s)
            provider = int(self._provider[row])
            if self._by_provider.is_open[provider]:
                if provider in tried_of:
                    continue
                tried_of.add(provider)
            own, whole = self._by_offer.circuits[row], self._by_provider.circuits[provider]
            pause_s = broken_pause_s(at_s - since_s)
            due = [c.retry_at_s for c in (own, whole) if c.is_open]
            if due and at_s >= max(*due, self._tried_at_s.get(row, -np.inf) + pause_s):
                self._try(row, at_s, failed=is_down(row))

    def _try(self, row: int, at_s: float, *, failed: bool) -> None:
        self.n_tries += 1
        self._tried_at_s[row] = at_s if failed else -np.inf
        own = self._by_offer.circuits[row]
        whole = self._by_provider.circuits[int(self._provider[row])]
        was_open = (own.is_open, whole.is_open)
        self.attempted(row, at_s, failed=failed)
        if own.is_open or whole.is_open:
            return
        for circuit, was in zip((own, whole), was_open, strict=True):
            if was:
                circuit.put_on_probation()
        self._back_until_s[row] = at_s + RETURNS_S

    def blocked(self) -> Bools:
        """Offers that no request may be sent to, shape (n_offers,)."""
        mask: Bools = self._by_offer.is_open | self._by_provider.is_open[self._provider]
        return mask

    def returning(self, at_s: float) -> Bools:
        """Offers closed by tries just now, that requests are drawn to, shape (n_offers,)."""
        mask: Bools = (self._back_until_s > at_s) & ~self.blocked()
        return mask
