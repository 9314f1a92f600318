"""What feeds say and how they are doing, as a gateway shows it: incidents, held prices, freshness.

Nothing here moves the market: prices in force go to the book, incidents through the estimators.
"""

from __future__ import annotations

from typing import Any, Final

from bidding.units import NUSD_PER_USD
from broker.metrics import Metrics
from feeds.codec import Record
from feeds.freshness import is_stale, stale_after_s
from feeds.market_records import FeedRecord, PriceRecord, StatusRecord

_MOST_SHOWN: Final = 500


class FeedBoard:
    """The newest record of every feed, incident and price in quarantine."""

    def __init__(self) -> None:
        self.feeds: dict[str, FeedRecord] = {}
        self._incidents: dict[tuple[str, str], StatusRecord] = {}
        self._held: dict[tuple[str, str], PriceRecord] = {}
        self._withdrawn: dict[str, PriceRecord] = {}

    def take(self, record: Record | None) -> bool:
        """Take in what is shown here; False for all that is none of it."""
        if isinstance(record, FeedRecord):
            self.feeds[record.feed] = record
        elif isinstance(record, StatusRecord):
            key = (record.provider, record.incident_id)
            if record.state == "resolved":
                self._incidents.pop(key, None)
            else:
                self._incidents[key] = record
        elif isinstance(record, PriceRecord) and record.quarantined:
            if record.released:
                self._held.pop((record.source, record.offer), None)
            else:
                self._held[record.source, record.offer] = record
        else:
            if isinstance(record, PriceRecord):
                self._withdrawn.pop(record.offer, None)
                if record.withdrawn:
                    self._withdrawn[record.offer] = record
            return False
        return True

    def age_s(self, feed: FeedRecord, now_us: int) -> float | None:
        """Since a feed was last understood; None: never."""
        return (now_us - feed.good_at_us) * 1e-6 if feed.good_at_us else None

    def measure(self, metrics: Metrics, now_us: int) -> None:
        """Set the feeds' metrics."""
        metrics.prices_held.set(len(self._held))
        for feed in self.feeds.values():
            age_s = self.age_s(feed, now_us)
            metrics.feed_age_seconds.labels(feed.feed).set(
                now_us * 1e-6 if age_s is None else age_s
            )
            metrics.feed_stale.labels(feed.feed).set(is_stale(feed, now_us))
            metrics.feed_items.labels(feed.feed).set(feed.n_items)
            for refusal, n in {**feed.refused, "unreadable": feed.n_bad}.items():
                metrics.feed_refused.labels(feed.feed, refusal).set(n)

    def body(self, now_us: int) -> dict[str, Any]:
        """`GET /v1/feeds`."""
        feeds = []
        for feed in sorted(self.feeds.values(), key=lambda f: f.feed):
            age_s = self.age_s(feed, now_us)
            feeds.append(
                {
                    "feed": feed.feed,
                    "of": feed.of,
                    "provider": feed.provider,
                    "format": feed.format,
                    "state": _state(feed, now_us),
                    "age_s": None if age_s is None else round(age_s, 3),
                    "stale_after_s": stale_after_s(feed),
                    "polls": feed.n_polls,
                    "unchanged": feed.n_unchanged,
                    "unreadable": feed.n_bad,
                    "refused": feed.refused,
                    "items": feed.n_items,
                    "held": feed.n_held,
                    "error": feed.error,
                }
            )
        incidents = sorted(self._incidents.values(), key=lambda r: -r.since_us)[:_MOST_SHOWN]
        held = sorted(self._held.values(), key=lambda r: r.at_us)[:_MOST_SHOWN]
        return {
            "object": "list",
            "data": feeds,
            "incidents": [_incident(r) for r in incidents],
            "held_prices": [_held_price(r) for r in held],
            "withdrawn": [
                {"offer": r.offer, "source": r.source, "since_us": r.at_us}
                for r in sorted(self._withdrawn.values(), key=lambda r: r.at_us)[:_MOST_SHOWN]
            ],
        }


def _state(feed: FeedRecord, now_us: int) -> str:
    if is_stale(feed, now_us):
        return "stale"
    return "failing" if feed.error else "fresh"


def _incident(record: StatusRecord) -> dict[str, Any]:
    return {
        "provider": record.provider,
        "incident": record.incident_id,
        "title": record.title,
        "component": record.component,
        "severity": record.severity,
        "state": record.state,
        "since_us": record.since_us,
        "told_us": record.told_us,
        "concerns": record.scope,
        "models": record.models,
        "regions": record.regions,
        "feed": record.feed,
    }


def _held_price(record: PriceRecord) -> dict[str, Any]:
    prices, old = record.prices, record.old
    return {
        "offer": record.offer,
        "source": record.source,
        "withdrawn": record.withdrawn,
        "why": record.quarantined,
        "since_us": record.at_us,
        "input_usd_per_mtok": prices.input_nusd_per_mtok / NUSD_PER_USD,
        "output_usd_per_mtok": prices.output_nusd_per_mtok / NUSD_PER_USD,
        "in_force_input_usd_per_mtok": old and old.input_nusd_per_mtok / NUSD_PER_USD,
        "in_force_output_usd_per_mtok": old and old.output_nusd_per_mtok / NUSD_PER_USD,
    }
