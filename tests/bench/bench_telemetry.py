"""Pushed events a second that one worker accepts from NDJSON, over real HTTP onto a real log.

One gateway process with its own spool, the embedded log, and a client that posts ready-made bodies
of 2,000 lines over four connections from a process of its own. The time counts from the first
request to the last event's acknowledgement by the log; gateway, client and log share this machine's
cores, so it is less than what the worker could do alone.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import msgspec
from aiohttp import web

from broker.analyst_desk import AnalystDesk
from broker.app import dispatcher_of
from broker.auth import new_key
from broker.config import Settings, analyst_store
from broker.embedded.tansu import Tansu
from broker.gateway import make_app
from broker.gateway_state import GatewayState
from broker.journal import Journal
from broker.live_market import LiveMarket
from broker.metrics import Metrics
from broker.recent import RecentDecisions
from broker.serve import RequestLine
from broker.sessions import offer_facts
from broker.state import open_state
from broker.upstream import Upstream
from feeds.clock import SystemClock
from feeds.control_records import KeyPolicy
from feeds.kafka import KafkaSettings, ensure_topics
from feeds.producer import LogProducer
from feeds.spool import Spool, SpoolSettings
from feeds.topics import TOPICS
from tests.bench.market import catalogue

N_EVENTS = 200_000
N_LINES = 2_000
_N_CONNECTIONS = 4


def body(offers: tuple[str, ...], now_us: int) -> bytes:
    """`N_LINES` ordinary events of `offers`."""
    lines = [
        {
            "offer": offers[i % len(offers)],
            "at_us": now_us - i * 1_000,
            "ttft_ms": 200.0 + i % 331,
            "latency_ms": 900.0 + i % 1777,
            "input_tokens": 400 + i % 900,
            "output_tokens": 100 + i % 300,
            "streaming": True,
            **({"error": "server_error"} if i % 50 == 0 else {}),
        }
        for i in range(N_LINES)
    ]
    return b"\n".join(msgspec.json.encode(line) for line in lines)


async def _rate(n_events: int) -> float:
    clock, metrics = SystemClock(), Metrics()
    with tempfile.TemporaryDirectory() as folder:
        async with Tansu() as log:
            kafka = KafkaSettings.embedded(log.bootstrap)
            await ensure_topics(kafka, TOPICS)
            settings = Settings(data_dir=folder, kafka=kafka)
            made = catalogue(100)
            market = LiveMarket(made, kafka, clock, metrics)
            key, record = new_key(
                "t", ("telemetry",), at_us=1, by="bench", policy=KeyPolicy(source="bench")
            )
            market.keys.apply(record)
            shared = open_state(settings)
            await shared.start()
            async with LogProducer(kafka) as producer:
                spool = Spool(
                    SpoolSettings(
                        path=str(Path(folder) / "push"),
                        max_memory_records=200_000,
                        max_memory_bytes=64 * 1024 * 1024,
                    ),
                    producer,
                    gateway="bench/push",
                )
                await spool.start()
                journal = Journal(spool, RecentDecisions(10), metrics, clock)
                upstream = Upstream()
                desk = AnalystDesk(analyst_store(settings))

                async def nothing(*_: object) -> None:
                    return None

                state = GatewayState(
                    settings,
                    market,
                    journal,
                    metrics,
                    clock,
                    nothing,
                    nothing,
                    shared,
                    desk,
                    offer_facts(made),
                )
                line = RequestLine(
                    state, dispatcher_of(settings, made, market, journal, upstream, clock)
                )
                runner = web.AppRunner(make_app(state, line), access_log=None)
                await runner.setup()
                site = web.TCPSite(runner, "127.0.0.1", 0)
                await site.start()
                url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/telemetry"
                try:
                    posted = body(market.book.offers.offer_ids, clock.now_us())
                    await _post(url, key, posted, N_LINES * 4)
                    assert await spool.flush(60)
                    begun, n_accepted = await _posted_apart(
                        url, key, posted, n_events, Path(folder)
                    )
                    if not await spool.flush(60):
                        raise TimeoutError("the log did not take what was accepted")
                    took_s = time.perf_counter() - begun
                finally:
                    await runner.cleanup()
                    await state.tenancy.close()
                    await spool.close()
                    await desk.close()
                    await shared.close()
                if spool.stats.n_dropped or n_accepted != n_events:
                    raise AssertionError(f"{n_accepted} accepted, {spool.stats}")
    return n_accepted / took_s


async def _posted_apart(
    url: str, key: str, posted: bytes, n_events: int, folder: Path
) -> tuple[float, int]:
    """Have a process of its own post, as pushers are; when it began, and how many were accepted.

    Linux has one monotonic clock for all processes.
    """
    file = folder / "body"
    file.write_bytes(posted)
    asked = (url, key, str(file), str(n_events))
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.bench_telemetry", *asked, stdout=asyncio.subprocess.PIPE
    )
    told, _ = await client.communicate()
    begun, accepted = told.split()
    return float(begun), int(accepted)


async def _post(url: str, key: str, posted: bytes, n_events: int) -> int:
    """Post `n_events` in bodies, over several connections at once; how many were accepted."""
    left, accepted = n_events // N_LINES, 0
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/x-ndjson"}

    async def keep_posting(http: aiohttp.ClientSession) -> None:
        nonlocal left, accepted
        while left > 0:
            left -= 1
            async with http.post(url, data=posted, headers=headers) as answer:
                told = json.loads(await answer.read())
                accepted += told["accepted"]

    async with aiohttp.ClientSession() as http:
        await asyncio.gather(*(keep_posting(http) for _ in range(_N_CONNECTIONS)))
    return accepted


def figures() -> dict[str, float]:
    """`telemetry_events_per_s`: accepted and on the log; the best of three rounds."""
    import uvloop

    return {"telemetry_events_per_s": round(max(uvloop.run(_rate(N_EVENTS)) for _ in range(3)))}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        to, with_key, of, n = sys.argv[1:]
        began, content = time.perf_counter(), Path(of).read_bytes()
        print(began, asyncio.run(_post(to, with_key, content, int(n))))
    else:
        print(figures())
