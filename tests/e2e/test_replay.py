"""A decision just made is explained, and made again to the last bit; nobody else learns of it."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from analytics.explain import decisions
from broker.explaining import explain_all
from tests.fakes.up_rig import Market, polled

pytestmark = pytest.mark.asyncio(loop_scope="session")

SLA = {"quality": 0.9, "ttft_ms": 3000, "compliance": {"no_training": True}}


async def test_a_decision_is_made_again_on_the_very_market_it_read(market: Market) -> None:
    reply = await market.ask("market:replayed", sla=SLA)
    path = f"/v1/decisions/{reply.headers['x-broker-decision']}"
    told = (await market.send("GET", f"{path}?replay=1")).body
    again = told["replay"]
    assert again["identical"], again["differences"]
    assert again["bids"][0]["offer"] == told["decided"]["ranked"][0]["offer"] or again["explored"]
    n_away = {reason: len(offers) for reason, offers in again["turned_away"].items()}
    assert n_away == told["decided"]["no_bids"]
    assert len(again["bids"]) == told["decided"]["n_bids"]
    for rival in again["would_have_won"]:
        assert rival["behind_by_usd"] >= 0.0
        assert rival["at_price_times"] is None or rival["at_price_times"] <= 1.0
    assert next(e["event"] for e in told["timeline"]) == "called"
    assert told["blame"] in (None, "provider", "deadline", "choice")


async def test_many_decisions_are_found_and_identical(market: Market) -> None:
    replies = await asyncio.gather(*(market.ask("market:replayed", sla=SLA) for _ in range(30)))
    ids = [r.headers["x-broker-decision"] for r in replies]

    async def stored() -> bool:
        return len(await decisions(market.up_store, ids)) == len(ids)

    await polled(stored, "all decisions in the store")

    async def whole() -> bool:
        return (await explain_all(market.up_store, ids)).found == len(ids)

    await polled(whole, "all views in the store")
    tally = await explain_all(market.up_store, ids)
    assert tally.whole, (tally.missing, tally.different)


async def test_the_command_explains_and_replays(market: Market) -> None:
    config = str(market.up.config_path)
    command = [sys.executable, "-m", "broker", "explain", "--config", config]
    done = await asyncio.create_subprocess_exec(
        *command, "--sample", "5", "--replay", "--json", stdout=asyncio.subprocess.PIPE
    )
    said, _ = await done.communicate()
    tally = json.loads(said.splitlines()[-1])
    assert (done.returncode, tally["decisions"]) == (0, 5), tally


async def test_an_unknown_decision_cannot_be_replayed(market: Market) -> None:
    reply = await market.send("GET", "/v1/decisions/dec_unknown?replay=1")
    assert (reply.status, reply.body["error"]["code"]) == (404, "not_found")
