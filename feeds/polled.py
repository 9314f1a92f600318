"""One feed at work: fetched, understood, and what of it is news. No log here.

A document that cannot be had or read changes nothing: the last good state stays, the failure is
counted and told in the feed's own record.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from bidding.market import Catalogue
from feeds.catalogue.listing import PriceSheet
from feeds.catalogue.sources import source
from feeds.catalogue.watch import PriceWatch
from feeds.clock import Clock
from feeds.errors import BadRecord, FeedError, FetchFailed
from feeds.feed import Feed
from feeds.fetch import Fetched, Fetcher
from feeds.market_records import FeedRecord, PriceRecord, StatusRecord
from feeds.status.formats import parse
from feeds.status.incident import StatusSheet
from feeds.status.watch import StatusWatch

_MOST_ERROR: Final = 300
_MOST_BACK_OFF: Final = 8


class PolledFeed:
    """A feed, its watch and how it is doing.

    Attributes
    ----------
    record : FeedRecord, as of the last poll
    """

    def __init__(self, feed: Feed, catalogue: Catalogue, prices: PriceWatch, clock: Clock) -> None:
        self.feed = feed
        self._clock = clock
        self._prices = prices
        offers = [o for o in catalogue.offers if o.provider == feed.provider]
        self.status = StatusWatch(feed.page, offers) if feed.of == "status" else None
        self._page: StatusSheet | None = None
        self._sheet: PriceSheet | None = None
        self._had: Fetched | None = None
        self._fetched: Fetched | None = None
        self._n_failed = 0
        self.record = FeedRecord(
            feed=feed.id,
            of=feed.of,
            provider=feed.provider,
            format=feed.format,
            at_us=clock.now_us(),
            good_at_us=0,
            changed_at_us=0,
            poll_s=feed.poll_s,
        )

    @property
    def pause_s(self) -> float:
        """Until the next poll: longer after failures, so that a host in trouble has peace."""
        return self.feed.poll_s * min(2.0 ** min(self._n_failed, 3), _MOST_BACK_OFF)

    async def poll(self, fetcher: Fetcher) -> list[StatusRecord | PriceRecord]:
        """Look once; what is new. Never raises for the feed's sake."""
        self.record.n_polls += 1
        try:
            news = self._understood(await self._document(fetcher))
        except FetchFailed as error:
            refused = self.record.refused
            refused[error.refusal] = refused.get(error.refusal, 0) + 1
            self._failed(error)
            return []
        except BadRecord as error:
            self.record.n_bad += 1
            self._failed(error)
            return []
        now_us = self._clock.now_us()
        self.record.at_us = self.record.good_at_us = now_us
        self.record.changed_at_us = now_us if news else self.record.changed_at_us
        self.record.error = ""
        self._n_failed = 0
        return news

    def _failed(self, error: FeedError) -> None:
        self._n_failed += 1
        self._had = None  # ask for all of it again: what we had may be what cannot be read
        self.record.at_us = self._clock.now_us()
        self.record.error = str(error)[:_MOST_ERROR]

    async def _document(self, fetcher: Fetcher) -> bytes | None:
        """The bytes; None when they are those of the last time, or the source is local."""
        if self.feed.of == "prices" and source(self.feed.format).local is not None:
            return None
        if self.feed.url.startswith("file:"):
            return _read(self.feed.url)
        had = self._had
        fetched = await fetcher.fetch(
            self.feed.url, etag=had.etag if had else "", modified=had.modified if had else ""
        )
        self._fetched = fetched
        if fetched.body is None:
            self.record.n_unchanged += 1
        return fetched.body

    def _understood(self, body: bytes | None) -> list[StatusRecord | PriceRecord]:
        now_us = self._clock.now_us()
        news: list[StatusRecord | PriceRecord] = []
        if self.status is not None:
            if body is not None:
                self._page = parse(self.feed.format, body)
            assert self._page is not None
            # Also when nothing changed: maintenance begins and ends by its plan.
            news += self.status.take(self._page, now_us)
            self.record.n_items = len(self.status.going_on)
        else:
            origin = source(self.feed.format)
            if origin.local is not None:
                self._sheet = self._sheet or origin.local()
            elif body is not None:
                assert origin.parse is not None
                self._sheet = origin.parse(body)
            assert self._sheet is not None
            # Also when nothing changed: prices may hold by the hour.
            news += self._prices.take(origin, self._sheet, now_us, self.feed.provider)
            matched = self._prices.matched(origin, self._sheet, self.feed.provider)
            self.record.n_items = len({offer.id for offer, _ in matched})
            held = self._prices.judge.held()
            ours = f"{self.feed.provider}/" if self.feed.provider else ""
            self.record.n_held = sum(
                h.source == origin.name and h.offer.startswith(ours) for h in held
            )
        self._had = self._fetched
        return news


def _read(url: str) -> bytes:
    """A list of our own on disk."""
    path = Path(unquote(urlsplit(url).path))
    try:
        return path.read_bytes()
    except OSError as error:
        raise FetchFailed("address", f"{url}: {error.strerror}") from error
