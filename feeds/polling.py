"""The feeds' process: polls status pages and price lists, puts what is new on the log.

One active process per feed. What is in force and what is going on is read back from the log at
the start, so that a restart announces nothing twice. While the log is away, news waits in order,
bounded by what changes.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import Coroutine
from typing import Any

from msgspec.structs import replace

from bidding.market import Catalogue
from bidding.quote import Position
from feeds.catalogue.judge import OPS, PriceJudge
from feeds.catalogue.watch import PriceWatch
from feeds.clock import Clock
from feeds.codec import Record
from feeds.compacted import Follower, latest
from feeds.errors import LogUnavailable
from feeds.feed import FeedSettings
from feeds.fetch import Fetcher
from feeds.kafka import KafkaSettings
from feeds.market_records import FeedRecord, PriceRecord, StatusRecord
from feeds.polled import PolledFeed
from feeds.producer import LogProducer
from feeds.records import Written
from feeds.roster import enabled
from feeds.topics import FEEDS, PRICES, STATUS, Topic

logger = logging.getLogger(__name__)

_RETRY_S = 1.0
_MOST_OWED = 10_000


class Polling:
    """`await run()`; `stop()` ends it in order.

    Attributes
    ----------
    feeds : what is polled
    prices : the judge's view of all price lists
    """

    def __init__(
        self,
        settings: FeedSettings,
        kafka: KafkaSettings,
        clock: Clock,
        catalogue: Catalogue,
        rng: random.Random | None = None,
    ) -> None:
        self._settings = settings
        self._kafka = kafka
        self._clock = clock
        self._rng = rng or random.Random()
        self.prices = PriceWatch(catalogue.offers, PriceJudge(settings.judge))
        self.feeds = [PolledFeed(f, catalogue, self.prices, clock) for f in enabled(settings)]
        self._producer = LogProducer(kafka)
        self._owed: list[tuple[Topic, Written]] = []
        self._flushing = asyncio.Lock()
        self._reported_us: dict[str, int] = {}
        self._boot = secrets.token_hex(8)
        self._seq = 0
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        """End after what has begun."""
        self._stopped.set()

    async def run(self) -> None:
        """Poll until stopped.

        Raises
        ------
        LogRefused
            Somebody must look.
        """
        async with Fetcher(self._settings.fetch) as fetcher:
            await self._restore()
            confirmed = Follower(self._kafka, [PRICES], self._heard)
            work: list[Coroutine[Any, Any, Any]] = [self._keep(f, fetcher) for f in self.feeds]
            work += [confirmed.run(), self._stopped.wait()]
            tasks = [asyncio.create_task(each) for each in work]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            await self._flush()
        await self._producer.close()
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def poll(self, feed: PolledFeed, fetcher: Fetcher) -> None:
        """Look at one feed once and put what is new on the log."""
        failed_before = bool(feed.record.error)
        news = await feed.poll(fetcher)
        for record in news:
            self._owe(STATUS if isinstance(record, StatusRecord) else PRICES, record)
            logger.info("%s: %s", feed.feed.id, in_words(record))
        failed = bool(feed.record.error)
        if failed and not failed_before:
            logger.warning("%s: %s; its last good state stays", feed.feed.id, feed.record.error)
        due_us = self._reported_us.get(feed.feed.id, 0) + round(self._settings.report_s * 1e6)
        if news or failed != failed_before or feed.record.at_us >= due_us:
            self._reported_us[feed.feed.id] = feed.record.at_us
            told = replace(feed.record, refused=dict(feed.record.refused))
            self._owe(FEEDS, told)
        await self._flush()

    async def _keep(self, feed: PolledFeed, fetcher: Fetcher) -> None:
        spread = self._settings.jitter
        # Not all at once at the start, and never in step.
        await asyncio.sleep(self._rng.random() * min(feed.feed.poll_s, 5.0) * spread)
        while True:
            await self.poll(feed, fetcher)
            await asyncio.sleep(feed.pause_s * (1.0 - spread * self._rng.random()))

    async def _restore(self) -> None:
        while not self._stopped.is_set():
            try:
                prices = await latest(self._kafka, PRICES)
                status = await latest(self._kafka, STATUS)
            except LogUnavailable as error:
                logger.warning("waiting for the log: %s", error)
                await asyncio.sleep(_RETRY_S)
                continue
            self.prices.restore(r for r, _ in prices.values() if isinstance(r, PriceRecord))
            known = [r for r, _ in status.values() if isinstance(r, StatusRecord)]
            for feed in self.feeds:
                if feed.status is not None:
                    feed.status.restore(known)
            return

    def _heard(self, _key: str, record: Record | None, _position: Position) -> None:
        """Ops confirm a price by a record of their own."""
        if isinstance(record, PriceRecord) and record.source == OPS and not record.quarantined:
            self.prices.confirm(record)

    def _owe(self, topic: Topic, record: Written) -> None:
        self._seq += 1
        record.gateway, record.boot, record.seq = self._settings.id, self._boot, self._seq
        self._owed.append((topic, record))
        del self._owed[: max(0, len(self._owed) - _MOST_OWED)]

    async def _flush(self) -> None:
        async with self._flushing:
            while self._owed:
                topic = self._owed[0][0]
                run = [record for t, record in self._owed if t is topic]
                try:
                    await self._producer.publish(topic, run)
                except LogUnavailable as error:
                    logger.warning("%d records wait for the log: %s", len(self._owed), error)
                    return
                sent = {id(record) for record in run}
                self._owed = [(t, r) for t, r in self._owed if id(r) not in sent]


def in_words(record: StatusRecord | PriceRecord | FeedRecord) -> str:
    """A record on one line, for logs and people."""
    if isinstance(record, StatusRecord):
        whom = ", ".join(record.models) if record.scope == "models" else record.scope
        return f"{record.severity}, {record.state}: {record.title} ({whom})"
    if isinstance(record, PriceRecord):
        prices = record.prices
        usd = f"{prices.input_nusd_per_mtok / 1e9:g} / {prices.output_nusd_per_mtok / 1e9:g} USD"
        if record.withdrawn:
            end = "again" if record.released else "no longer"
            held = f", held: {record.quarantined}" if record.quarantined else ""
            return f"{record.offer}: sold {end} by {record.source}{held}"
        if record.released:
            return f"{record.offer}: {usd} no longer held"
        held = f", held: {record.quarantined}" if record.quarantined else ""
        return f"{record.offer}: {usd} by {record.source}{held}"
    return f"{record.feed}: {record.error or 'well'}"
