"""The whole paper market on its ports: `PaperMarket`, in this process.

Start it, read `catalogue` (base URLs hold the real ports) and `control_url`, stop it. Faults
can be set by method as well as through the control port; both are live at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage

from bidding.market import Catalogue
from broker.paper.behaviour import Behaviour
from broker.paper.control import control_app, offers_named
from broker.paper.embedders import with_embedders
from broker.paper.errors import BadControl
from broker.paper.faults import Fault, FaultPatch, FaultSpec
from broker.paper.ledger import LedgerTotals
from broker.paper.market_data import MarketData, load
from broker.paper.port import Port
from broker.paper.seller import Seller
from broker.paper.status_history import StatusHistory
from broker.paper.wires import base_path

MAX_BODY_BYTES = 32 << 20


class PaperMarket:
    """Simulated providers, each on its own port, and a control port.

    Parameters
    ----------
    seed : draws of right and wrong, lengths and latencies.
    time_scale : latencies are multiplied by this; 0.1 makes a market ten times as fast.
    api_key : the key all sellers accept.
    providers : ids of those to start; None starts all.
    most_chunks : a stream's content comes in at most this many chunks (real sellers send one
        a token; fewer cost less on a shared machine).
    control_port : 0 picks a free one.
    status_history : real incidents of the past to show on pages of their own.
    clock : wall clock, seconds since the epoch.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        time_scale: float = 1.0,
        api_key: str = "sk-paper",
        host: str = "127.0.0.1",
        providers: Sequence[str] | None = None,
        most_chunks: int = 24,
        control_port: int = 0,
        data: MarketData | None = None,
        status_history: StatusHistory | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.data = data or load()
        self.api_key = api_key
        self.behaviour = Behaviour(self.data, seed)
        known = [p.id for p in self.data.catalogue.providers]
        unknown = sorted(set(providers or []) - set(known))
        if unknown:
            raise BadControl(f"no such providers {unknown}; there are {known}")
        self._wanted = [name for name in known if providers is None or name in providers]
        self._time_scale = time_scale
        self._most_chunks = most_chunks
        self._host = host
        self._control_port = control_port
        self._clock = clock
        self.status_history = status_history
        self._sellers: dict[str, Seller] = {}
        self._ports: dict[str, Port] = {}
        self._runner: web.AppRunner | None = None
        self._catalogue: Catalogue | None = None
        self.control_url = ""

    @property
    def catalogue(self) -> Catalogue:
        """Providers, models and offers on sale here. Raises `BadControl` before `start`."""
        if self._catalogue is None:
            raise BadControl("the paper market has not been started")
        return self._catalogue

    @property
    def sellers(self) -> Mapping[str, Seller]:
        """The running sellers by provider id."""
        return self._sellers

    async def start(self) -> None:
        """Open every port. Raises `OSError` when one cannot be had."""
        sold = with_embedders(self.data.catalogue)
        models = {model.id: model for model in sold.models}
        for provider in sold.providers:
            if provider.id not in self._wanted:
                continue
            seller = Seller(
                provider,
                [o for o in sold.offers if o.provider == provider.id],
                models,
                self.behaviour,
                api_key=self.api_key,
                capacity=self.data.capacities[provider.id],
                time_scale=self._time_scale,
                most_chunks=self._most_chunks,
                clock=self._clock,
            )
            self._sellers[provider.id] = seller
            self._ports[provider.id] = port = Port(self._host, _server(seller), _refusal(seller))
            await port.open()
        self._runner = web.AppRunner(control_app(self, self._clock), access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._control_port)
        await site.start()
        port_number = self._runner.addresses[0][1]
        self.control_url = f"http://{self._host}:{port_number}"
        here = self.data.at({name: self._urls(name) for name in self._sellers})
        self._catalogue = with_embedders(here)

    async def stop(self) -> None:
        """Close every port; calls under way are reset."""
        for port in self._ports.values():
            await port.close()
        if self._runner is not None:
            await self._runner.cleanup()
        self._ports.clear()
        self._runner = None

    async def patch(self, provider: str, patch: FaultPatch, model: str | None = None) -> None:
        """Change what is on at a provider or at one of its models. Raises `BadControl`."""
        seller = self._sellers.get(provider)
        if seller is None:
            raise BadControl(f"no provider {provider!r}; there are {list(self._sellers)}")
        seller.board.apply(patch, None if model is None else offers_named(seller, model))
        seller.prices_updated_s = self._clock()
        port, on = self._ports[provider], seller.board.of(None)
        if Fault.DIE in on:
            port.die()
        elif Fault.BLACK_HOLE in on:
            port.black_hole()
        else:
            await port.open()
            if Fault.REFUSE in on:
                port.reset_all()

    async def set_faults(
        self, provider: str, faults: Sequence[FaultSpec], model: str | None = None
    ) -> None:
        """Make `faults` all that is on at a provider (or model)."""
        await self.patch(provider, FaultPatch(faults=list(faults)), model)

    async def clear_faults(self, provider: str, model: str | None = None) -> None:
        """Revive: nothing is wrong any more, at the provider or at one model."""
        await self.patch(provider, FaultPatch(faults=[]), model)

    def ledgers(self) -> dict[str, LedgerTotals]:
        """Every seller's totals."""
        return {name: seller.ledger.totals for name, seller in self._sellers.items()}

    def _urls(self, provider: str) -> tuple[str, str]:
        root = f"http://{self._host}:{self._ports[provider].number}"
        suffix = base_path(self._sellers[provider].provider)
        return root + suffix, f"{self.control_url}/status/{provider}.json"


def _server(seller: Seller) -> web.Server:
    def request_factory(
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        loop = task.get_loop()
        return web.BaseRequest(
            message, payload, protocol, writer, task, loop, client_max_size=MAX_BODY_BYTES
        )

    return web.Server(
        seller.handle,
        request_factory=request_factory,
        handler_cancellation=True,
        access_log=None,
        keepalive_timeout=75.0,
    )


def _refusal(seller: Seller) -> Callable[[], bool]:
    def refusing() -> bool:
        refused = Fault.REFUSE in seller.board.of(None)
        seller.ledger.connections_refused += refused
        return refused

    return refusing
