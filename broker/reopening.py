"""Tries broken sellers beside the requests, so that no request is spent on finding out.

An offer whose circuit stands open gets a tiny request of our own when its next try is due
(`bidding/probing.py`), the first a pause after it was seen open, through the same dispatch as
everything else: two good ones close the circuit, a bad one opens it for longer. Tries go out at
their pace whether or not earlier ones have come back, so one that hung as the seller recovered
keeps nobody from seeing that it has. Of a provider with several broken offers one is tried at a
time for all: the cheapest.

Sellers that are down bill nothing, those that recover bill a dozen tokens: still the money is
counted, and past the hour's part the offers are handed back to the auction, which draws requests
to them (`exploration.probe_share`). Left to it always are models that embed, those that may think
longer than a try lasts, and an offer that turns tries down as bad requests.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import Final

import numpy as np

from bidding.columns import Bools
from bidding.errors import MarketError
from bidding.market import Capability
from bidding.outcome import lesson
from bidding.probing import ProbeSettings, broken_patience_s, broken_pause_s, probe_cost_nusd
from bidding.units import NUSD_PER_USD
from broker.dispatch import Dispatcher
from broker.live_market import LiveMarket
from broker.order import Order
from broker.probing import probe_order
from feeds.clock import Clock

logger = logging.getLogger(__name__)

_LOOK_EVERY_S: Final = 0.05
_HOUR_S: Final = 3_600.0
_UNFIT: Final = int(Capability.EMBEDDINGS | Capability.REASONING)
_TURNED_DOWN_OFTEN: Final = 3


class Reopener:
    """`start()`, and `close()` before the dispatcher's client is closed."""

    def __init__(
        self, settings: ProbeSettings, market: LiveMarket, dispatcher: Dispatcher, clock: Clock
    ) -> None:
        self._settings = settings
        self._market = market
        self._dispatcher = dispatcher
        self._clock = clock
        offers = market.book.offers
        self._fit: Bools = (offers.capabilities & _UNFIT) == 0
        self._n_turned_down: dict[int, int] = {}
        self._down_since_s: dict[int, float] = {}
        self._tried_at_s: dict[int, float] = {}
        self._looking: asyncio.Task[None] | None = None
        self._trying: set[asyncio.Task[None]] = set()
        self._hour = -1
        self._left_nusd = 0.0
        self.n_tries = 0

    def start(self) -> None:
        """Look again and again, until `close`."""
        self._looking = asyncio.create_task(self._look_on())

    async def close(self) -> None:
        """Stop, and end every try under way."""
        tasks = [t for t in (self._looking, *self._trying) if t is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look_on(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(_LOOK_EVERY_S)

    def look(self) -> None:
        """Try whatever is due now."""
        now_s = self._clock.monotonic_ns() * 1e-9
        self._watch_money(now_s)
        overlay, offers = self._market.overlay, self._market.book.offers
        priced = self._market.view.priced
        broken = [row for row in overlay.broken_aside() if priced[row]]
        if not broken and not self._down_since_s:
            return
        for row in [r for r in self._down_since_s if r not in broken]:
            del self._down_since_s[row]
            self._tried_at_s.pop(row, None)
        cost = probe_cost_nusd(self._market.view)
        tried_of: set[int] = set()
        for row in sorted(broken, key=lambda r: cost.item(r)):
            since_s = self._down_since_s.setdefault(row, now_s)
            provider = int(offers.provider[row])
            if overlay.provider_open(provider):
                if provider in tried_of:
                    continue
                tried_of.add(provider)
            pause_s = broken_pause_s(now_s - since_s)
            due_s = max(overlay.try_at_s(row), self._tried_at_s.get(row, since_s) + pause_s)
            if now_s >= due_s:
                self._try(row, now_s)

    def _watch_money(self, now_s: float) -> None:
        """Whether this hour's tries may still cost something; else requests find out."""
        hour = int(now_s // _HOUR_S)
        if hour != self._hour:
            self._hour = hour
            self._left_nusd = self._settings.broken_usd_hour * NUSD_PER_USD
        aside = self._fit if self._left_nusd > 0.0 else np.zeros_like(self._fit)
        overlay = self._market.overlay
        if not np.array_equal(overlay.aside, aside):
            overlay.aside = aside.copy()

    def _try(self, row: int, now_s: float) -> None:
        self._tried_at_s[row] = now_s
        self.n_tries += 1
        offer = self._market.book.offers.offer_ids[row]
        order = probe_order(
            self._market,
            self._clock,
            row,
            probe=f"probe_{secrets.token_hex(16)}",
            deadline_s=broken_patience_s(
                self._dispatcher.forecast(offer), self._settings.deadline_s
            ),
        )
        task = asyncio.create_task(self._made(order, row))
        self._trying.add(task)
        task.add_done_callback(self._trying.discard)

    async def _made(self, order: Order, row: int) -> None:
        try:
            async with await self._dispatcher.open(order) as delivery:
                async for _ in delivery:
                    pass
        except MarketError as error:
            logger.debug("%s is still broken: %s", order.decision.ranked[0].offer, error)
        finally:
            self._left_nusd -= sum(attempt.cost_nusd for attempt in order.attempts)
        taught = {lesson(attempt.failure) for attempt in order.attempts}
        if "success" in taught:
            # The next good one may close the circuit: no reason to wait for it.
            self._tried_at_s.pop(row, None)
        if taught == {"nothing"}:
            self._n_turned_down[row] = self._n_turned_down.get(row, 0) + 1
            if self._n_turned_down[row] >= _TURNED_DOWN_OFTEN:
                self._fit[row] = False
