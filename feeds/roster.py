"""The feeds that ship with the broker, and those that the settings make of them."""

from __future__ import annotations

from msgspec.structs import replace

from feeds.catalogue.sources import SOURCES
from feeds.feed import Feed, FeedSettings, UnknownFeed
from feeds.status.formats import FORMATS
from feeds.status.pages import known_pages


def shipped() -> dict[str, Feed]:
    """The feeds that ship with the broker, by id."""
    found = {
        page.id: Feed(
            id=page.id,
            format=page.format,
            url=page.url,
            provider=page.of,
            only=page.only,
            ignore=page.ignore,
            models=page.models,
        )
        for page in known_pages()
    }
    for source in SOURCES.values():
        if source.url or source.local is not None:
            found[source.name] = Feed(
                id=source.name, of="prices", format=source.name, url=source.url
            )
    return found


def known(settings: FeedSettings) -> dict[str, Feed]:
    """All feeds by id: those that ship, with `own` in place of or beside them."""
    return {**shipped(), **{feed.id: feed for feed in settings.own}}


def enabled(settings: FeedSettings) -> list[Feed]:
    """The feeds to poll, each with its pause.

    Raises
    ------
    UnknownFeed
        An id is not known, or a feed's format or address is missing.
    """
    feeds = known(settings)
    wanted = dict.fromkeys([*settings.enabled, *(f.id for f in settings.own)])
    return [checked(find(feeds, feed_id), settings) for feed_id in wanted]


def find(feeds: dict[str, Feed], feed_id: str) -> Feed:
    """The feed of that id. Raises `UnknownFeed`."""
    if feed_id not in feeds:
        raise UnknownFeed(f"no feed {feed_id!r}; there are {', '.join(sorted(feeds))}")
    return feeds[feed_id]


def checked(feed: Feed, settings: FeedSettings) -> Feed:
    """The feed with its pause. Raises `UnknownFeed` when it cannot be polled."""
    formats = set(FORMATS) if feed.of == "status" else set(SOURCES)
    if feed.format not in formats:
        raise UnknownFeed(
            f"feed {feed.id}: no format {feed.format!r}; there are {', '.join(sorted(formats))}"
        )
    is_local = feed.of == "prices" and SOURCES[feed.format].local is not None
    if not feed.url and not is_local:
        raise UnknownFeed(f"feed {feed.id}: no url")
    if feed.of == "status" and not feed.provider:
        raise UnknownFeed(f"feed {feed.id}: no provider")
    pause_s = settings.status_poll_s if feed.of == "status" else settings.prices_poll_s
    return replace(feed, poll_s=feed.poll_s or pause_s)
