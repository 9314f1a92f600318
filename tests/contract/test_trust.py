"""A lying source on the real log: muted by the estimators, told to everybody, lifted by ops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio

from bidding.outcome import FailureClass
from broker.embedded.tansu import Tansu
from broker.live_market import LiveMarket
from broker.metrics import Metrics
from feeds.clock import SystemClock
from feeds.compacted import latest
from feeds.estimate import EstimateSettings, Estimation
from feeds.kafka import KafkaSettings, ensure_topics
from feeds.market_records import SourceRecord
from feeds.producer import LogProducer
from feeds.records import AttemptRecord
from feeds.topics import ATTEMPTS, SOURCES, TOPICS
from tests.bench.market import catalogue
from tests.fakes.log_rig import until

CLOCK = SystemClock()


@pytest_asyncio.fixture
async def kafka() -> AsyncIterator[KafkaSettings]:
    async with Tansu() as log:
        settings = KafkaSettings.embedded(log.bootstrap)
        await ensure_topics(settings, TOPICS)
        yield settings


def attempts(offer: str, n: int, *, pusher: str = "", ok: bool = True) -> list[AttemptRecord]:
    now_us = CLOCK.now_us()
    return [
        AttemptRecord(
            attempt_id=f"{pusher}{i}",
            decision_id="",
            n=1,
            offer=offer,
            provider=offer.split("/")[0],
            model=offer.split("/")[1],
            task="chat",
            tenant="t",
            sla_class="",
            source="pushed" if pusher else "gateway",
            at_us=now_us,
            started_at_us=now_us,
            failure=FailureClass.OK if ok else FailureClass.SERVER_ERROR,
            ttft_ms=300.0 if ok else None,
            total_ms=900.0 if ok else None,
            output_tokens=50,
            trust=0.3,
            pusher=pusher,
        )
        for i in range(n)
    ]


async def test_a_liar_is_muted_everywhere_and_ops_may_lift_it(kafka: KafkaSettings) -> None:
    made = catalogue(100)
    offer = made.offers[0].id
    metrics = Metrics()
    market = LiveMarket(made, kafka, CLOCK, metrics)
    one = Estimation(EstimateSettings(id="one"), kafka, CLOCK, made)
    other = Estimation(EstimateSettings(id="other", group="another"), kafka, CLOCK, made)
    tasks = [asyncio.create_task(c) for c in (market.run(), one.run())]
    try:
        async with LogProducer(kafka) as producer:
            await producer.publish(ATTEMPTS, attempts(offer, 1, pusher="liar"))
            await producer.publish(ATTEMPTS, attempts(offer, 30, ok=False))
            await producer.publish(ATTEMPTS, attempts(offer, 200, pusher="liar"))
            gauge = metrics.source_muted.labels("liar")
            await until(lambda: gauge._value.get() == 1.0)
            record, _ = (await latest(kafka, SOURCES))["liar"]
            assert isinstance(record, SourceRecord)
            assert (record.offer, record.by) == (offer, "one")
            assert record.own_fail_share > 0.9 > 0.1 > record.claimed_fail_share
            tasks.append(asyncio.create_task(other.run()))
            await until(lambda: other.quoter.hearsay.is_muted("liar", CLOCK.now_us()))
            lifted = SourceRecord(source="liar", at_us=CLOCK.now_us(), until_us=0, by="ops")
            await producer.publish(SOURCES, [lifted])
            await until(lambda: gauge._value.get() == 0.0)
            await until(lambda: not one.quoter.hearsay.is_muted("liar", CLOCK.now_us()))
    finally:
        one.stop()
        other.stop()
        await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
