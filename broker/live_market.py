"""The market as this gateway knows it now: one book, fed from the log, and the view in force.

Quotes, skills, prices, params and keys are followed on their compacted topics; the gateway's own
circuits lie over them. `view` is replaced in one assignment: at a steady pace while anything
changed, made warm for the kinds of request seen lately; and at once, cold, when a circuit opens,
closes or spends a probe. The compiled kernel is loaded beside the work; decisions do not wait for
it, and are the same without it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from bidding.book import MarketBook
from bidding.kernel import compiled
from bidding.market import Catalogue
from bidding.outcome import FailureClass
from bidding.params import Params
from bidding.quote import Position
from bidding.trial import Trial
from bidding.view import MarketView
from bidding.warming import Warmer
from broker.auth import KeyRing
from broker.feed_board import FeedBoard
from broker.metrics import Metrics
from broker.overlay import Overlay
from broker.providers.limits import quota_left
from broker.spot import SpotAsks
from feeds.booking import BOOKED, take
from feeds.clock import Clock
from feeds.codec import Record
from feeds.compacted import Follower
from feeds.control_records import KeyRecord, ParamsRecord
from feeds.kafka import KafkaSettings
from feeds.live_params import ParamsInForce
from feeds.market_records import AskRecord, QuoteRecord, SourceRecord
from feeds.topics import FEEDS, KEYS, PARAMS, SOURCES, STATUS
from feeds.views import Made, ViewLog

logger = logging.getLogger(__name__)

_WARM_SLICE_NS = 500_000


def digest_of(catalogue: Catalogue) -> str:
    """What names a catalogue's content."""
    return hashlib.sha256(msgspec.json.encode(catalogue)).hexdigest()[:32]


class LiveMarket:
    """The book, its overlay and the view in force.

    Parameters
    ----------
    view_interval_s : how often a changed book becomes a new view
    """

    def __init__(
        self,
        catalogue: Catalogue,
        kafka: KafkaSettings,
        clock: Clock,
        metrics: Metrics,
        *,
        view_interval_s: float = 0.05,
    ) -> None:
        self._clock = clock
        self._metrics = metrics
        self._interval_s = view_interval_s
        self.catalogue = catalogue
        self.in_force = ParamsInForce()
        self.keys = KeyRing()
        self.book = MarketBook(catalogue)
        self.overlay = Overlay(self.book.offers, catalogue, self.params.reliability.circuit)
        self.feeds = FeedBoard()
        followed = [*BOOKED, PARAMS, KEYS, SOURCES, FEEDS, STATUS]
        self.follower = Follower(kafka, followed, self.on_record)
        self.views = ViewLog(
            catalogue=digest_of(catalogue), defaults=msgspec.json.encode(self.params).decode()
        )
        self._dirty = False
        self._muted_until_us: dict[str, int] = {}
        self.spot: SpotAsks | None = None
        providers = {p.id: p for p in catalogue.providers}
        self._provider_of = {o.id: providers[o.provider] for o in catalogue.offers}
        self._warmer = Warmer()
        self.view, made = self._new_view()
        self.views.put_in_force(made)

    @property
    def params(self) -> Params:
        """In force for all that no trial has taken."""
        return self.in_force.params

    @property
    def shadow(self) -> Trial | None:
        """Params that only tell what they would buy."""
        return self.in_force.shadow

    @property
    def canary(self) -> Trial | None:
        """Params under which a share of requests is bought."""
        return self.in_force.canary

    @property
    def ready(self) -> bool:
        """Whether everything that was on the log at the start has been taken in."""
        return self.follower.caught_up.is_set()

    async def run(self) -> None:
        """Follow the log and keep the view fresh, until cancelled."""
        threading.Thread(target=self._load_kernel, name="kernel", daemon=True).start()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.follower.run())
            tasks.create_task(self.keep_fresh())

    def on_record(self, key: str, record: Record | None, position: Position) -> None:
        """Take in what a followed topic says."""
        if isinstance(record, QuoteRecord):
            self._metrics.quotes.inc()
        if isinstance(record, KeyRecord):
            self.keys.apply(record)
        elif isinstance(record, ParamsRecord):
            self._apply_params(record)
        elif isinstance(record, SourceRecord):
            self._hear(record)
        elif self.feeds.take(record):
            return
        elif take(self.book, record):
            self.views.took(key, position)
            self._dirty = True
            if isinstance(record, AskRecord) and self.spot is not None:
                self.spot.heard(self.book.offers.row_of[record.offer], record)

    def _hear(self, record: SourceRecord) -> None:
        """A source of telemetry is muted, or heard again: shown, and alarmed once."""
        self._muted_until_us[record.source] = record.until_us
        self.update_gauges()
        if record.until_us > self._clock.now_us():
            logger.warning("telemetry of %r is not heard: see %s", record.source, record.offer)

    def update_gauges(self) -> None:
        """Bring what passes with time into the metrics."""
        now_us = self._clock.now_us()
        for source, until_us in self._muted_until_us.items():
            self._metrics.source_muted.labels(source).set(float(now_us < until_us))

    def sent(self, offer: str, n_tokens: float = 0.0) -> None:
        """A call to `offer` goes out that will use about so many tokens."""
        if self.overlay.sent(offer, n_tokens, self._now_s()):
            self.refresh()

    def heard(self, offer: str, headers: Mapping[str, str], took_s: float = 0.0) -> None:
        """The headers of an answer of `offer`, which may tell what is left of a quota; they came
        `took_s` after their call was sent.
        """
        left = quota_left(headers, self._provider_of[offer], self._clock.now_us() * 1e-6)
        now_s = self._now_s()
        if left is not None and self.overlay.told(offer, left, now_s - took_s, now_s):
            self.refresh()

    def ended(
        self, offer: str, failure: FailureClass, *, took_s: float, retry_after_s: float | None
    ) -> None:
        """A call to `offer` has ended."""
        now_s = self._now_s()
        changed = self.overlay.ended(
            offer, failure, now_s, sent_at_s=now_s - took_s, retry_after_s=retry_after_s
        )
        if changed:
            self.refresh()

    def pass_over(self, offers: frozenset[str]) -> None:
        """Buy of others while the calls that are out to `offers` are silent."""
        for offer in self.overlay.silent_now(offers):
            self._metrics.passed_over.labels(offer).inc()
        self.refresh()

    def refresh(self) -> None:
        """Put a new view in force now."""
        self._warmer.note(self.view, self._clock.now_us(), self._tried())
        self.view, made = self._new_view()
        self.views.put_in_force(made)

    async def _refresh_warm(self) -> None:
        """Put a new view in force that has the slates of the kinds of request seen lately.

        Requests are let through between slates, on the old view, so that none waits for more
        than `_WARM_SLICE_NS`. A view put in force meanwhile is newer and stays.
        """
        self._warmer.note(self.view, self._clock.now_us(), self._tried())
        view, made = self._new_view()
        worked_ns = 0
        begun_ns = self._clock.monotonic_ns()
        for _ in self._warmer.steps(view, self.params, self._tried()):
            took_ns = self._clock.monotonic_ns() - begun_ns
            if took_ns > _WARM_SLICE_NS:
                worked_ns += took_ns
                await asyncio.sleep(0)
                begun_ns = self._clock.monotonic_ns()
        worked_ns += self._clock.monotonic_ns() - begun_ns
        self._metrics.view_warm_seconds.observe(worked_ns * 1e-9)
        if view.number > self.view.number:
            self.view = view
            self.views.put_in_force(made)

    def _tried(self) -> dict[str, Params]:
        """Params under which some requests are bought, by arm."""
        canary = self.canary
        return {} if canary is None else {canary.arm: canary.params}

    def _load_kernel(self) -> None:
        """On a thread of its own: importing the compiler takes seconds."""
        begun_s = self._now_s()
        kernel = self.book.kernel = compiled()
        took_s = self._now_s() - begun_s
        word = "none: not installed, or not of one mind with the array path"
        logger.info("decision kernel %s", word if kernel is None else f"ready after {took_s:.1f} s")

    def retry_in_s(self) -> float:
        """Until the first blocked offer may be tried again."""
        return self.overlay.retry_in_s(self._now_s())

    def health(self) -> list[str]:
        """Each offer's circuit as this gateway sees it, in row order."""
        return self.overlay.health(self._now_s())

    async def keep_fresh(self) -> None:
        """Put a new view in force whenever something has changed, until cancelled."""
        while True:
            await asyncio.sleep(self._interval_s)
            if self._dirty or self._overlay_moved():
                await self._refresh_warm()

    def _overlay_moved(self) -> bool:
        """Whether time alone has changed who is kept from bidding, or a quota's price."""
        now_s, last = self._now_s(), self._overlay
        if not np.array_equal(self.overlay.circuit_open(now_s), last["circuit_open"]):
            return True
        if not np.array_equal(self.overlay.half_open(now_s), last["half_open"]):
            return True
        if not self.overlay.quotas.any:
            return False
        price = self.overlay.quotas.prices_nusd(self.params.choice.quota_price_usd, now_s)
        return not (
            np.array_equal(self.overlay.quota_blocked(now_s), last["quota_blocked"])
            and np.array_equal(price[0], last["quota_nusd"])
            and np.array_equal(price[1], last["quota_token_nusd"])
        )

    def _new_view(self) -> tuple[MarketView, Made]:
        self._dirty = False
        now_s = self._now_s()
        quotas = self.overlay.quotas
        per_request, per_token = quotas.prices_nusd(self.params.choice.quota_price_usd, now_s)
        overlay: dict[str, Any] = {
            "circuit_open": self.overlay.circuit_open(now_s),
            "quota_blocked": self.overlay.quota_blocked(now_s),
            "half_open": self.overlay.half_open(now_s),
            "n_inflight": self.overlay.n_inflight.copy(),
            "quota_nusd": per_request,
            "quota_token_nusd": per_token,
        }
        spent = None if self.spot is None else self.spot.spent()
        if spent is not None:
            overlay["ask_spent"] = spent
        self._overlay = overlay
        view = self.book.view(self._clock.now_us(), **overlay)
        self._metrics.view_number.set(view.number)
        return view, self.views.made(view.number, view.at_us, overlay)

    def _apply_params(self, record: ParamsRecord) -> None:
        if self.in_force.take(record):
            self.overlay.steer(self.params.reliability.circuit)

    def _now_s(self) -> float:
        return self._clock.monotonic_ns() * 1e-9
