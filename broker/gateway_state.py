"""What a gateway's routes share: settings, the live market, the journal, the way to history."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from bidding.decision import Decision, NoBid
from bidding.errors import MarketError, NoEligibleOffer
from bidding.market import Capability
from bidding.request import BidRequest
from bidding.view import MarketView
from broker.analyst_desk import AnalystDesk
from broker.config import Settings
from broker.errors import SellersFailed
from broker.journal import Journal
from broker.live_market import LiveMarket
from broker.market_routes import market_body
from broker.market_stream import MarketStream
from broker.metrics import Metrics
from broker.page_routes import load_files
from broker.prompts import PromptReader
from broker.recent import Flight
from broker.response_cache import ResponseCache
from broker.sessions import OfferFacts, Sessions
from broker.shared_state import SharedState
from broker.spot import SpotAsks
from broker.telemetry import Intake
from broker.tenancy import Tenancy
from broker.tracing import Tracing
from broker.trials import Trials
from broker.vault import vault_of
from broker.verify.checker import Checker
from broker.verify.judge import Judge
from broker.verify.webhook import Webhooks
from feeds.clock import Clock
from feeds.records import DecisionRecord

logger = logging.getLogger(__name__)

StoredFlight = Callable[[str, str], Awaitable[Flight | None]]
Notices = Callable[[str, str, int, int], Awaitable[list[dict[str, Any]]]]
Replay = Callable[[DecisionRecord], Awaitable[dict[str, Any]]]
_PASSING = {NoBid.CIRCUIT_OPEN.value, NoBid.QUOTA.value}
_FLOORS = {
    NoBid.ABOVE_RESERVE.value,
    NoBid.QUALITY_FLOOR.value,
    NoBid.DEADLINE_FLOOR.value,
}


class GatewayState:
    """Made once per process by the composition root."""

    def __init__(
        self,
        settings: Settings,
        market: LiveMarket,
        journal: Journal,
        metrics: Metrics,
        clock: Clock,
        stored_flight: StoredFlight,
        replayed: Replay,
        shared: SharedState,
        desk: AnalystDesk,
        facts: Mapping[str, OfferFacts],
        notices: Notices | None = None,
    ) -> None:
        self.settings = settings
        self.market = market
        self.journal = journal
        self.metrics = metrics
        self.clock = clock
        self.stored_flight = stored_flight
        self.shared = shared
        self.prompts = PromptReader()
        self.notices = notices
        self.spot = SpotAsks(len(market.book.offers), shared, clock, journal.notice, market.refresh)
        market.spot = self.spot
        self.tenancy = Tenancy(shared, clock)
        self.sessions = Sessions(shared, facts, clock)
        self.cache = ResponseCache(settings.cache, clock)
        self._checker, self._webhooks = Checker(), Webhooks(settings.verify)
        self.trials = Trials(market, clock, metrics, time_share=settings.gateway.shadow_time_share)
        self.judge = Judge(self._checker, self._webhooks)
        self.replayed = replayed
        self.desk = desk
        self.intake = Intake(market.catalogue, journal, clock)
        self.page_files = load_files()
        self.stream = MarketStream(
            lambda: market_body(market, clock.now_us()), lambda: clock.monotonic_ns() * 1e-9
        )
        self.draining = False
        self.vault = vault_of(settings.privacy, clock)
        #: Set by the composition root where traces are wanted.
        self.tracing: Tracing | None = None

    async def close(self) -> None:
        """Let go of what was opened here."""
        await self.tenancy.close()
        await self.sessions.close()
        await self._checker.close()
        await self._webhooks.close()

    def view(self) -> MarketView:
        """The view in force, for a decision: what it was made of is written down, once."""
        record = self.market.views.used()
        if record is not None:
            self.journal.view(record)
        return self.market.view

    def seed(self) -> int:
        """A fresh seed for a decision."""
        return secrets.randbits(63)

    def no_eligible_offer(self, decision: Decision, asked: BidRequest) -> MarketError:
        """Why nobody may serve: the rules and the request's own floors (422), or the state of the
        market just now (503): an offer turned away for its circuit or quota passes the rules.
        """
        counts = decision.no_bids
        reasons = ", ".join(f"{n} {reason}" for reason, n in counts.items())
        if counts.keys() & _PASSING and not counts.keys() & _FLOORS:
            wait_s = max(self.market.retry_in_s(), 0.1)
            return SellersFailed([], retry_after_s=wait_s)
        needs = Capability(asked.needs).names()
        if NoBid.CAPABILITY.value in counts:
            reasons += f"; it needs {', '.join(needs)}"
        return NoEligibleOffer(f"no offer can serve this request ({reasons})", counts, needs)
