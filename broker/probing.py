"""Tries offers that nobody calls, so that their quotes do not go stale.

One tiny request at a time, at the offer that needs it most (`bidding/probing.py`), through the same
dispatch as everything else: circuits, calls in flight and the log learn from it, and it is written
down as an attempt of source `probe` that belongs to no tenant. The day's and the hour's money stand
in the state that gateways share, and are set aside before the call, so any number of gateways keep
to one budget. Without that state nothing is tried.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

import numpy as np

from bidding.columns import Floats
from bidding.decision import Bid, Decision
from bidding.errors import MarketError
from bidding.estimators.seasons import hour_of_week
from bidding.probing import PROBE_TOKENS_IN, PROBE_TOKENS_OUT, ProbeSettings, due, probe_cost_nusd
from bidding.units import NUSD_PER_USD
from broker.dispatch import Dispatcher
from broker.live_market import LiveMarket
from broker.order import Order
from broker.shared_state import Cap, SharedState, StateUnavailable, Wanted
from broker.wire.neutral import Message, NeutralRequest, Text
from feeds.clock import Clock
from feeds.records import AttemptRecord

logger = logging.getLogger(__name__)

TASK: Final = "probe"
_LOOK_AGAIN_S: Final = 3_600.0
SeenCalls = Callable[[], Awaitable[dict[str, Floats]]]
"""Calls known of each offer by hour of the week, (168,) each."""


class Prober:
    """`await run()` until cancelled."""

    def __init__(
        self,
        settings: ProbeSettings,
        market: LiveMarket,
        dispatcher: Dispatcher,
        state: SharedState,
        clock: Clock,
        seen: SeenCalls | None = None,
    ) -> None:
        self._settings = settings
        self._market = market
        self._dispatcher = dispatcher
        self._state = state
        self._clock = clock
        self._seen = seen
        self._cells = np.zeros((len(market.book.offers), 168))
        self._cells_at_s = -math.inf
        self._tried_at_s = np.full(len(market.book.offers), -math.inf)
        self.n_probes = 0

    async def run(self) -> None:
        """Look again and again. Never ends by itself; without a budget it only waits."""
        while True:
            await asyncio.sleep(self._settings.every_s)
            if not self._settings.budget_usd_day:
                continue
            try:
                await self.once()
            except MarketError as error:
                logger.info("no probe: %s", error)

    async def once(self) -> AttemptRecord | None:
        """Try the offer that needs it most; what came of it, None when none is due or paid for.

        Raises
        ------
        StateUnavailable
            Nobody knows what is left of the budget.
        """
        now_s = self._clock.monotonic_ns() * 1e-9
        await self._look_at_cells(now_s)
        view, overlay = self._market.view, self._market.overlay
        hour = int(hour_of_week(np.array(self._clock.now_us() * 1e-6)))
        rows = due(
            view,
            self._settings,
            seen_at_hour=self._cells[:, hour],
            tried_ago_s=now_s - self._tried_at_s,
            may_call=~overlay.circuit_open(now_s) & ~overlay.quota_blocked(now_s),
        )
        if not rows:
            return None
        cost = probe_cost_nusd(view)
        for row in rows:
            probe = f"probe_{secrets.token_hex(16)}"
            if await self._paid_for(probe, math.ceil(cost[row])):
                return await self._try(probe, row, hour, now_s)
        return None

    async def _paid_for(self, probe: str, nusd: int) -> bool:
        """Set a probe's money aside, of the day's and of the hour's."""
        now_us = self._clock.now_us()
        at = datetime.fromtimestamp(now_us * 1e-6, UTC)
        budget = self._settings.budget_usd_day * NUSD_PER_USD
        wanted = Wanted(
            id=probe,
            caps=(
                Cap(f"probes:{at:%Y-%m-%d}", round(budget)),
                Cap(f"probes:{at:%Y-%m-%dT%H}", round(budget / 24)),
            ),
            worst_nusd=nusd,
            likely_nusd=nusd,
            worst_share=1.0,
            now_us=now_us,
            expires_us=now_us + round(self._settings.deadline_s * 2e6),
        )
        return bool((await self._state.reserve(wanted)).nusd)

    async def _try(self, probe: str, row: int, hour: int, now_s: float) -> AttemptRecord | None:
        self._tried_at_s[row] = now_s
        self._cells[row, hour] += 1.0
        self.n_probes += 1
        order = probe_order(
            self._market, self._clock, row, probe=probe, deadline_s=self._settings.deadline_s
        )
        try:
            async with await self._dispatcher.open(order) as delivery:
                async for _ in delivery:
                    pass
        except MarketError as error:
            logger.info("probe of %s: %s", order.decision.ranked[0].offer, error)
        finally:
            spent = sum(attempt.cost_nusd for attempt in order.attempts)
            try:
                await self._state.settle(probe, spent)
            except StateUnavailable as error:
                logger.warning("a probe counts as spent in full: %s", error)
        return order.attempts[-1] if order.attempts else None

    async def _look_at_cells(self, now_s: float) -> None:
        """Ask once an hour what is known of each hour of the week."""
        if self._seen is None or now_s - self._cells_at_s < _LOOK_AGAIN_S:
            return
        self._cells_at_s = now_s
        row_of = self._market.book.offers.row_of
        for offer, cells in (await self._seen()).items():
            row = row_of.get(offer)
            if row is not None:
                self._cells[row] = cells


def probe_order(
    market: LiveMarket, clock: Clock, row: int, *, probe: str, deadline_s: float
) -> Order:
    """A tiny request for one offer and nobody else, to be answered within `deadline_s`."""
    view = market.view
    offer = view.offers.offer_ids[row]
    now_ns = clock.monotonic_ns()
    bid = Bid(offer, row, 0.0, float(probe_cost_nusd(view)[row]), 1.0, 1.0)
    decision = Decision(
        view_number=view.number,
        params_version=market.params.version,
        policy=TASK,
        seed=0,
        ranked=(bid,),
        n_bids=1,
        no_bids={},
        clearing_price_nusd=None,
        propensity=None,
        feasible=True,
        quality_price_nusd=0.0,
        punctuality_price_nusd=0.0,
        best=None,
        cheapest=None,
    )
    return Order(
        decision_id=probe,
        decision=decision,
        request=NeutralRequest(
            model=offer,
            messages=(Message("user", (Text("Answer with the word yes."),)),),
            stream=True,
            include_usage=True,
            max_output_tokens=PROBE_TOKENS_OUT,
        ),
        tenant="",
        task=TASK,
        sla_class="",
        started_ns=now_ns,
        deadline_ns=now_ns + round(deadline_s * 1e9),
        input_tokens=PROBE_TOKENS_IN,
        output_tokens=float(PROBE_TOKENS_OUT),
        source="probe",
    )
