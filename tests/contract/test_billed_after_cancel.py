"""What a seller may go on billing once we have hung up is estimated, and kept apart from costs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bidding.waiting import Forecast
from broker.providers.quirks import known
from feeds.records import AttemptRecord, DecisionRecord
from tests.fakes.dispatching import Market, market
from tests.fakes.gateway_rig import rig
from tests.fakes.scripted_seller import (
    ROLE,
    ScriptedSeller,
    chunk,
    hangs,
    refuses,
    sends,
    streams,
)
from tests.fakes.up_rig import polled

INPUT, EXPECTED = 10, 100.0
TOLD = {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}
IN_NUSD, OUT_NUSD = 1_000, 2_000
"""Prices of a token in and out of `tests.fakes.dispatching`."""


def good() -> ScriptedSeller:
    return ScriptedSeller(streams(["4 ", "it is"], usage=TOLD))


async def hung_up(m: Market, **more: Any) -> AttemptRecord:
    """The record of a stream that its app left after the first words."""
    order = m.order(True, output_tokens=EXPECTED, **more)
    async with await m.dispatcher.open(order) as delivery:
        async for _ in delivery:
            break
    (record,) = m.records
    assert record.failure == "cancelled"
    return record


def stalling() -> ScriptedSeller:
    return ScriptedSeller(sends(ROLE, chunk({"content": "two and two is "}), hang=True))


@pytest.mark.parametrize("quirks", ["groq", None])
async def test_a_seller_that_may_go_on_is_booked_apart(quirks: str | None) -> None:
    async with market(stalling(), providers={"quirks": quirks}) as m:
        record = await hung_up(m)
    assert 0 < record.output_tokens < EXPECTED
    assert record.cost_nusd == INPUT * IN_NUSD + record.output_tokens * OUT_NUSD
    assert record.unseen_tokens == EXPECTED - record.output_tokens
    assert record.unseen_nusd == record.unseen_tokens * OUT_NUSD


async def test_one_that_stops_with_its_stream_is_not() -> None:
    async with market(stalling(), providers={"quirks": "openai"}) as m:
        record = await hung_up(m)
    assert record.cost_nusd > 0
    assert (record.unseen_tokens, record.unseen_nusd) == (0, 0)


async def test_no_more_is_expected_than_was_asked_for() -> None:
    async with market(stalling()) as m:
        record = await hung_up(m, max_output_tokens=30)
    assert record.unseen_tokens == 30 - record.output_tokens


async def test_a_call_that_nothing_was_heard_of_may_be_billed_in_whole() -> None:
    async with market(ScriptedSeller(hangs), good(), ttft_ms=60.0) as m:
        await m.dispatcher.run(m.order(latency_ms=2000.0, output_tokens=EXPECTED))
    late, well = m.records
    assert (late.failure, late.cost_nusd) == ("timeout_ttft", 0)
    assert late.unseen_tokens == EXPECTED
    assert late.unseen_nusd == INPUT * IN_NUSD + EXPECTED * OUT_NUSD
    assert (well.unseen_tokens, well.unseen_nusd) == (0, 0)


async def test_a_hedge_that_lost_may_be_billed() -> None:
    slow = ScriptedSeller(streams(["slow"], first_s=3.0))
    async with market(slow, good(), ttft_ms=300.0) as m:
        quick = Forecast(math.log(20.0), 0.3, 0.0)
        usual = m.dispatcher.forecast("a/m")
        m.dispatcher.sellers.forecast = {"a/m": usual, "b/m": quick}.get
        await m.dispatcher.run(m.order(latency_ms=700.0, hedge=True, output_tokens=5.0))
    lost = next(r for r in m.records if r.failure == "hedge_lost")
    assert lost.unseen_tokens == 5 - lost.output_tokens
    assert lost.unseen_nusd > 0


async def test_a_seller_that_refuses_bills_nothing() -> None:
    async with market(ScriptedSeller(refuses(500)), good()) as m:
        await m.dispatcher.run(m.order(output_tokens=EXPECTED))
    assert all(r.unseen_nusd == r.unseen_tokens == 0 for r in m.records)


def test_sellers_known_to_stop_and_to_go_on() -> None:
    words = {name: quirks.on_hang_up for name, quirks in known().provider.items()}
    assert words["anthropic"] == words["azure-v1"] == "stops"
    assert words["aws"] == words["gemini"] == words["groq"] == "goes_on"
    assert words["vllm"] == "unknown"


async def test_it_is_in_the_decision_and_counted_by_provider(tmp_path: Path) -> None:
    async with rig(tmp_path, providers=("groq",), time_scale=1.0) as r:
        key = r.gateway.key()
        body = {
            "model": "market",
            "stream": True,
            "messages": [{"role": "user", "content": "Tell me about markets. " * 20}],
        }
        headers = {"Authorization": f"Bearer {key}"}
        async with aiohttp.ClientSession() as http:
            url = r.gateway.url + "/v1/chat/completions"
            async with http.post(url, json=body, headers=headers) as response:
                assert response.status == 200
                made = response.headers["x-broker-decision"]

        async def settled() -> bool:
            return r.gateway.state.journal.recent.get(made, "acme") is not None

        await polled(settled, "the decision of a stream that was left")
        told = (await r.get(key, f"/v1/decisions/{made}")).body
        (attempt,) = told["attempts"]
        assert attempt["failure"] == "cancelled"
        assert attempt["unseen_tokens"] > 0
        assert attempt["unseen_usd"] > 0.0
        assert any("may have gone on" in line for line in told["why"])
        async with r.http.get(r.gateway.url + "/metrics") as response:
            text = await response.text()
        (line,) = [x for x in text.splitlines() if x.startswith("broker_unseen_usd_total{")]
        assert 'provider="groq"' in line
        assert float(line.rpartition(" ")[2]) == pytest.approx(attempt["unseen_usd"])
        (decision,) = await r.gateway.written(DecisionRecord)
        assert decision.cost_nusd == round(attempt["cost_usd"] * 1e9)
