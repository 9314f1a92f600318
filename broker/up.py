"""`broker up`: the whole market on one machine, every service a process of its own.

Starts the embedded log and store and the paper market side by side, then the services, and
hands out addresses and keys. Services get an ordinary configuration file and cannot tell that
the log and the store are embedded.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any, Self

import aiohttp
import msgspec
from msgspec import Struct
from yarl import URL

from analytics.migrate import migrate
from analytics.restore import restore
from analytics.store import Store, StoreSettings
from bidding.errors import MarketError
from bidding.market import Catalogue
from broker.auth import SCOPES, Scope, new_key
from broker.children import ServiceProcess
from broker.config import (
    AdminSettings,
    AnalystSettings,
    GatewaySettings,
    KeySettings,
    Settings,
    analyst_store,
)
from broker.embedded.child import free_port
from broker.embedded.store import ChdbServer
from broker.embedded.tansu import GROUP_SESSION_TIMEOUT_MS, Tansu
from broker.paper.wires import key_at
from broker.recycle import keep_small, recycle, today
from feeds.clock import SystemClock
from feeds.feed import Feed, FeedSettings
from feeds.fetch import FetchSettings
from feeds.kafka import KafkaSettings, ensure_topics
from feeds.topics import TOPICS

logger = logging.getLogger(__name__)

_READY_S = 60.0
FEED_POLL_S = 5.0
LOG_MEMORY_BYTES = 512 * 1024 * 1024


class NotUp(MarketError):
    """The market did not come up; the message says which part and its last words."""


class PaperReady(Struct):
    """What the paper market's process says when its ports are open."""

    control_url: str
    api_key: str
    catalogue_file: str


class Up:
    """Everything that runs. `await start()`, then `await stop()`.

    Attributes
    ----------
    url : the gateway
    keys : one fresh key per scope, by scope
    page_key : one for people at the market page: app, analyst and ops
    seconds_to_ready : from `start` until the gateway was ready
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int = 0,
        workers: int = 1,
        time_scale: float = 1.0,
        log_memory_bytes: int = LOG_MEMORY_BYTES,
        feed_poll_s: float = FEED_POLL_S,
    ) -> None:
        self._data_dir = data_dir
        self._port = port
        self._workers = workers
        self._time_scale = time_scale
        self._log_memory_bytes = log_memory_bytes
        self._feed_poll_s = feed_poll_s
        self._watching: asyncio.Task[None] | None = None
        self._is_fresh = not (data_dir / "store").exists()
        self.log = Tansu()
        self.store = ChdbServer(data_dir / "store")
        self.keys: dict[Scope, str] = {}
        self.page_key = ""
        self.services: dict[str, ServiceProcess] = {}
        self.settings = Settings()
        self.paper: PaperReady | None = None
        self._paper: asyncio.subprocess.Process | None = None
        self.seconds_to_ready = 0.0

    @property
    def url(self) -> str:
        """Base URL of the gateway."""
        return f"http://{self.settings.gateway.host}:{self.settings.gateway.port}"

    @property
    def admin_url(self) -> str:
        """Base URL of the operators' port."""
        return self.settings.gateway.admin_url

    @property
    def _kafka(self) -> KafkaSettings:
        """The log as services on this machine should use it."""
        return KafkaSettings.embedded(
            self.log.bootstrap,
            max_partitions=1,
            session_timeout_ms=GROUP_SESSION_TIMEOUT_MS,
            hold_file=str(self._data_dir / "log.hold"),
        )

    @property
    def catalogue(self) -> Catalogue:
        """The catalogue the paper market sells."""
        return msgspec.json.decode(Path(self.settings.catalogue).read_bytes(), type=Catalogue)

    @property
    def config_path(self) -> Path:
        """The configuration every service was given."""
        return self._data_dir / "broker.json"

    def analyst_store(self) -> StoreSettings:
        """The store as an analyst may see it."""
        return analyst_store(self.settings)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start everything; returns when the gateway is ready.

        Raises
        ------
        NotUp
            Something did not come up in time.
        """
        begun_s = time.monotonic()
        self._data_dir.mkdir(parents=True, exist_ok=True)
        (self._data_dir / "logs").mkdir(exist_ok=True)
        try:
            await asyncio.gather(self._start_log(), self.store.start(), self._start_paper())
            self._configure()
            if self._is_fresh:
                await asyncio.gather(self._migrate(), self._start_services())
            else:
                # Compacted topics get their records back before anyone writes newer ones.
                await self._migrate()
                await self._restore()
                await self._start_services()
            await self._await_ready()
            # Polling starts beside the first requests, not in front of them.
            await self._start_service("feed", "feed", "run")
            self._watching = asyncio.create_task(
                keep_small(self.log, self._log_memory_bytes, self.recycle)
            )
        except BaseException:
            await self.stop()
            raise
        self.seconds_to_ready = time.monotonic() - begun_s

    async def stop(self) -> None:
        """Stop everything in order: the gateway, those who read the log, the log, the store."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        for name in ("feed", "admin", "gateway", "estimate", "record"):
            if name in self.services:
                await self.services.pop(name).stop()
        if self._paper is not None and self._paper.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._paper.terminate()
            await self._paper.wait()
        await self.log.stop()
        await self.store.stop()

    async def recycle(self) -> None:
        """Replace the log by a fresh one, losing nothing."""
        await recycle(self.log, self._kafka, self.settings.store)

    async def _start_log(self) -> None:
        await self.log.start()
        await ensure_topics(self._kafka, TOPICS)

    async def _start_paper(self) -> None:
        self._paper = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "broker.paper", "--with-stdin", "--time-scale", str(self._time_scale)),
            *("--port-file", str(self._data_dir / "catalogue.json")),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._paper.stdout is not None
        line = await asyncio.wait_for(self._paper.stdout.readline(), _READY_S)
        if not line:
            raise NotUp("the paper market ended before it was ready")
        self.paper = msgspec.json.decode(line, type=PaperReady)

    def _configure(self) -> None:
        """Write the configuration that all services read, with fresh keys; secrets stay in it."""
        assert self.paper is not None
        clock = SystemClock()
        held: list[KeySettings] = []

        def key_for(*scopes: Scope) -> str:
            key, record = new_key("demo", scopes, at_us=clock.now_us(), by="broker up")
            held.append(
                KeySettings(
                    id=record.key_id, sha256=record.digest, tenant="demo", scopes=record.scopes
                )
            )
            return key

        self.keys = {scope: key_for(scope) for scope in SCOPES}
        self.page_key = key_for("app", "analyst", "ops")
        catalogue = msgspec.json.decode(
            Path(self.paper.catalogue_file).read_bytes(), type=Catalogue
        )
        admin = AdminSettings(port=free_port())
        gateway = GatewaySettings(
            port=self._port or free_port(),
            workers=self._workers,
            admin_url=f"http://{admin.host}:{admin.port}",
        )
        self.settings = Settings(
            data_dir=str(self._data_dir),
            catalogue=self.paper.catalogue_file,
            gateway=gateway,
            admin=admin,
            kafka=self._kafka,
            store=StoreSettings(
                port=self.store.port,
                username=self.store.writer.user,
                password=self.store.writer.password,
            ),
            analyst=AnalystSettings(
                username=self.store.analyst.user, password=self.store.analyst.password
            ),
            feeds=paper_feeds(catalogue, self._feed_poll_s),
            keys=held,
            provider_keys={p.id: key_at(p, self.paper.api_key) for p in catalogue.providers},
        )
        descriptor = os.open(self.config_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(self.settings))

    async def _migrate(self) -> None:
        async with await Store.open(self.settings.store) as store:
            await migrate(store)

    async def _restore(self) -> None:
        async with await Store.open(self.settings.store) as store:
            await restore(store, self._kafka, today=today)

    async def _start_services(self) -> None:
        commands = {
            "gateway": "serve",
            "estimate": "estimate",
            "record": "record",
            "admin": "admin",
        }
        for name, command in commands.items():
            await self._start_service(name, command)

    async def _start_service(self, name: str, *command: str) -> None:
        service = ServiceProcess(
            name,
            ["broker", *command, "--config", str(self.config_path)],
            self._data_dir / "logs" / f"{name}.log",
        )
        self.services[name] = service
        await service.start()

    async def _await_ready(self) -> None:
        deadline_s = time.monotonic() + _READY_S
        urls = {"gateway": self.url, "admin": self.admin_url}
        async with aiohttp.ClientSession() as session:
            while time.monotonic() < deadline_s:
                name, url = next(iter(urls.items()))
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"{url}/readyz") as response:
                        if response.status == 200:
                            del urls[name]
                            if not urls:
                                return
                            continue
                await asyncio.sleep(0.05)
        late = next(iter(urls))
        raise NotUp(f"{late} was not ready within {_READY_S:g} s: {self.services[late].tail()}")


def paper_feeds(catalogue: Catalogue, poll_s: float) -> FeedSettings:
    """The status page and the price list of every seller of the paper market."""
    feeds: list[Feed] = []
    hosts: set[str] = set()
    for provider in catalogue.providers:
        prices = URL(provider.base_url).origin() / "prices"
        feeds.append(
            Feed(
                id=f"{provider.id}-prices",
                of="prices",
                format="price-page",
                url=str(prices),
                provider=provider.id,
            )
        )
        hosts.add(prices.host or "")
        if provider.status_url is not None:
            status = URL(provider.status_url)
            hosts.add(status.host or "")
            feeds.append(
                Feed(
                    id=f"{provider.id}-status",
                    format="statuspage",
                    url=provider.status_url,
                    provider=provider.id,
                )
            )
    return FeedSettings(
        own=tuple(feeds),
        status_poll_s=poll_s,
        prices_poll_s=poll_s,
        fetch=FetchSettings(private_hosts=tuple(sorted(hosts)), timeout_s=5.0),
    )


def connection_facts(up: Up) -> dict[str, Any]:
    """What a newcomer needs to use a market that is up."""
    store = up.analyst_store()
    return {
        "url": up.url,
        "admin": up.admin_url,
        "page": f"{up.url}/#key={up.page_key}",
        "app_key": up.keys["app"],
        "ops_key": up.keys["ops"],
        "clickhouse": f"http://{store.host}:{store.port}",
        "clickhouse_user": store.username,
        "clickhouse_password": store.password,
        "kafka": up.settings.kafka.bootstrap,
        "config": str(up.config_path),
    }
