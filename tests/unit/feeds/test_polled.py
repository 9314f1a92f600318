"""A feed at work over real sockets: the last good state stays whatever its host does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from bidding.market import Catalogue, Model, Offer, PriceList, Provider
from feeds.catalogue.judge import PriceJudge
from feeds.catalogue.watch import PriceWatch
from feeds.clock import ManualClock
from feeds.feed import Feed, FeedSettings, UnknownFeed
from feeds.fetch import Fetcher, FetchSettings
from feeds.freshness import influence, is_stale
from feeds.market_records import PriceRecord, StatusRecord
from feeds.polled import PolledFeed
from feeds.roster import checked, enabled, known
from tests.fakes import status_pages

LIST = PriceList(input_nusd_per_mtok=10**9, output_nusd_per_mtok=2 * 10**9)
CATALOGUE = Catalogue(
    providers=[
        Provider(id="acme", name="A", wire="openai", base_url="http://x", jurisdiction="us")
    ],
    models=[Model(id="m", family="m", context_window=1000, max_output_tokens=100)],
    offers=[
        Offer(provider="acme", model="m", prices=LIST, region="eu"),
        Offer(provider="acme", model="m", prices=LIST, region="us"),
    ],
)
HOSTILE: list[tuple[int, str, bytes]] = [
    (200, "text/html", b"<html>Sign in"),
    (200, "application/json", b'{"page": {'),
    (200, "application/json", b"\xff\xfe"),
    (200, "application/json", b""),
    (503, "application/json", b"{}"),
    (302, "application/json", b"{}"),
]


class Page:
    """A host with one document."""

    def __init__(self) -> None:
        self.status, self.kind, self.body = 200, "application/json", status_pages.STATUSPAGE
        self.url = ""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        tag = f'"{hash(self.body)}"'
        if self.status == 200 and request.headers.get("If-None-Match") == tag:
            return web.Response(status=304)
        headers = {"Content-Type": self.kind, "ETag": tag, "Location": "http://127.0.0.2/"}
        return web.Response(body=self.body, status=self.status, headers=headers)


@pytest_asyncio.fixture
async def host() -> AsyncIterator[Page]:
    page = Page()
    runner = web.ServerRunner(web.Server(page.handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    page.url = f"http://127.0.0.1:{runner.addresses[0][1]}/x"
    yield page
    await runner.cleanup()


@pytest_asyncio.fixture
async def fetcher() -> AsyncIterator[Fetcher]:
    async with Fetcher(FetchSettings(private_hosts=("127.0.0.1",), timeout_s=2)) as made:
        yield made


def polled(
    url: str, of: Any = "status", form: str = "statuspage"
) -> tuple[PolledFeed, ManualClock]:
    clock = ManualClock(1_709_288_400_000_000)
    feed = Feed(id="a", of=of, format=form, url=url, provider="acme", poll_s=60)
    prices = PriceWatch(CATALOGUE.offers, PriceJudge())
    return PolledFeed(feed, CATALOGUE, prices, clock), clock


async def test_hostile_answers_change_nothing_and_are_counted(host: Page, fetcher: Fetcher) -> None:
    feed, clock = polled(host.url)
    first = await feed.poll(fetcher)
    assert len(first) == 3
    assert feed.record.n_items == 2
    good_at_us = feed.record.good_at_us
    clock.advance(60)
    for n, (status, kind, body) in enumerate(HOSTILE, 1):
        host.status, host.kind, host.body = status, kind, body
        assert await feed.poll(fetcher) == []
        assert feed.record.error
        assert feed.record.n_bad + sum(feed.record.refused.values()) == n
    assert feed.status is not None
    assert len(feed.status.going_on) == 2
    assert feed.record.good_at_us == good_at_us
    assert feed.pause_s == 8 * 60
    assert set(feed.record.refused) == {"html", "status", "redirect"}
    host.status, host.kind, host.body = 200, "application/json", status_pages.STATUSPAGE
    assert await feed.poll(fetcher) == []
    assert (feed.record.error, feed.pause_s) == ("", 60)
    assert await feed.poll(fetcher) == []
    assert feed.record.n_unchanged == 1


async def test_a_price_list_is_heard_and_a_wild_price_is_held(host: Page, fetcher: Fetcher) -> None:
    def says(eu: float, us: float = 1.0) -> None:
        rows = [
            {"model": "m", "region": r, "input_usd_per_mtok": p, "output_usd_per_mtok": 2 * p}
            for r, p in (("eu", eu), ("us", us))
        ]
        host.body = json.dumps({"provider": "?", "currency": "USD", "prices": rows}).encode()

    feed, _ = polled(host.url, "prices", "price-page")
    says(1.0)
    assert await feed.poll(fetcher) == []
    assert feed.record.n_items == 2
    says(1.5)
    (raised,) = await feed.poll(fetcher)
    assert isinstance(raised, PriceRecord)
    assert (raised.offer, raised.prices.input_nusd_per_mtok) == ("acme/m@eu", 1_500_000_000)
    assert raised.old == LIST
    says(1500.0)
    (held,) = await feed.poll(fetcher)
    assert isinstance(held, PriceRecord)
    assert "1e+03-fold" in held.quarantined
    assert feed.record.n_held == 1
    assert await feed.poll(fetcher) == []
    says(1.5)
    (released,) = await feed.poll(fetcher)
    assert isinstance(released, PriceRecord)
    assert released.released
    assert feed.record.n_held == 0


async def test_what_is_unchanged_keeps_a_feed_fresh_and_silence_makes_its_word_worth_less(
    host: Page, fetcher: Fetcher
) -> None:
    feed, clock = polled(host.url)
    for _ in range(20):
        await feed.poll(fetcher)
        assert not is_stale(feed.record, clock.now_us())
        clock.advance(60)
    assert influence(feed.record, clock.now_us()) == 1.0
    worth = []
    for _ in range(6):
        clock.advance(600)
        worth.append(influence(feed.record, clock.now_us()))
    assert is_stale(feed.record, clock.now_us())
    assert worth == sorted(worth, reverse=True)
    assert worth[0] > 0.5
    assert worth[-1] < 0.05


def test_only_what_is_enabled_is_polled() -> None:
    assert enabled(FeedSettings()) == []
    found = enabled(FeedSettings(enabled=("openai", "genai-prices"), status_poll_s=30.0))
    assert [(f.id, f.poll_s) for f in found] == [("openai", 30.0), ("genai-prices", 900.0)]
    moved = Feed(id="openai", format="feed", url="https://y", provider="openai")
    assert known(FeedSettings(own=(moved,)))["openai"].url == "https://y"


@pytest.mark.parametrize(
    ("feed", "fault"),
    [
        (Feed(id="a", format="nothing", url="u", provider="p"), "no format"),
        (Feed(id="a", format="feed", provider="p"), "no url"),
        (Feed(id="a", format="feed", url="u"), "no provider"),
        (Feed(id="a", of="prices", format="statuspage", url="u"), "price-page"),
    ],
)
def test_a_feed_that_cannot_be_polled_is_a_fault_of_configuration(feed: Feed, fault: str) -> None:
    with pytest.raises(UnknownFeed, match=fault):
        checked(feed, FeedSettings())
    with pytest.raises(UnknownFeed, match="openai"):
        enabled(FeedSettings(enabled=("opneai",)))


async def test_the_packages_own_prices_need_no_network() -> None:
    feed, _ = polled("", "prices", "genai-prices")
    async with Fetcher() as fetcher:
        await feed.poll(fetcher)
    assert feed.record.error == ""


def test_records_know_their_topic() -> None:
    from feeds.topics import STATUS, key_of

    record = StatusRecord(
        provider="p", at_us=0, component="", severity="none", state="", since_us=0, incident_id="7"
    )
    assert key_of(STATUS, record) == b"p/7"
