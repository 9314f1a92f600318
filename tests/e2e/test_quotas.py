"""A seller's quota is a price before it is a refusal: the auction leaves before it says 429."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bidding.outcome import FailureClass
from broker.paper.faults import Fault, FaultSpec
from feeds.records import AttemptRecord
from tests.fakes.gateway_rig import rig

MODEL = "llama-3.1-8b"
PER_WINDOW, WINDOW_S = 40, 1.5
RATE = 2.0 * PER_WINDOW / WINDOW_S


@pytest.mark.parametrize("cheap", ["groq", "deepseek"])
async def test_a_quota_is_left_before_it_is_spent(tmp_path: Path, cheap: str) -> None:
    model = MODEL if cheap == "groq" else "deepseek-v3"
    other = "together" if cheap == "groq" else "fireworks"
    async with rig(tmp_path, providers=(cheap, other), models=[model], time_scale=0.02) as market:
        market.gateway.learn(**{cheap: 20.0, other: 20.0})
        spec = FaultSpec(kind=Fault.QUOTA, per_window=PER_WINDOW, window_s=WINDOW_S)
        await market.paper.set_faults(cheap, [spec])
        key = market.gateway.key()
        tasks = []
        for n in range(round(3.0 * WINDOW_S * RATE)):
            # Never catching up: what a machine that stood still owes, sent at once, would fall into
            # one window, and no window has room for more than its own.
            await asyncio.sleep(1.0 / RATE)
            # Each a conversation of its own: none sticks to where the one before it went.
            ask = market.ask(key, f"What is {n} * 7?", model=model)
            tasks.append(asyncio.create_task(ask))
        statuses = [reply.status for reply in await asyncio.gather(*tasks)]
        attempts = await market.gateway.written(AttemptRecord)
        served = market.paper.ledgers()[cheap].served
    assert set(statuses) == {200}
    refused = [a for a in attempts if a.failure is FailureClass.RATE_LIMITED]
    assert len(refused) <= 0.01 * len(attempts), refused[:3]
    # The quota is used, not shunned: three windows, and what the last of them leaves.
    assert served >= 1.5 * PER_WINDOW
