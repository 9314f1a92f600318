"""The composition root of the gateway: the only file that builds its concrete parts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import socket
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from analytics.errors import NotStored, StoreError
from analytics.explain import decision_line
from analytics.notices import notices
from analytics.remake import remake
from analytics.seasons import season_cells
from analytics.store import Store
from bidding.columns import Floats
from bidding.market import Catalogue
from bidding.waiting import Forecast
from broker import services
from broker.analyst_desk import AnalystDesk
from broker.config import ConfigError, Settings, analyst_store
from broker.credentials import Credentials
from broker.dispatch import Dispatcher
from broker.dispatch_settings import DispatchSettings
from broker.gateway import make_app
from broker.gateway_state import GatewayState
from broker.journal import Journal
from broker.live_market import LiveMarket, digest_of
from broker.metrics import Metrics
from broker.order import Order
from broker.probing import Prober
from broker.providers import aws_signature
from broker.providers.base import Seat
from broker.providers.capable import installed
from broker.public_port import PublicPort
from broker.recent import Flight, RecentDecisions
from broker.reopening import Reopener
from broker.revocation import follow_revocations
from broker.second_opinion import cached_opinion, second_opinion
from broker.serve import RequestLine
from broker.sessions import offer_facts
from broker.silence import keep_listening
from broker.state import open_state
from broker.tracing import Tracing
from broker.upstream import Upstream
from feeds.clock import Clock, SystemClock
from feeds.control_records import CatalogueRecord
from feeds.errors import FeedError
from feeds.producer import LogProducer
from feeds.records import AttemptRecord, DecisionRecord
from feeds.spool import Spool, SpoolSettings

logger = logging.getLogger(__name__)

_DRAIN_S = 25.0
_STORED_WITHIN_S = 8.0


async def run_gateway(settings: Settings, worker: int = 0) -> None:
    """Serve until told to stop, then drain."""
    clock = SystemClock()
    metrics = Metrics()
    catalogue = services.read_catalogue(settings)
    market = LiveMarket(
        catalogue,
        settings.kafka,
        clock,
        metrics,
        view_interval_s=settings.gateway.view_interval_s,
    )
    for held in settings.keys:
        market.keys.apply(held.record())
    gateway_id = f"{socket.gethostname()}-{worker}"
    async with contextlib.AsyncExitStack() as stack:
        producer = LogProducer(settings.kafka)
        spool_path = Path(settings.data_dir) / f"spool-{worker}.sqlite"
        spool_path.parent.mkdir(parents=True, exist_ok=True)
        spool = Spool(
            SpoolSettings(path=str(spool_path)), producer, gateway=gateway_id, alarm=_alarm
        )
        push_producer = LogProducer(settings.kafka)
        push_spool = Spool(
            SpoolSettings(
                path=str(Path(settings.data_dir) / f"push-{worker}.sqlite"),
                max_memory_records=200_000,
                max_memory_bytes=64 * 1024 * 1024,
            ),
            push_producer,
            gateway=f"{gateway_id}/push",
            alarm=_alarm,
        )
        await spool.start()
        await push_spool.start()
        stack.push_async_callback(producer.close)
        stack.push_async_callback(push_producer.close)
        stack.push_async_callback(spool.close)
        stack.push_async_callback(push_spool.close)
        journal = Journal(
            spool,
            RecentDecisions(settings.gateway.recent_decisions),
            metrics,
            clock,
            push_spool,
        )
        journal.catalogue(
            CatalogueRecord(at_us=clock.now_us(), catalogue=catalogue, digest=digest_of(catalogue))
        )
        history = _History(settings)
        stack.push_async_callback(history.close)
        desk = AnalystDesk(analyst_store(settings))
        stack.push_async_callback(desk.close)
        shared = open_state(settings)
        await shared.start()
        stack.push_async_callback(shared.close)
        state = GatewayState(
            settings,
            market,
            journal,
            metrics,
            clock,
            history.flight,
            history.replayed,
            shared,
            desk,
            offer_facts(catalogue),
            history.notices,
        )
        state.tracing = tracing_of(settings, metrics, gateway_id, journal)
        if state.tracing is not None:
            stack.push_async_callback(asyncio.to_thread, state.tracing.close)
        stack.push_async_callback(state.close)
        stack.callback(state.prompts.close)
        if settings.gateway.prompt_features:
            state.prompts.load_beside()
        upstream = Upstream()
        await upstream.start()
        stack.push_async_callback(upstream.close)
        dispatcher = dispatcher_of(settings, catalogue, market, journal, upstream, clock)
        if any(p.wire == "bedrock" and installed(p.wire) for p in catalogue.providers):
            await asyncio.to_thread(aws_signature.load)
        follow = asyncio.create_task(market.run())
        if worker == 0 and settings.probes.budget_usd_day:
            prober = Prober(
                settings.probes, market, dispatcher, shared, clock, history.calls_by_hour
            )
            probing = asyncio.create_task(prober.run())
            stack.callback(probing.cancel)
        reopener = Reopener(settings.probes, market, dispatcher, clock)
        stack.push_async_callback(reopener.close)
        reopener.start()
        listening = asyncio.create_task(
            keep_listening(dispatcher.silence, dispatcher.stalls, market)
        )
        stack.callback(listening.cancel)
        spot = asyncio.create_task(state.spot.run())
        stack.push_async_callback(state.spot.close)
        stack.callback(spot.cancel)
        revoking = asyncio.create_task(follow_revocations(shared, market.keys, spool, clock))
        port = PublicPort(settings.gateway.connections)
        runner = web.AppRunner(
            make_app(state, RequestLine(state, dispatcher), port),
            handler_cancellation=True,
            access_log=None,
            shutdown_timeout=_DRAIN_S,
            keepalive_timeout=port.settings.keepalive_s,
            lingering_time=port.settings.linger_s,
        )
        await runner.setup()
        assert runner.server is not None
        await port.start(runner.server, settings.gateway.host, settings.gateway.port)
        logger.info("gateway %s serves at %s:%d", gateway_id, settings.gateway.host, port.number)
        stopped = asyncio.Event()
        services.on_signals(stopped.set)
        stopping = asyncio.create_task(stopped.wait())
        await asyncio.wait([stopping, follow], return_when=asyncio.FIRST_COMPLETED)
        state.draining = True
        await port.stop()
        await runner.cleanup()
        for task in (stopping, follow, revoking):
            task.cancel()
        ends = await asyncio.gather(follow, stopping, revoking, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end


def serve_workers(settings: Settings) -> int:
    """Serve with as many processes as the settings say, sharing the port; the exit code."""
    import uvloop

    if settings.gateway.workers == 1:
        uvloop.run(run_gateway(settings))
        return 0
    children: dict[int, int] = {}
    for worker in range(settings.gateway.workers):
        children[_fork(settings, worker)] = worker
    stopping = False

    def pass_on(number: int, _frame: object) -> None:
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(_number: int, _frame: object) -> None:
        nonlocal stopping
        stopping = True
        pass_on(signal.SIGTERM, None)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    while children:
        pid, status = os.wait()
        worker = children.pop(pid)
        if not stopping:
            logger.error("worker %d ended with %d and is started again", worker, status)
            children[_fork(settings, worker)] = worker
    return 0


def _fork(settings: Settings, worker: int) -> int:
    import uvloop

    pid = os.fork()
    if pid:
        return pid
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    code = 0
    try:
        uvloop.run(run_gateway(settings, worker))
    except Exception:
        logger.exception("worker %d failed", worker)
        code = 1
    finally:
        sys.stderr.flush()
        os._exit(code)


def tracing_of(
    settings: Settings, metrics: Metrics, instance: str, journal: Journal
) -> Tracing | None:
    """The way out for traces and metrics, where an endpoint is named; its code is not loaded else.

    Raises
    ------
    ConfigError
        The extra `[otel]` is not installed.
    """
    if not settings.otel.endpoint:
        return None
    try:
        from broker.otel import Otel
    except ImportError as error:
        raise ConfigError(["otel.endpoint: install the extra [otel]"]) from error
    return Otel(settings.otel, metrics.registry, instance=instance, refresh=journal.update_gauges)


class _History:
    """The way to ClickHouse, opened at the first question and again after a failure."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store: Store | None = None

    async def flight(self, decision_id: str, tenant: str) -> Flight | None:
        """A stored flight; None when there is none, or history cannot be asked now."""
        try:
            if self._store is None:
                self._store = await Store.open(self._settings.store)
            line = await decision_line(self._store, decision_id)
        except StoreError as error:
            logger.warning("history cannot be asked: %s", error)
            return None
        if line is None or line.decision.tenant != tenant:
            return None
        return Flight(line.decision, line.attempts, line.feedback)

    async def calls_by_hour(self) -> dict[str, Floats]:
        """Calls known of each offer by hour of the week; nothing where history cannot be asked."""
        today = datetime.now(UTC).date()
        oldest = today - timedelta(days=today.weekday(), weeks=12)
        try:
            if self._store is None:
                self._store = await Store.open(self._settings.store)
            cells = await season_cells(self._store, now=today, oldest=oldest)
        except StoreError as error:
            logger.warning("history cannot be asked: %s", error)
            return {}
        return dict(zip(cells.offers, cells.n, strict=True))

    async def notices(
        self, seller: str, offer: str, since_us: int, most: int
    ) -> list[dict[str, Any]]:
        """What became of a seller's asks, newest first.

        Raises
        ------
        StoreUnavailable, StoreRejected
        """
        if self._store is None:
            self._store = await Store.open(self._settings.store)
        return await notices(self._store, seller, offer=offer, since_us=since_us, most=most)

    async def replayed(self, record: DecisionRecord) -> dict[str, Any]:
        """The decision made again. A view read a moment ago is waited for while it is stored.

        Raises
        ------
        NotStored, StoreUnavailable, StoreRejected
        """
        if record.cached_from:
            return cached_opinion(record)
        deadline = asyncio.get_running_loop().time() + _STORED_WITHIN_S
        while True:
            if self._store is None:
                self._store = await Store.open(self._settings.store)
            try:
                again = await remake(self._store, record)
            except NotStored:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(0.25)
                continue
            # Some hundred auctions: not while requests wait for the loop.
            return await asyncio.to_thread(second_opinion, again)

    async def close(self) -> None:
        if self._store is not None:
            await self._store.close()


def dispatcher_of(
    settings: Settings,
    catalogue: Catalogue,
    market: LiveMarket,
    journal: Journal,
    upstream: Upstream,
    clock: Clock,
    *,
    rng: random.Random | None = None,
    dispatch: DispatchSettings | None = None,
) -> Dispatcher:
    """The dispatcher of a gateway: what it learns goes to its market and its journal."""
    providers = {p.id: p for p in catalogue.providers}
    models = {m.id: m for m in catalogue.models}
    credentials = Credentials(settings.provider_keys, clock.monotonic_ns)
    seats = {
        offer.id: Seat(
            offer=offer,
            provider=providers[offer.provider],
            model=models[offer.model],
            key=credentials.key(offer.provider),
        )
        for offer in catalogue.offers
    }

    def seated(offer: str) -> Seat | None:
        seat = seats.get(offer)
        if seat is None or not credentials.changes(seat.provider.id):
            return seat
        return msgspec.structs.replace(seat, key=credentials.key(seat.provider.id))

    def forecast(offer: str) -> Forecast | None:
        row = market.book.offers.row_of.get(offer)
        if row is None:
            return None
        latency = market.view.quotes.latency
        return Forecast(
            latency.ttft_log_ms.item(row),
            latency.ttft_log_sd.item(row),
            latency.tpot_log_ms.item(row),
            latency.tpot_log_sd.item(row),
            latency.tpot_n.item(row),
        )

    def ended(record: AttemptRecord) -> None:
        market.ended(
            record.offer,
            record.failure,
            took_s=max(record.at_us - record.started_at_us, 0) * 1e-6,
            retry_after_s=record.retry_after_s,
        )
        journal.attempt(record)

    async def secure(order: Order, offer: str) -> None:
        row = market.book.offers.row_of.get(offer)
        if market.spot is None or row is None:
            return
        listed = market.book.prices(row)
        if order.prices.get(offer, listed) == listed:
            return
        if not await market.spot.secure(order.decision_id, row, order.most_tokens):
            order.prices[offer] = listed

    return Dispatcher(
        upstream=upstream,
        seats=seated,
        forecasts=forecast,
        settings=dispatch or DispatchSettings(),
        clock=clock,
        rng=rng or random.Random(),
        on_attempt=ended,
        on_sent=market.sent,
        on_headers=market.heard,
        secure=secure,
    )


def _alarm(error: FeedError) -> None:
    logger.error("spool: %s", error)
