"""How fresh a feed is, and what its word is still worth when it is not. Pure.

A feed is stale once it has not been understood for `STALE_POLLS` of its pauses, whoever is at
fault: the host, the document, our process. From then on what it said counts half as much with
every further `DECAY_POLLS` pauses, so that an incident whose page died does not weigh for ever.
"""

from __future__ import annotations

from typing import Final

from feeds.market_records import FeedRecord

STALE_POLLS: Final = 5.0
DECAY_POLLS: Final = 10.0
_LEAST_S: Final = 30.0
"""No feed goes stale sooner: reports of feeds come every few seconds, not at every poll."""


def stale_after_s(feed: FeedRecord) -> float:
    """How long a feed may be silent."""
    return max(STALE_POLLS * feed.poll_s, _LEAST_S)


def is_stale(feed: FeedRecord, now_us: int) -> bool:
    """Whether nothing has been understood of it for too long."""
    return (now_us - feed.good_at_us) * 1e-6 > stale_after_s(feed)


def influence(feed: FeedRecord | None, now_us: int) -> float:
    """What its word is worth, in 0..1; one that nothing is known of counts whole."""
    if feed is None:
        return 1.0
    beyond_s = (now_us - feed.good_at_us) * 1e-6 - stale_after_s(feed)
    if beyond_s <= 0:
        return 1.0
    return float(0.5 ** min(beyond_s / max(DECAY_POLLS * feed.poll_s, _LEAST_S), 60.0))
