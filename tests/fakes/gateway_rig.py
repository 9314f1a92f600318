"""Gateways on real sockets over the paper market, without a log: what they would write is kept.

Several gateways may share one state file, as the workers of a machine do.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec
from aiohttp import web

from bidding.market import Catalogue
from bidding.quote import Quote
from broker.analyst_desk import AnalystDesk
from broker.app import dispatcher_of
from broker.auth import new_key
from broker.config import Settings
from broker.dispatch_settings import DispatchSettings
from broker.gateway import make_app
from broker.gateway_state import GatewayState
from broker.journal import Journal
from broker.live_market import LiveMarket
from broker.metrics import Metrics
from broker.paper.serve import PaperMarket
from broker.paper.wires import key_at
from broker.providers.capable import completed
from broker.recent import RecentDecisions
from broker.reopening import Reopener
from broker.reporting import analyst_store
from broker.serve import RequestLine
from broker.sessions import offer_facts
from broker.shared_state import SharedState
from broker.silence import keep_listening
from broker.state_sqlite import SqliteState
from broker.upstream import Upstream
from feeds.clock import Clock, SystemClock
from feeds.codec import Record, decode
from feeds.control_records import KeyPolicy
from feeds.kafka import KafkaSettings, Message
from feeds.producer import Delivery
from feeds.records import DecisionRecord
from feeds.spool import Spool, SpoolSettings


class KeptLog:
    """Takes what a spool delivers, and keeps it; takes nothing while `may_take` is not set."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.may_take = asyncio.Event()
        self.may_take.set()

    async def deliver(self, messages: Sequence[Message]) -> Delivery:
        await self.may_take.wait()
        self.records += [decode(m.value) for m in messages]
        return Delivery([None] * len(messages), [], [])


class Reply(NamedTuple):
    status: int
    headers: Any
    body: Any


class Gateway:
    """One worker: its market, its state and the way to it."""

    def __init__(self, url: str, state: GatewayState, log: KeptLog, spool: Spool) -> None:
        self.url = url
        self.state = state
        self.log = log
        self._spool = spool

    @property
    def market(self) -> LiveMarket:
        return self.state.market

    def key(self, tenant: str = "acme", **policy: Any) -> str:
        """A fresh app key in force on this worker."""
        key, record = new_key(
            tenant, ("app",), at_us=1, by="test", policy=msgspec.convert(policy, KeyPolicy)
        )
        self.market.keys.apply(record)
        return key

    def learn(self, **ttft_ms: float) -> None:
        """Quotes for offers, by provider: what is believed of their first token."""
        for provider, ms in ttft_ms.items():
            for offer in self.market.book.offers.offer_ids:
                if offer.startswith(f"{provider}/"):
                    self.market.book.apply_quote(quote(offer, ms))
        self.market.refresh()

    async def written(self, kind: type[Any]) -> list[Any]:
        """The records of a kind that have gone to the log."""
        assert await self._spool.flush(5.0)
        return [r for r in self.log.records if isinstance(r, kind)]


def quote(offer: str, ttft_ms: float) -> Quote:
    return Quote(
        offer=offer,
        at_us=1,
        ttft_log_ms=math.log(ttft_ms),
        ttft_log_sd=0.3,
        ttft_n=200.0,
        tpot_log_ms=math.log(0.5),
        tpot_log_sd=0.2,
        tpot_n=200.0,
        fail_share=0.01,
        fail_n=200.0,
    )


class Rig:
    """The paper market and the gateways over it."""

    def __init__(self, paper: PaperMarket, gateways: list[Gateway], http: Any) -> None:
        self.paper = paper
        self.gateways = gateways
        self.http: aiohttp.ClientSession = http

    @property
    def gateway(self) -> Gateway:
        return self.gateways[0]

    async def ask(
        self,
        key: str,
        prompt: str = "What is 6 * 7?",
        *,
        gateway: Gateway | None = None,
        headers: dict[str, str] | None = None,
        **body: Any,
    ) -> Reply:
        """One chat completion; streams are read to their end as text."""
        told = {"model": "market", "messages": [{"role": "user", "content": prompt}]} | body
        at = gateway or self.gateway
        sent = {"Authorization": f"Bearer {key}"} | (headers or {})
        async with self.http.post(
            f"{at.url}/v1/chat/completions", json=told, headers=sent
        ) as response:
            whole = await response.read()
            is_json = response.content_type == "application/json"
            return Reply(
                response.status,
                response.headers,
                msgspec.json.decode(whole) if is_json else whole.decode(),
            )

    async def get(self, key: str, path: str) -> Reply:
        async with self.http.get(
            self.gateway.url + path, headers={"Authorization": f"Bearer {key}"}
        ) as response:
            return Reply(response.status, response.headers, await response.json())


@asynccontextmanager
async def rig(
    folder: Path,
    *,
    providers: Sequence[str] = ("groq", "novita", "together"),
    models: Sequence[str] | None = ("llama-3-8b",),
    time_scale: float = 0.02,
    n_gateways: int = 1,
    clock: Clock | None = None,
    settings: dict[str, Any] | None = None,
    dispatch: DispatchSettings | None = None,
    catalogue: Any = None,
    shared: SharedState | None = None,
    most_chunks: int = 8,
) -> AsyncIterator[Rig]:
    """`n_gateways` workers that sell `models` of `providers`, sharing one state."""
    async with AsyncExitStack() as stack:
        paper = PaperMarket(time_scale=time_scale, providers=providers, most_chunks=most_chunks)
        await paper.start()
        stack.push_async_callback(paper.stop)
        sold = narrowed(paper.catalogue, models)
        if catalogue is not None:
            sold = catalogue(sold)
        gateways = [
            await _gateway(
                stack, folder, i, sold, paper.api_key, clock or SystemClock(), settings or {},
                dispatch, shared,
            )
            for i in range(n_gateways)
        ]  # fmt: skip
        http = await stack.enter_async_context(
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=30), connector=aiohttp.TCPConnector(limit=0)
            )
        )
        yield Rig(paper, gateways, http)


def narrowed(catalogue: Catalogue, models: Sequence[str] | None) -> Catalogue:
    """The offers of `models` alone."""
    if models is None:
        return catalogue
    offers = [o for o in catalogue.offers if o.model in models]
    kept = [m for m in catalogue.models if m.id in models]
    return msgspec.structs.replace(catalogue, offers=offers, models=kept)


async def _gateway(
    stack: AsyncExitStack,
    folder: Path,
    worker: int,
    catalogue: Catalogue,
    api_key: str,
    clock: Clock,
    more: dict[str, Any],
    dispatch: DispatchSettings | None,
    shared: SharedState | None,
) -> Gateway:
    settings = Settings(
        data_dir=str(folder),
        provider_keys={p.id: key_at(p, api_key) for p in catalogue.providers},
        **more,
    )
    catalogue = completed(catalogue)
    metrics = Metrics()
    market = LiveMarket(catalogue, KafkaSettings(), clock, metrics)
    log = KeptLog()
    spool = Spool(SpoolSettings(path=str(folder / f"spool-{worker}.sqlite")), log, gateway="t")
    await spool.start()
    stack.push_async_callback(spool.close)
    if shared is None:
        shared = SqliteState(folder / "state.sqlite", settings.state)
        await shared.start()
        stack.push_async_callback(shared.close)
    journal = Journal(spool, RecentDecisions(10_000), metrics, clock)

    async def nothing_stored(decision: str, tenant: str) -> None:
        return None

    async def nothing_replayed(decision: DecisionRecord) -> dict[str, Any]:
        return {}

    desk = AnalystDesk(analyst_store(settings))
    stack.push_async_callback(desk.close)
    state = GatewayState(
        settings,
        market,
        journal,
        metrics,
        clock,
        stored_flight=nothing_stored,
        replayed=nothing_replayed,
        shared=shared,
        desk=desk,
        facts=offer_facts(catalogue),
    )
    stack.push_async_callback(state.close)
    upstream = Upstream()
    await upstream.start()
    stack.push_async_callback(upstream.close)
    dispatcher = dispatcher_of(
        settings, catalogue, market, journal, upstream, clock,
        rng=random.Random(1), dispatch=dispatch,
    )  # fmt: skip
    reopener = Reopener(settings.probes, market, dispatcher, clock)
    stack.push_async_callback(reopener.close)
    reopener.start()
    listening = asyncio.create_task(keep_listening(dispatcher.silence, dispatcher.stalls, market))
    stack.callback(listening.cancel)
    keeping = asyncio.create_task(market.keep_fresh())
    stack.callback(keeping.cancel)
    runner = web.AppRunner(
        make_app(state, RequestLine(state, dispatcher)), handler_cancellation=True, access_log=None
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return Gateway(f"http://127.0.0.1:{runner.addresses[0][1]}", state, log, spool)
