"""Spot asks at real gateways: whose they may be, what they change, and who may still have some."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from analytics.replay import spot
from bidding.outcome import FailureClass
from bidding.quote import Position
from broker.auth import new_key
from broker.paper.faults import Fault, FaultPatch, FaultSpec
from feeds.booking import take
from feeds.codec import decode, encode
from feeds.control_records import KeyPolicy
from feeds.market_records import AskRecord, NoticeRecord
from feeds.records import AttemptRecord, DecisionRecord
from feeds.topics import PRICES, key_of
from tests.fakes.gateway_rig import Gateway, Reply, Rig, rig

MODELS = ("llama-3-70b",)
SELLERS = ("groq", "together")
SIGNER = Ed25519PrivateKey.from_private_bytes(b"7" * 32)


def public(signer: Ed25519PrivateKey = SIGNER) -> str:
    return base64.b64encode(signer.public_key().public_bytes_raw()).decode()


def seller_key(gateway: Gateway, *sells: str, public_key: str = "") -> str:
    policy = KeyPolicy(models=sells, public_key=public_key or public())
    key, record = new_key("seller", ("seller",), at_us=1, by="t", policy=policy)
    gateway.market.keys.apply(record)
    return key


async def ask(
    r: Rig, key: str, signer: Ed25519PrivateKey = SIGNER, signed: bytes | None = None, **said: Any
) -> Reply:
    now_us = r.gateway.state.clock.now_us()
    body = json.dumps(
        {
            "offer": "together/llama-3-70b",
            "at_us": now_us,
            "until_us": now_us + 3_600_000_000,
            "prices": {"input_usd_per_mtok": 0.001, "output_usd_per_mtok": 0.001},
        }
        | said
    ).encode()
    signature = base64.b64encode(signer.sign(signed or body)).decode()
    headers = {"Authorization": f"Bearer {key}", "x-broker-signature": signature}
    async with r.http.post(f"{r.gateway.url}/v1/asks", data=body, headers=headers) as response:
        return Reply(response.status, response.headers, await response.json())


async def spread(r: Rig) -> AskRecord:
    """Hand the newest ask to every worker, as the log would."""
    record = (await r.gateway.written(AskRecord))[-1]
    for gateway in r.gateways:
        key = key_of(PRICES, record).decode()
        gateway.market.on_record(key, record, Position("L", PRICES.name, 0, 1))
        gateway.market.refresh()
    return record


async def test_an_ask_below_the_list_wins_the_auction_until_it_ends(tmp_path: Path) -> None:
    async with rig(tmp_path, providers=SELLERS, models=MODELS) as r:
        r.gateway.learn(groq=200, together=200)
        key, buyer = seller_key(r.gateway, "together"), r.gateway.key()
        dear = await r.ask(buyer)
        told = await ask(r, key)
        assert told.status == 202, told.body
        record = await spread(r)
        assert (record.ask_id, record.seller) == (told.body["ask_id"], "seller")
        assert decode(encode(record)) == record
        cheap = await r.ask(buyer)
        assert cheap.headers["x-broker-offer"] == "together/llama-3-70b"
        first, second = await r.gateway.written(DecisionRecord)
        assert second.ranked[0].cost_nusd < 0.1 * first.ranked[0].cost_nusd
        assert dear.status == cheap.status == 200
        await ask(r, key, until_us=r.gateway.state.clock.now_us() - 1)  # taken back
        await spread(r)
        await r.ask(buyer)
        third = (await r.gateway.written(DecisionRecord))[2]
        assert third.ranked[0].cost_nusd == pytest.approx(first.ranked[0].cost_nusd)


async def test_only_the_sellers_own_fresh_signed_asks_below_the_list_are_taken(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path, providers=SELLERS, models=MODELS) as r:
        key, now_us = seller_key(r.gateway, "together"), r.gateway.state.clock.now_us()
        other = Ed25519PrivateKey.generate()
        assert (await ask(r, r.gateway.key())).status == 403
        assert (await ask(r, key, other)).status == 403
        assert (await ask(r, key, signed=b"another body")).status == 403
        assert (await ask(r, key, offer="groq/llama-3-70b")).status == 404
        assert (await ask(r, key, offer="together/nothing")).status == 404
        assert (await ask(r, seller_key(r.gateway))).status == 404
        assert (await ask(r, key, at_us=now_us - 600_000_000)).status == 400
        assert (await ask(r, key, until_us=now_us + 30 * 86_400_000_000)).status == 400
        above = await ask(r, key, prices={"input_usd_per_mtok": 900.0})
        assert (above.status, above.body["error"]["param"]) == (400, "prices")
        assert (await ask(r, key, prices={"input_usd_per_mtok": -1})).status == 400
        assert (await ask(r, key, capacity_tokens=0)).status == 400
        assert await r.gateway.written(AskRecord) == []


async def test_two_workers_never_sell_more_than_an_asks_capacity(tmp_path: Path) -> None:
    async with rig(tmp_path, providers=SELLERS, models=MODELS, n_gateways=2) as r:
        for gateway in r.gateways:
            gateway.learn(groq=200, together=200)
        key = seller_key(r.gateway, "together")
        assert (await ask(r, key, capacity_tokens=2_000)).status == 202
        record = await spread(r)
        buyer = r.gateway.key()
        known = r.gateway.market.keys.record(buyer.split("_")[1])
        assert known is not None
        r.gateways[1].market.keys.apply(known)
        replies = await asyncio.gather(
            *(r.ask(buyer, gateway=r.gateways[i % 2], max_tokens=100) for i in range(60))
        )
        assert {x.status for x in replies} == {200}
        decisions = [d for g in r.gateways for d in await g.written(DecisionRecord)]
        list_price = max(d.ranked[0].cost_nusd for d in decisions)
        at_ask = [d for d in decisions if d.ranked[0].cost_nusd < 0.1 * list_price]
        bought = {d.decision_id for d in at_ask}
        attempts = [a for g in r.gateways for a in await g.written(AttemptRecord)]
        sold = sum(
            a.input_tokens + a.output_tokens
            for a in attempts
            if a.decision_id in bought and a.offer == record.offer
        )
        assert 0 < len(at_ask) < 60
        assert sold <= 2_000
        for gateway in r.gateways:
            await gateway.state.spot.close()
        [(spent, held)] = await r.gateway.state.shared.spent([record.ask_id])
        assert held == 0
        assert sold <= spent <= 2_000


async def test_notices_say_how_often_why_and_at_what_price(tmp_path: Path) -> None:
    async with rig(tmp_path, providers=SELLERS, models=MODELS) as r:
        r.gateway.learn(groq=200, together=200)
        buyer = r.gateway.key()
        assert (await ask(r, seller_key(r.gateway, "together"))).status == 202
        await spread(r)
        for _ in range(3):
            await r.ask(buyer)
        await r.ask(buyer, sla={"compliance": {"deny": ["together"]}})
        other = Ed25519PrivateKey.from_private_bytes(b"8" * 32)
        rival = seller_key(r.gateway, "groq", public_key=public(other))
        assert (await ask(r, rival, other, offer="groq/llama-3-70b")).status == 202
        dearer = {"input_usd_per_mtok": 0.02, "output_usd_per_mtok": 0.02}
        assert (await ask(r, rival, other, offer="groq/llama-3-70b", prices=dearer)).status == 202
        await spread(r)
        await r.ask(buyer)
        r.gateway.state.spot.tell()
        found = {(n.offer, n.reason): n for n in await r.gateway.written(NoticeRecord)}
        won = found["together/llama-3-70b", "won"]
        assert (won.result, won.n) == ("won", 4)
        assert won.clearing_price_nusd is not None
        assert found["together/llama-3-70b", "denied"].result == "lost"
        beaten = found["groq/llama-3-70b", "outbid"]
        assert (beaten.result, beaten.n) == ("lost", 1)
        assert beaten.short_nusd is not None
        assert beaten.short_nusd > 0
        assert won.clearing_price_nusd > (beaten.clearing_price_nusd or 0)
        assert {a.offer for a in await r.gateway.written(AttemptRecord)} == {
            "together/llama-3-70b",
            "groq/llama-3-70b",
        }


async def test_asks_reach_a_book_through_its_one_door(tmp_path: Path) -> None:
    async with rig(tmp_path, providers=SELLERS, models=MODELS) as r:
        assert (await ask(r, seller_key(r.gateway, "together"))).status == 202
        [record] = await r.gateway.written(AskRecord)
        assert take(r.gateway.market.book, record)


def test_the_buyers_cost_falls_with_each_competing_seller() -> None:
    found = spot.figures(n_seeds=1)
    assert spot.broken(found) == []
    assert found["spot_cost_share_1"] == pytest.approx(1.0)
    assert found["spot_cost_share_4"] < 0.8


async def test_a_runner_ups_ask_is_never_oversold_and_beyond_it_the_list_price_is_due(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path, providers=SELLERS, models=MODELS, n_gateways=2) as r:
        for gateway in r.gateways:
            gateway.learn(groq=200, together=200)
        key = seller_key(r.gateway, "together")
        rival = seller_key(r.gateway, "groq")
        free = {"input_usd_per_mtok": 0.0001, "output_usd_per_mtok": 0.0001}
        assert (await ask(r, rival, offer="groq/llama-3-70b", prices=free)).status == 202
        await spread(r)
        assert (await ask(r, key, capacity_tokens=1_500)).status == 202
        record = await spread(r)
        await r.paper.patch("groq", FaultPatch(add=[FaultSpec(kind=Fault.ERROR, status=500)]))
        buyer = r.gateway.key()
        known = r.gateway.market.keys.record(buyer.split("_")[1])
        assert known is not None
        r.gateways[1].market.keys.apply(known)
        replies = await asyncio.gather(
            *(r.ask(buyer, gateway=r.gateways[i % 2], max_tokens=100) for i in range(40))
        )
        assert {x.status for x in replies} == {200}
        attempts = [
            a
            for g in r.gateways
            for a in await g.written(AttemptRecord)
            if a.offer == record.offer and a.failure == FailureClass.OK
        ]
        row = r.gateway.market.book.offers.row_of[record.offer]
        listed = r.gateway.market.book.prices(row)
        sold = {"ask": 0, "list": 0}
        for a in attempts:
            at_ask = record.prices.cost_nusd(a.input_tokens, a.output_tokens)
            at_list = listed.cost_nusd(a.input_tokens, a.output_tokens)
            assert a.cost_nusd in (at_ask, at_list)
            sold["ask" if a.cost_nusd == at_ask else "list"] += a.input_tokens + a.output_tokens
        assert 0 < sold["ask"] <= 1_500
        assert sold["list"] > 0
        assert sum(a.n > 1 for a in attempts) > 0
        for gateway in r.gateways:
            await gateway.state.spot.close()
        [(spent, held)] = await r.gateway.state.shared.spent([record.ask_id])
        assert (spent, held) == (sold["ask"], 0)
