"""Params on the real log reach the estimators' process and every gateway's circuits, live."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest_asyncio

from bidding.outcome import FailureClass
from bidding.params import Params
from broker.embedded.tansu import Tansu
from broker.live_market import LiveMarket
from broker.metrics import Metrics
from feeds.clock import SystemClock
from feeds.compacted import latest
from feeds.control_records import ParamsRecord
from feeds.estimate import EstimateSettings, Estimation
from feeds.kafka import KafkaSettings, ensure_topics
from feeds.live_params import GLOBAL_SCOPE
from feeds.market_records import SkillRecord
from feeds.producer import LogProducer
from feeds.records import DecisionRecord
from feeds.topics import DECISIONS, PARAMS, SKILLS, TOPICS
from tests.bench.market import catalogue
from tests.fakes.facts import bought
from tests.fakes.log_rig import until

CLOCK = SystemClock()
CLASS = "t|math|q0.9"


@pytest_asyncio.fixture
async def kafka() -> AsyncIterator[KafkaSettings]:
    async with Tansu() as log:
        settings = KafkaSettings.embedded(log.bootstrap)
        await ensure_topics(settings, TOPICS)
        yield settings


def version(number: int, **changes: dict[str, object]) -> ParamsRecord:
    params = Params().patched(dict(changes), version=number)
    return ParamsRecord(
        scope=GLOBAL_SCOPE,
        version=number,
        at_us=CLOCK.now_us(),
        by="ops",
        why="test",
        params=msgspec.json.encode(params).decode(),
    )


def decisions(n: int) -> list[DecisionRecord]:
    """Bought and delivered with P(good) a little above the promised 0.9."""
    return [
        bought(
            "p00/m00",
            n_bids=3,
            decision_id=f"d{i}",
            at_us=CLOCK.now_us(),
            sla_class=CLASS,
            quality_price_nusd=1.0,
            target_quality=0.9,
            delivered_model="m00",
            p_good=0.93,
            failure=FailureClass.OK,
            output_tokens=20,
        )
        for i in range(n)
    ]


async def price(kafka: KafkaSettings, n_of_class: float) -> float:
    """λ of the class once so many decisions are in it."""
    while True:
        found = (await latest(kafka, SKILLS)).get("math")
        if found is not None and isinstance(found[0], SkillRecord):
            classes = {c.sla_class: c for c in found[0].skill.classes}
            if CLASS in classes and classes[CLASS].n > n_of_class:
                return classes[CLASS].quality_price_nusd
        await asyncio.sleep(0.05)


async def test_the_margin_acts_on_prices_and_the_circuit_on_gateways(kafka: KafkaSettings) -> None:
    made = catalogue(100)
    market = LiveMarket(made, kafka, CLOCK, Metrics())
    one = Estimation(EstimateSettings(id="one"), kafka, CLOCK, made)
    tasks = [asyncio.create_task(c) for c in (market.run(), one.run())]
    try:
        async with LogProducer(kafka) as producer, asyncio.timeout(30.0):
            await producer.publish(DECISIONS, decisions(1))
            first = await price(kafka, 0.5)
            await producer.publish(DECISIONS, decisions(50))
            eased = await price(kafka, 45.0)
            assert eased < first  # 0.93 where 0.9 was promised: the price of quality falls
            await producer.publish(
                PARAMS,
                [
                    version(
                        1,
                        pacing={"quality_margin": 0.1},
                        latency={"fast_half_life_s": 90.0},
                        reliability={"circuit": {"open_after": 2}},
                    )
                ],
            )
            await until(lambda: one.params.version == 1 and market.params.version == 1)
            assert one.quoter.latency.fast.half_life_s == 90.0
            await producer.publish(DECISIONS, decisions(100))
            assert await price(kafka, 130.0) > eased  # now 1.0 is what it aims at
            offer = made.offers[0].id
            for _ in range(2):
                market.sent(offer)
                market.ended(offer, FailureClass.SERVER_ERROR, took_s=0.1, retry_after_s=None)
            row = market.book.offers.row_of[offer]
            assert market.view.circuit_open[row]
        one.stop()
        await tasks[1]
        # Whoever starts later knows the params before it reads the first fact.
        other = Estimation(EstimateSettings(id="two", group="another"), kafka, CLOCK, made)
        folded_under: list[int] = []
        fold = other._fold
        other._fold = lambda *a: (folded_under.append(other.params.version), fold(*a))[1]
        tasks.append(asyncio.create_task(other.run()))
        await until(lambda: bool(folded_under))
        assert set(folded_under) == {1}
        other.stop()
    finally:
        one.stop()
        await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
