"""`kill -9` of estimators, recorder and gateway under load: nothing lost or counted twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from msgspec.structs import replace

from feeds.compacted import latest
from feeds.control_records import KeyRecord
from feeds.hold import LogHold
from feeds.producer import LogProducer
from feeds.topics import FEEDS, KEYS
from tests.fakes.log_rig import write_raw
from tests.fakes.up_rig import Market, market_up, polled

pytestmark = pytest.mark.asyncio(loop_scope="module")

KILLS = 5


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def market(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Market]:
    """One for all: what a test leaves behind is a market that goes on."""
    async with market_up(tmp_path_factory.mktemp("market"), time_scale=0.02) as made:
        yield made


async def _traffic(market: Market, stop: asyncio.Event, decisions: list[str]) -> None:
    while not stop.is_set():
        reply = await market.ask("market:math", sla={"quality": 0.9})
        assert reply.status == 200
        decisions.append(reply.headers["x-broker-decision"])
        line = {"decision_id": decisions[-1], "quality": 1.0, "source": "verifier"}
        assert (await market.send("POST", "/v1/outcomes", json=line)).status == 202


async def test_estimators_and_recorder_may_die_at_any_time(market: Market) -> None:
    stop, decisions = asyncio.Event(), list[str]()
    running = [asyncio.create_task(_traffic(market, stop, decisions)) for _ in range(3)]
    killed = [market.up.services[name] for name in ("estimate", "record")]
    for n_kills in range(1, KILLS + 1):
        await asyncio.sleep(1.0)
        for service in killed:
            service.kill()

        async def back(n_kills: int = n_kills) -> bool:
            return all(service.n_restarts >= n_kills for service in killed)

        await polled(back, "both are started again")
    await asyncio.sleep(0.5)
    stop.set()
    await asyncio.gather(*running)
    n = len(decisions)

    async def stored() -> bool:
        ((all_, distinct),) = await market.rows(
            "SELECT count(), uniqExact(decision_id) FROM market.feedback"
        )
        assert all_ == distinct, "a score is stored twice"
        return bool(distinct >= n)

    await polled(stored, f"{n} scores stored", 60.0)
    mine = "', '".join(decisions)
    ((attempts, distinct, requests),) = await market.rows(
        "SELECT count(), uniqExact(attempt_id), uniqExact(decision_id) FROM market.attempts"
        f" WHERE decision_id IN ('{mine}')"
    )
    assert attempts == distinct
    assert requests == n

    async def rolled_up() -> bool:
        # In this order: a batch stored between the two is in the raw rows alone.
        ((rolled, rolled_nusd),) = await market.rows(
            "SELECT sum(n), sum(cost_nusd) FROM market.tenant_hours"
        )
        ((raw, raw_nusd),) = await market.rows(
            "SELECT count(), toInt64(sum(round(cost_usd * 1e9))) FROM market.decisions"
        )
        assert rolled <= raw, "a decision is counted twice"
        return bool((rolled, rolled_nusd) == (raw, raw_nusd) and raw >= n)

    await polled(rolled_up, "the rollup equals its raw rows", 60.0)

    async def learnt() -> bool:
        classes: list[dict[str, Any]] = (await market.send("GET", "/v1/market")).body["classes"]
        found = [c for c in classes if c["sla_class"] == "demo|math|q0.9"]
        kept = 0.5 ** (1 / 500)
        expected = (1 - kept**n) / (1 - kept)
        return bool(found) and abs(found[0]["requests"] - expected) < 0.5

    await polled(learnt, "every decision folded in once", 60.0)


async def test_a_killed_gateway_is_back_at_once(market: Market) -> None:
    market.up.services["gateway"].kill()
    died_s = time.monotonic()

    async def answers() -> bool:
        try:
            return (await market.send("GET", "/readyz", key="")).status == 200
        except aiohttp.ClientError:
            return False

    await asyncio.sleep(0.1)
    await polled(answers, "the gateway answers again", 30.0)
    assert (await market.ask()).status == 200
    assert time.monotonic() - died_s < 30.0


async def test_the_log_may_be_replaced_under_traffic(market: Market) -> None:
    stop, decisions = asyncio.Event(), list[str]()
    running = [asyncio.create_task(_traffic(market, stop, decisions)) for _ in range(3)]
    await asyncio.sleep(1.0)
    before = market.up.log.incarnation
    await market.up.recycle()
    assert market.up.log.incarnation != before
    await asyncio.sleep(1.0)
    stop.set()
    await asyncio.gather(*running)

    mine = "', '".join(decisions)

    async def stored() -> bool:
        ((all_, distinct, of_mine),) = await market.rows(
            "SELECT count(), uniqExact(decision_id),"
            f" uniqExactIf(decision_id, decision_id IN ('{mine}')) FROM market.feedback"
        )
        assert all_ == distinct
        return bool(of_mine == len(decisions))

    await polled(stored, "everything stored once", 60.0)


async def test_a_delivery_on_its_way_is_stored_before_the_log_is_replaced(market: Market) -> None:
    kafka = market.up.settings.kafka
    before = market.up.log.incarnation
    late = KeyRecord(
        key_id="late", digest="0" * 64, tenant="late", scopes=["app"], at_us=1, by="test"
    )
    async with LogHold(kafka.hold_file).writing():
        replaced = asyncio.create_task(market.up.recycle())
        await asyncio.sleep(2.0)
        assert market.up.log.incarnation == before
        async with LogProducer(replace(kafka, hold_file="")) as producer:
            await producer.publish(KEYS, [late])
            # The last of its topic leaves no row there: it goes to the dead letters.
            await write_raw(producer, FEEDS, [b"no record"])
    await replaced
    assert market.up.log.incarnation != before
    found = await latest(kafka, KEYS)
    assert found["late"][0] == late
