"""What `broker feed` does: feeds listed, fetched once and told, held prices put in force."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace
from yarl import URL

from bidding.market import Catalogue
from broker.config import Settings
from broker.services import read_catalogue
from feeds.catalogue.judge import OPS, PriceJudge
from feeds.catalogue.sources import source
from feeds.catalogue.watch import PriceWatch
from feeds.clock import SystemClock
from feeds.compacted import latest
from feeds.errors import FeedError
from feeds.feed import Feed, FeedSettings
from feeds.fetch import Fetcher
from feeds.market_records import PriceRecord
from feeds.polling import in_words
from feeds.producer import LogProducer
from feeds.roster import checked, enabled, find, known
from feeds.status.formats import parse
from feeds.status.pages import concern_of
from feeds.status.watch import StatusWatch, stage_at
from feeds.topics import PRICES


class NothingHeld(FeedError):
    """There is no such price in quarantine; the message lists those there are."""


def listing(settings: FeedSettings) -> list[dict[str, Any]]:
    """Every feed known, those that are polled first."""
    polled = {feed.id: feed for feed in enabled(settings)}
    rows = [
        {
            "id": feed.id,
            "of": feed.of,
            "provider": feed.provider,
            "format": feed.format,
            "url": feed.url,
            "enabled": feed.id in polled,
            "poll_s": polled[feed.id].poll_s if feed.id in polled else 0.0,
        }
        for feed in known(settings).values()
    ]
    return sorted(rows, key=lambda r: (not r["enabled"], r["of"], r["id"]))


async def understood(
    settings: Settings, feed_id: str, *, url: str | None = None, private: bool = False
) -> dict[str, Any]:
    """Fetch a feed once; what was understood.

    Raises
    ------
    UnknownFeed, FetchFailed, BadRecord
    """
    feed = find(known(settings.feeds), feed_id)
    feed = checked(replace(feed, url=url) if url else feed, settings.feeds)
    bounds = settings.feeds.fetch
    host = URL(feed.url).host or ""
    if private and host:
        bounds = replace(bounds, private_hosts=(*bounds.private_hosts, host))
    catalogue = (
        read_catalogue(settings)
        if settings.catalogue
        else Catalogue(providers=[], models=[], offers=[])
    )
    body = b""
    if feed.url:
        async with Fetcher(bounds) as fetcher:
            body = (await fetcher.fetch(feed.url)).body or b""
    told = _status(feed, body, catalogue) if feed.of == "status" else _prices(feed, body, catalogue)
    return {
        "feed": feed.id,
        "of": feed.of,
        "format": feed.format,
        "url": feed.url,
        "understood": True,
        "n_bytes": len(body),
        **told,
    }


def _status(feed: Feed, body: bytes, catalogue: Catalogue) -> dict[str, Any]:
    now_us = SystemClock().now_us()
    sheet = parse(feed.format, body)
    offers = [o for o in catalogue.offers if o.provider == feed.provider]
    watch = StatusWatch(feed.page, offers)
    watch.take(sheet, now_us)
    going = watch.going_on
    return {
        "n_incidents": len(sheet.incidents),
        "n_going_on": len(going),
        "components": sheet.components,
        "incidents": [
            {
                **msgspec.to_builtins(incident),
                "stage": stage_at(incident, now_us),
                "concerns": msgspec.to_builtins(concern_of(feed.page, incident, offers)),
            }
            for incident in sheet.incidents
        ],
        "n_skipped": sheet.n_skipped,
        "skipped": sheet.skipped,
        "lines": [
            f"{len(sheet.incidents)} incidents, {len(going)} going on",
            *(in_words(r) for r in going),
        ],
    }


def _prices(feed: Feed, body: bytes, catalogue: Catalogue) -> dict[str, Any]:
    origin = source(feed.format)
    if origin.local is not None:
        sheet = origin.local()
    else:
        assert origin.parse is not None
        sheet = origin.parse(body)
    watch = PriceWatch(catalogue.offers, PriceJudge())
    matched = {o.id for o, _ in watch.matched(origin, sheet, feed.provider)}
    news = watch.take(origin, sheet, SystemClock().now_us(), feed.provider)
    return {
        "n_listings": len(sheet.listings),
        "n_offers": len(matched),
        "changes": [msgspec.to_builtins(r) for r in news],
        "n_held": sum(bool(r.quarantined) for r in news),
        "n_skipped": sheet.n_skipped,
        "skipped": sheet.skipped,
        "lines": [
            f"{len(sheet.listings)} listings, {len(matched)} of our offers",
            *(in_words(r) for r in news),
        ],
    }


async def confirmed(settings: Settings, offer: str, reported_by: str = "") -> PriceRecord:
    """Put a held price in force, by ops' word; the record, once the log has it.

    Raises
    ------
    NothingHeld, LogUnavailable, LogRefused
    """
    held = {
        (record.offer, record.source): record
        for record, _ in (await latest(settings.kafka, PRICES)).values()
        if isinstance(record, PriceRecord) and record.quarantined and not record.released
    }
    found = [r for (o, s), r in held.items() if o == offer and reported_by in ("", s)]
    if len(found) != 1:
        there = ", ".join(f"{o} by {s}" for o, s in sorted(held)) or "none"
        raise NothingHeld(f"{len(found)} prices of {offer} are held; in quarantine: {there}")
    record = PriceRecord(
        offer=offer,
        at_us=SystemClock().now_us(),
        prices=found[0].prices,
        source=OPS,
        old=found[0].old,
        withdrawn=found[0].withdrawn,
        gateway="ops",
    )
    async with LogProducer(settings.kafka) as producer:
        await producer.publish(PRICES, [record])
    return record
