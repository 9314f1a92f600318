"""How many attempts a second go from the log through the recorder into ClickHouse and rollups.

The log is filled first; then the recorder starts, and the time counts from its first stored row to
its last, so that neither our own producer nor the group's joining is measured. All parts share
this machine's cores: log, recorder, engine.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from analytics.migrate import migrate
from analytics.recorder import Recording
from analytics.store import Store, StoreSettings
from bidding.outcome import FailureClass
from broker.embedded.store import ChdbServer
from broker.embedded.tansu import Tansu
from feeds.codec import encode
from feeds.kafka import KafkaSettings, Message
from feeds.producer import LogProducer
from feeds.records import AttemptRecord
from feeds.topics import ATTEMPTS

N_EVENTS = 400_000
_T0_US = 1_790_000_000_000_000


def attempt(i: int) -> Message:
    """An attempt of ordinary size (about 590 bytes) at one of 100 offers."""
    offer = f"provider-{i % 10}/model-{i % 100:02d}"
    record = AttemptRecord(
        gateway="gateway-1",
        boot="6f1c2a",
        seq=i,
        attempt_id=f"{i * 2654435761 % (1 << 64):032x}",
        decision_id=f"{i * 40503 % (1 << 64):032x}",
        n=1,
        offer=offer,
        provider=offer.split("/")[0],
        model=offer.split("/")[1],
        task="chat",
        tenant=f"tenant-{i % 7}",
        sla_class=f"tenant-{i % 7}/chat/q0.9",
        source="gateway",
        at_us=_T0_US + i * 500,
        started_at_us=_T0_US + i * 500 - 900_000,
        failure=FailureClass.SERVER_ERROR if i % 50 == 0 else FailureClass.OK,
        ttft_ms=200.0 + i % 331,
        total_ms=900.0 + i % 1777,
        input_tokens=400 + i % 900,
        output_tokens=100 + i % 300,
        cost_nusd=150_000 + i % 10_000,
        n_inflight=i % 12,
        http_status=200,
    )
    return Message(ATTEMPTS.name, offer.encode(), encode(record))


async def figures(n_events: int = N_EVENTS) -> dict[str, float]:
    """`recorder_events_per_s`: attempts a second, log to rollups, while a backlog drains."""
    with tempfile.TemporaryDirectory() as folder:
        async with Tansu() as log, ChdbServer(Path(folder)) as engine:
            kafka = KafkaSettings.embedded(log.bootstrap)
            settings = StoreSettings(
                port=engine.port, username=engine.writer.user, password=engine.writer.password
            )
            async with await Store.open(settings) as store:
                await migrate(store)
                await _fill(kafka, n_events)
                rate = await _drain(kafka, settings, n_events)
                n_rolled = (await store.query("SELECT sum(n) FROM market.offer_minutes")).rows[0][0]
    if n_rolled != n_events:
        raise AssertionError(f"{n_rolled} attempts in the rollup, {n_events} sent")
    return {"recorder_events_per_s": round(rate)}


async def _fill(kafka: KafkaSettings, n_events: int) -> None:
    async with LogProducer(kafka) as producer:
        for start in range(0, n_events, 20_000):
            batch = [attempt(i) for i in range(start, min(start + 20_000, n_events))]
            delivery = await producer.deliver(batch)
            if delivery.error is not None:
                raise delivery.error


async def _drain(kafka: KafkaSettings, settings: StoreSettings, n_events: int) -> float:
    recording = Recording(kafka, settings)
    running = asyncio.create_task(recording.run())
    chains = recording.stats.chains
    deadline_ns = time.monotonic_ns() + 120_000_000_000
    first_ns, first_rows = 0, 0
    while chains.n_rows < n_events:
        if running.done():
            running.result()
        now_ns = time.monotonic_ns()
        if now_ns > deadline_ns:
            raise TimeoutError(f"{chains.n_rows} of {n_events} rows after 120 s")
        if chains.n_rows and not first_rows:
            first_ns, first_rows = now_ns, chains.n_rows
        await asyncio.sleep(0.002)
    took_s = (time.monotonic_ns() - first_ns) / 1e9
    recording.stop()
    await running
    return (n_events - first_rows) / took_s


if __name__ == "__main__":
    print(asyncio.run(figures()))
