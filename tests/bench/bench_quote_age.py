"""How old a quote is when it comes into force: from an attempt put into a gateway's spool to the
moved quote in the view that decisions read.

The whole way is walked: spool, embedded log, estimators' pipeline and tick (100 ms), the log
again, the gateway's follower, its next view (50 ms). Gateway and estimators share one process and
one core here, so their turns on the loop are part of the figure. Each of 100 offers is tried in
turn, one every 10 ms; a quote counts as moved when its number of observations has risen, which
no mere passing of time does.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

import numpy as np

from bidding.outcome import FailureClass
from broker.embedded.tansu import Tansu
from broker.live_market import LiveMarket
from broker.metrics import Metrics
from feeds.clock import SystemClock
from feeds.estimate import EstimateSettings, Estimation
from feeds.kafka import KafkaSettings, ensure_topics
from feeds.producer import LogProducer
from feeds.records import AttemptRecord
from feeds.spool import Spool, SpoolSettings
from feeds.topics import ATTEMPTS, TOPICS
from tests.bench.market import catalogue

N_OFFERS = 100
N_ROUNDS = 4
_GAP_S = 0.01
_DEADLINE_S = 60.0


class _Probing:
    """Attempts put into the spool, and when each one's offer had moved in the view."""

    def __init__(self, market: LiveMarket, spool: Spool, clock: SystemClock) -> None:
        self._market = market
        self._spool = spool
        self._clock = clock
        self._n = 0
        self._waiting: dict[int, tuple[float, float]] = {}
        self.ages_ms: list[float] = []

    def put(self, row: int) -> None:
        offer = self._market.book.offers.offer_ids[row]
        self._n += 1
        now_us = self._clock.now_us()
        record = AttemptRecord(
            attempt_id=f"{self._n:032x}",
            decision_id=f"{self._n:032x}",
            n=1,
            offer=offer,
            provider=offer.split("/")[0],
            model=offer.split("/")[1],
            task="chat",
            tenant="acme",
            sla_class="acme|chat",
            source="gateway",
            at_us=now_us,
            started_at_us=now_us - 900_000,
            failure=FailureClass.OK,
            ttft_ms=300.0 + self._n % 97,
            total_ms=900.0 + self._n % 97,
            input_tokens=500,
            output_tokens=100,
        )
        self._waiting[row] = (time.perf_counter(), self._n_seen(row))
        self._spool.put(ATTEMPTS, record)

    async def watch(self) -> None:
        """Note every offer whose quote has moved, until cancelled."""
        while True:
            now = time.perf_counter()
            for row, (put_at, n_before) in list(self._waiting.items()):
                if self._n_seen(row) > n_before + 0.5:
                    del self._waiting[row]
                    self.ages_ms.append((now - put_at) * 1e3)
            await asyncio.sleep(0.001)

    async def settled(self) -> None:
        """Wait for every quote that is due."""
        end = time.monotonic() + _DEADLINE_S
        while self._waiting:
            if time.monotonic() > end:
                raise TimeoutError(f"{len(self._waiting)} quotes have not moved")
            await asyncio.sleep(0.005)

    def _n_seen(self, row: int) -> float:
        return float(self._market.view.quotes.latency.ttft_n[row])


async def _ages_ms() -> np.ndarray:
    clock = SystemClock()
    with tempfile.TemporaryDirectory() as folder:
        async with Tansu() as log:
            kafka = KafkaSettings.embedded(log.bootstrap)
            await ensure_topics(kafka, TOPICS)
            made = catalogue(N_OFFERS)
            market = LiveMarket(made, kafka, clock, Metrics())
            estimation = Estimation(EstimateSettings(), kafka, clock, made)
            async with LogProducer(kafka) as producer:
                spool = Spool(
                    SpoolSettings(path=str(Path(folder) / "spool")), producer, gateway="bench"
                )
                await spool.start()
                probing = _Probing(market, spool, clock)
                tasks = [
                    asyncio.create_task(c)
                    for c in (market.run(), estimation.run(), probing.watch())
                ]
                try:
                    await _probe(probing)
                finally:
                    estimation.stop()
                    await tasks[1]
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
                    await spool.close()
    return np.array(probing.ages_ms)


async def _probe(probing: _Probing) -> None:
    """One round to get everything going, then the rounds that count."""
    for n_round in range(1 + N_ROUNDS):
        for row in range(N_OFFERS):
            probing.put(row)
            await asyncio.sleep(_GAP_S)
        await probing.settled()
        if n_round == 0:
            probing.ages_ms.clear()


def figures() -> dict[str, float]:
    """Milliseconds from an attempt's end to its quote in force."""
    ages_ms = asyncio.run(_ages_ms())
    return {
        "quote_age_p50_ms": round(float(np.percentile(ages_ms, 50)), 1),
        "quote_age_p99_ms": round(float(np.percentile(ages_ms, 99)), 1),
    }


if __name__ == "__main__":
    print(figures())
