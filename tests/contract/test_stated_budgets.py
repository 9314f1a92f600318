"""`sla.budget`: an app's own money for a period, on real sockets and over two workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from bidding.request import Budget
from bidding.units import NUSD_PER_USD
from broker import budgets
from broker.budgets import caps_of
from feeds.clock import SystemClock
from feeds.control_records import KeyPolicy
from feeds.records import DecisionRecord
from tests.fakes.gateway_rig import Rig, rig

DEAR = ("gpt-4-turbo",)
PROMPT = "Tell me about markets. " * 20


def own(usd: float, name: str = "nightly", period: str = "day") -> dict[str, Any]:
    return {"budget": {"usd": usd, "period": period, "name": name}}


class Noon(SystemClock):
    """It is noon: no period turns in mid-test, and half of the day is still to come."""

    def __init__(self) -> None:
        self._ahead_us = 20_000 * 86_400_000_000 + 43_200_000_000 - super().now_us()

    def now_us(self) -> int:
        return super().now_us() + self._ahead_us


def spent_usd(r: Rig) -> float:
    return sum(t.billed_nusd for t in r.paper.ledgers().values()) / NUSD_PER_USD


async def settled(r: Rig) -> None:
    for gateway in r.gateways:
        await gateway.state.tenancy.close()


async def test_200_requests_at_once_on_two_workers_never_overspend_it(tmp_path: Path) -> None:
    async with rig(
        tmp_path,
        providers=("openai", "azure"),
        models=DEAR,
        n_gateways=2,
        time_scale=0.05,
        clock=Noon(),
    ) as r:
        key = r.gateway.key()
        record = r.gateway.market.keys.record(key.split("_")[1])
        assert record is not None
        r.gateways[1].market.keys.apply(record)
        replies = await asyncio.gather(
            *(r.ask(key, PROMPT, gateway=r.gateways[i % 2], sla=own(0.10)) for i in range(200))
        )
        for _ in range(2):
            replies += [await r.ask(key, PROMPT, sla=own(0.10)) for _ in range(40)]
        good = [x for x in replies if x.status == 200]
        refused = [x for x in replies if x.status != 200]
        assert {x.status for x in refused} == {429}
        assert all(int(x.headers["Retry-After"]) >= 1 for x in refused)
        assert len(good) >= 10
        left = [float(x.headers["x-broker-budget-left-usd"]) for x in good]
        assert all(0.0 <= usd < 0.10 for usd in left)
        await settled(r)
        assert 0.05 < spent_usd(r) <= 0.10
        now_us = Noon().now_us()
        stated = Budget(usd=0.10, period="day", name="nightly")
        (cap,) = caps_of(key.split("_")[1], KeyPolicy(), now_us, stated)
        assert await r.gateway.state.shared.spent([cap.period]) == [
            (round(spent_usd(r) * NUSD_PER_USD), 0)
        ]
        # The key itself has no budget, and other budgets of it are as full as ever.
        assert (await r.ask(key, PROMPT)).status == 200
        assert (await r.ask(key, PROMPT, sla=own(0.10, "daily"))).status == 200
        assert (await r.ask(key, PROMPT, sla=own(0.10, period="hour"))).status == 200
        assert (await r.ask(key, PROMPT, sla=own(1.0))).status == 200


async def test_a_spent_budget_is_told_with_cause_and_remedy_on_every_surface(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path, time_scale=0.001, clock=Noon()) as r:
        key = r.gateway.key()
        reply = await r.ask(key, sla=own(1e-9))
        error = reply.body["error"]
        assert (reply.status, error["code"], error["param"]) == (
            429,
            "stated_budget_spent",
            "sla.budget",
        )
        assert error["type"] == "insufficient_quota"
        assert error["message"].startswith("sla.budget 'nightly' of the day has $0.000000 left")
        assert "sla.budget.usd" in error["remedy"]
        assert int(reply.headers["Retry-After"]) >= 1
        told = (await r.get(key, f"/v1/decisions/{error['decision_id']}")).body
        assert told["decided"]["budget"]["name"] == "nightly"
        assert told["decided"]["budget"]["set_aside_usd"] == 0.0
        assert told["blame"] == "budget"
        assert any("refused" in line for line in told["why"])
        body = {
            "model": "market",
            "max_tokens": 50,
            "messages": [{"role": "user", "content": "What is 6 * 7?"}],
            "sla": own(1e-9),
        }
        status, said = await posted(r, key, "/v1/messages", body)
        assert status == 429
        assert said["type"] == "error"
        assert "sla.budget 'nightly'" in said["error"]["message"]
        status, said = await posted(
            r, key, "/v1/responses", {"model": "market", "input": "6 * 7?", "sla": own(1e-9)}
        )
        assert (status, said["error"]["param"]) == (429, "sla.budget")


async def posted(r: Rig, key: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as http:
        headers = {"Authorization": f"Bearer {key}"}
        async with http.post(r.gateway.url + path, json=body, headers=headers) as response:
            return response.status, await response.json()


@pytest.mark.parametrize(
    ("budget", "param"),
    [
        ({"usd": 0, "period": "day"}, "sla.budget.usd"),
        ({"usd": -1, "period": "day"}, "sla.budget.usd"),
        ({"usd": "5", "period": "day"}, "sla.budget.usd"),
        ({"usd": 5, "period": "week"}, "sla.budget.period"),
        ({"usd": 5}, "sla.budget"),
        ({"period": "day"}, "sla.budget"),
        ({"usd": 5, "period": "day", "name": "a|b"}, "sla.budget.name"),
        ({"usd": 5, "period": "day", "name": ""}, "sla.budget.name"),
        ({"usd": 5, "period": "day", "left": 1}, "sla.budget"),
        (5, "sla.budget"),
    ],
)
async def test_a_malformed_budget_is_refused_by_name(
    refusing: Rig, budget: Any, param: str
) -> None:
    key = refusing.gateway.key()
    reply = await refusing.ask(key, sla={"budget": budget})
    assert reply.status == 400
    assert reply.body["error"]["param"].startswith(param), reply.body


@pytest_asyncio.fixture
async def refusing(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path, time_scale=0.001, clock=Noon()) as r:
        yield r


async def test_it_is_in_the_autopsy_and_beside_the_keys_own(tmp_path: Path) -> None:
    async with rig(tmp_path, time_scale=0.001, clock=Noon()) as r:
        key = r.gateway.key(budget_day_usd=50.0)
        reply = await r.ask(key, sla=own(0.5, "nightly", "hour"))
        assert reply.status == 200
        told = (await r.get(key, f"/v1/decisions/{reply.headers['x-broker-decision']}")).body
        budget = told["decided"]["budget"]
        assert (budget["name"], budget["usd"]) == ("nightly", 0.5)
        assert budget["period"].startswith("hour ")
        assert 0.0 < budget["set_aside_usd"] <= 0.5 - budget["left_usd"] + 1e-9
        assert told["decided"]["money_price"] == 0.0
        # The key's own is the tighter one for another app of it.
        other = await r.ask(key, sla=own(1_000.0, "wide"))
        told = (await r.get(key, f"/v1/decisions/{other.headers['x-broker-decision']}")).body
        assert told["decided"]["budget"]["name"] is None
        # It changes nothing of what is asked of the market, so requests of a kind stay of a kind.
        decisions = await r.gateway.written(DecisionRecord)
        assert all('"usd"' not in d.sla for d in decisions)


async def test_short_money_has_a_price_and_buys_cheaper(tmp_path: Path) -> None:
    """The same value of a good answer buys a cheaper one once its budget runs short."""
    async with rig(
        tmp_path, models=("llama-3-8b", "llama-3-70b"), time_scale=0.001, clock=Noon()
    ) as r:
        key = r.gateway.key()
        sla = {"value_usd": 0.003, "task": "math"}
        before = await r.ask(key, sla=sla)
        cost_usd = float(before.headers["x-broker-cost-usd"])
        budget = own(400 * cost_usd)
        for _ in range(80):
            reply = await r.ask(key, sla=sla | budget)
            assert reply.status == 200
        await settled(r)
        decisions = await r.gateway.written(DecisionRecord)
        assert decisions[0].money_price == decisions[1].money_price == 0.0
        prices = [d.money_price for d in decisions[1:]]
        assert prices == sorted(prices)
        assert prices[-1] > 0.5
        assert decisions[0].delivered_model == decisions[1].delivered_model == "llama-3-70b"
        assert decisions[-1].delivered_model == "llama-3-8b"
        free = await r.ask(key, sla=sla)
        told = (await r.get(key, f"/v1/decisions/{free.headers['x-broker-decision']}")).body
        assert told["decided"]["money_price"] == 0.0
        assert told["decided"]["budget"] is None


async def test_a_decision_alone_takes_no_budget(tmp_path: Path) -> None:
    async with rig(tmp_path, time_scale=0.001, clock=Noon()) as r:
        key = r.gateway.key()
        body = {"model": "market", "input_tokens": 10, "sla": own(1.0)}
        status, said = await posted(r, key, "/v1/auctions", body)
        assert (status, said["error"]["param"]) == (400, "sla.budget")


async def test_names_without_end_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budgets, "MOST_STATED", 3)
    async with rig(tmp_path, time_scale=0.001, clock=Noon()) as r:
        key, other = r.gateway.key(), r.gateway.key()
        asked = [await r.ask(key, sla=own(1.0, f"n{i}")) for i in range(5)]
        assert [x.status for x in asked] == [200, 200, 200, 400, 400]
        assert asked[-1].body["error"]["param"] == "sla.budget.name"
        assert (await r.ask(key, sla=own(1.0, "n1"))).status == 200
        assert (await r.ask(other, sla=own(1.0, "n9"))).status == 200


async def test_every_way_of_asking_spends_from_it(tmp_path: Path) -> None:
    models = ("llama-3-8b", "text-embedding-3-small")
    async with rig(
        tmp_path, providers=("groq", "openai"), models=models, time_scale=0.001, clock=Noon()
    ) as r:
        key = r.gateway.key(sla={"budget": {"usd": 0.01, "period": "day"}})
        asked = {"role": "user", "content": "What is 6 * 7?"}
        bodies: dict[str, list[dict[str, Any]]] = {
            "/v1/chat/completions": [
                {"model": "market", "messages": [asked]},
                {"model": "market", "messages": [asked], "stream": True},
                {"model": "market", "messages": [asked], "sla": {"verify": {"not_refused": True}}},
            ],
            "/v1/messages": [{"model": "market", "max_tokens": 20, "messages": [asked]}],
            "/v1/responses": [{"model": "market", "input": "What is 6 * 7?"}],
            "/v1/embeddings": [{"model": "text-embedding-3-small", "input": "market"}],
        }
        headers = {"Authorization": f"Bearer {key}"}
        left: list[float] = []
        for path, many in bodies.items():
            for body in many:
                async with r.http.post(r.gateway.url + path, json=body, headers=headers) as reply:
                    assert reply.status == 200, (path, await reply.text())
                    await reply.read()
                    left.append(float(reply.headers["x-broker-budget-left-usd"]))
        await settled(r)
        assert all(0.0 < usd < 0.01 for usd in left)
        stated = Budget(usd=0.01, period="day")
        (cap,) = caps_of(key.split("_")[1], KeyPolicy(), Noon().now_us(), stated)
        ((spent, reserved),) = await r.gateway.state.shared.spent([cap.period])
        assert reserved == 0
        assert spent == round(spent_usd(r) * NUSD_PER_USD) > 0
        # A decision alone is not paid for, so a key's default does not concern it.
        status, _ = await posted(r, key, "/v1/auctions", {"input_tokens": 10})
        assert status == 200
