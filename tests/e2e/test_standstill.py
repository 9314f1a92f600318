"""A worker that stands still takes no seller for broken because of it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from bidding.outcome import FailureClass
from feeds.records import AttemptRecord
from tests.fakes.gateway_rig import rig

MODEL = "llama-3.1-8b"
SELLERS = ("groq", "together")
STOOD_STILL_S = 0.6
"""More than twice what a first token of these quotes is waited for."""


async def test_our_own_standing_still_is_no_sellers_failure(tmp_path: Path) -> None:
    async with rig(tmp_path, providers=SELLERS, models=[MODEL], time_scale=0.02) as market:
        market.gateway.learn(groq=20.0, together=20.0)
        key = market.gateway.key()
        asks = []
        for n in range(90):
            await asyncio.sleep(0.02)
            if n % 30 == 20:
                time.sleep(STOOD_STILL_S)  # noqa: ASYNC251 - a loop that stands still is the case
            ask = market.ask(key, f"What is {n} * 7?", model=MODEL)
            asks.append(asyncio.create_task(ask))
        replies = await asyncio.gather(*asks)
        attempts = await market.gateway.written(AttemptRecord)
        health = market.gateway.market.health()
    assert {reply.status for reply in replies} == {200}
    failed = [a for a in attempts if a.failure is not FailureClass.OK]
    assert not failed, failed[:3]
    assert set(health) == {"closed"}
