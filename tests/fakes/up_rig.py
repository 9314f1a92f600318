"""A whole market on this machine for tests: `broker up` with its clocks turned fast, and a client.

`polled` is how tests wait: for a condition, with a deadline, and never for a while.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import aiohttp
import openai
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from analytics.store import Store
from broker.up import Up
from feeds.codec import Record, decode
from feeds.errors import BadRecord

T = TypeVar("T")
DEADLINE_S = 30.0
QUESTION: Any = [{"role": "user", "content": "What is 6 * 7?"}]


class Reply(NamedTuple):
    """A gateway's answer."""

    status: int
    body: Any
    headers: Any


async def polled(
    look: Callable[[], Awaitable[T | None]], what: str, within_s: float = DEADLINE_S
) -> T:
    """What `look` finds once it finds anything; fails after `within_s`."""
    end_s = time.monotonic() + within_s
    while True:
        found = await look()
        if found:
            return found
        assert time.monotonic() < end_s, f"not within {within_s:g} s: {what}"
        await asyncio.sleep(0.02)


class Market:
    """A market that is up, and the ways in that an app, an analyst and a tester have."""

    def __init__(self, up: Up, http: aiohttp.ClientSession, store: Store, up_store: Store) -> None:
        self.up = up
        self.http = http
        self.store = store
        self.up_store = up_store

    @property
    def url(self) -> str:
        return self.up.url

    def client(self, **more: Any) -> openai.AsyncOpenAI:
        """The real client, which does not try again by itself."""
        return openai.AsyncOpenAI(
            base_url=f"{self.url}/v1", api_key=self.up.keys["app"], max_retries=0, **more
        )

    async def send(
        self, method: str, path: str, *, key: str | None = None, url: str = "", **more: Any
    ) -> Reply:
        """One request; `key` "" sends none, None sends the app's."""
        headers = dict(more.pop("headers", {}))
        sent = self.up.keys["app"] if key is None else key
        if sent:
            headers["Authorization"] = f"Bearer {sent}"
        async with self.http.request(
            method, (url or self.url) + path, headers=headers, **more
        ) as response:
            raw = await response.read()
            kind = response.headers.get("content-type", "")
            body = await response.json() if kind.startswith("application/json") else raw
            return Reply(response.status, body, response.headers)

    async def ask(self, model: str = "market:math", *, url: str = "", **more: Any) -> Reply:
        """One chat completion."""
        body = {"model": model, "messages": QUESTION, **more}
        return await self.send("POST", "/v1/chat/completions", json=body, url=url)

    async def quote(self, offer: str) -> dict[str, Any]:
        """An offer as `GET /v1/market` shows it."""
        body = (await self.send("GET", "/v1/market")).body
        return next(o for o in body["data"] if o["offer"] == offer)

    async def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What an analyst sees."""
        return (await self.store.query(sql)).rows

    async def control(self, method: str, path: str, body: Any = None) -> Any:
        """The paper market's control port."""
        assert self.up.paper is not None
        url = f"{self.up.paper.control_url}/control/{path}"
        async with self.http.request(method, url, json=body) as response:
            assert response.status < 300, await response.text()
            return await response.json()

    async def warm(self) -> None:
        """Until a request's attempt has come back as a quote: every part is at work."""

        async def quoted() -> bool:
            offer = (await self.ask()).headers.get("x-broker-offer")
            return offer is not None and (await self.quote(offer))["quote_age_s"] is not None

        await polled(quoted, "a request's attempt moved a quote", 60.0)


@asynccontextmanager
async def market_up(
    data_dir: Path, *, time_scale: float = 0.1, **more: Any
) -> AsyncIterator[Market]:
    """A market, warmed up."""
    async with (
        Up(data_dir, time_scale=time_scale, **more) as up,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as http,
        await Store.open(up.analyst_store()) as store,
        await Store.open(up.settings.store) as up_store,
    ):
        market = Market(up, http, store, up_store)
        await market.warm()
        yield market


class TopicReader:
    """A topic from its beginning, a piece at a time, with plain aiokafka."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer

    async def more(self) -> list[Record]:
        """What came since the last look, waited for 0.1 s; what cannot be decoded is left out."""
        found: list[Record] = []
        for messages in (await self._consumer.getmany(timeout_ms=100)).values():
            for message in messages:
                try:
                    found.append(decode(message.value or b""))
                except BadRecord:
                    continue
        return found


@asynccontextmanager
async def reading(bootstrap: str, topic: str) -> AsyncIterator[TopicReader]:
    """A reader of `topic`, for one who waits for something that others write meanwhile."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    await consumer.start()
    try:
        await consumer.topics()
        numbers = consumer.partitions_for_topic(topic) or set()
        partitions = [TopicPartition(topic, n) for n in sorted(numbers)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        yield TopicReader(consumer)
    except KafkaError as error:
        raise AssertionError(f"{topic} cannot be read: {error}") from error
    finally:
        await consumer.stop()


async def read_topic(bootstrap: str, topic: str) -> list[Record]:
    """Everything on a topic that nobody writes to all the time: it is read until it is quiet."""
    async with reading(bootstrap, topic) as reader:
        found: list[Record] = []
        n_empty = 0
        while n_empty < 3:
            more = await reader.more()
            found += more
            n_empty = 0 if more else n_empty + 1
        return found
