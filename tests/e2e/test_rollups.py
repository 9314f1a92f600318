"""Rollups after real traffic: each equals the same sums over the raw rows, to the last unit."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from tests.fakes.rollups import assert_rollups_equal_raw, unequal
from tests.fakes.up_rig import Market, polled

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_rollups_equal_raw_rows_after_traffic(market: Market) -> None:
    task = f"rollups-{uuid.uuid4().hex[:8]}"
    sla = {"quality": 0.9, "ttft_ms": 2000, "latency_ms": 20_000}

    async def one(i: int) -> None:
        model = f"market:{task}" if i % 5 else "market:nobody-knows-this-kind"
        reply = await market.ask(model, sla=sla if i % 2 else {}, max_tokens=20 + i)
        assert reply.status == 200
        if i % 3 == 0:
            line = {"decision_id": reply.headers["x-broker-decision"], "quality": i % 2}
            scored = await market.send("POST", "/v1/outcomes", json=line | {"source": "verifier"})
            assert scored.status == 202

    for start in range(0, 60, 12):
        await asyncio.gather(*(one(i) for i in range(start, start + 12)))

    async def stored() -> bool:
        (found,) = await market.rows(
            f"SELECT count(), uniqExact(decision_id) FROM market.decisions WHERE task = '{task}'"
        )
        (scores,) = await market.rows(f"SELECT count() FROM market.feedback WHERE task = '{task}'")
        return found == (48, 48) and scores == (16,)

    await polled(stored, "all requests and scores in history")

    async def equal() -> bool:  # a batch is in its table a moment before it is in its rollups
        return not await unequal(market.up_store)

    try:
        await polled(equal, "rollups equal raw rows", 10.0)
    except AssertionError:
        await assert_rollups_equal_raw(market.up_store)
        raise
    (totals,) = await market.rows(
        f"SELECT sum(n), sum(n_ok), sum(cost_nusd) FROM market.tenant_hours WHERE task = '{task}'"
    )
    (raw,) = await market.rows(
        "SELECT count(), countIf(failure = 'ok'), sum(cost_nusd) FROM market.decisions"
        f" WHERE task = '{task}'"
    )
    assert totals == raw
