"""Keys at real gateways: budgets, limits, allowed models, default SLA, rotation, revocation."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from bidding.units import NUSD_PER_USD
from broker.auth import KeyRing, digest_of, new_key, rotated
from broker.budgets import caps_of, until_next_s
from broker.errors import NotAuthenticated
from broker.revocation import POLL_S, follow_revocations
from feeds.clock import SystemClock
from feeds.control_records import KeyPolicy, KeyRecord
from feeds.records import DecisionRecord
from tests.fakes.gateway_rig import Rig, rig

DEAR = ("gpt-4-turbo",)


def spent_usd(r: Rig) -> float:
    return sum(t.billed_nusd for t in r.paper.ledgers().values()) / NUSD_PER_USD


async def test_200_requests_at_once_on_two_workers_never_overspend_a_budget(
    tmp_path: Path,
) -> None:
    async with rig(
        tmp_path,
        providers=("openai", "azure"),
        models=DEAR,
        n_gateways=2,
        time_scale=0.05,
    ) as r:
        key = r.gateway.key(budget_day_usd=0.10)
        record = r.gateway.market.keys.record(key.split("_")[1])
        assert record is not None
        r.gateways[1].market.keys.apply(record)
        prompt = "Tell me about markets. " * 20
        asked = [r.ask(key, prompt, gateway=r.gateways[i % 2]) for i in range(200)]
        replies = await asyncio.gather(*asked)
        for _ in range(2):
            replies += [await r.ask(key, prompt) for _ in range(40)]
        good = [x for x in replies if x.status == 200]
        refused = [x for x in replies if x.status != 200]
        assert {x.status for x in refused} == {429}
        assert {x.body["error"]["code"] for x in refused} == {"insufficient_quota"}
        assert all(int(x.headers["Retry-After"]) >= 1 for x in refused)
        assert len(good) >= 10
        await r.gateway.state.tenancy.close()
        await r.gateways[1].state.tenancy.close()
        assert 0.05 < spent_usd(r) <= 0.10
        levels = await r.gateway.state.shared.spent([c.period for c in _caps(key)])
        assert levels[0][1] == 0
        assert levels[0][0] == round(spent_usd(r) * NUSD_PER_USD)


def _caps(key: str) -> list[object]:
    policy = KeyPolicy(budget_day_usd=0.10)
    return list(caps_of(key.split("_")[1], policy, SystemClock().now_us()))


async def test_a_limit_of_requests_is_exact_over_two_workers(tmp_path: Path) -> None:
    async with rig(tmp_path, n_gateways=2, time_scale=0.001) as r:
        key = r.gateway.key(limit_rpm=200)
        record = r.gateway.market.keys.record(key.split("_")[1])
        assert record is not None
        r.gateways[1].market.keys.apply(record)
        replies = await asyncio.gather(*(r.ask(key, gateway=r.gateways[i % 2]) for i in range(300)))
        statuses = [x.status for x in replies]
        assert statuses.count(200) == 200
        assert statuses.count(429) == 100
        refused = next(x for x in replies if x.status == 429)
        assert refused.body["error"]["code"] == "rate_limit_exceeded"
        assert 50 <= int(refused.headers["Retry-After"]) <= 60


async def test_tokens_are_limited_by_what_was_used(tmp_path: Path) -> None:
    async with rig(tmp_path, time_scale=0.001) as r:
        key = r.gateway.key(limit_tpm=3_000)
        n_good = 0
        while (reply := await r.ask(key, max_tokens=100)).status == 200:
            n_good += 1
            await r.gateway.state.tenancy.close()
        decisions = await r.gateway.written(DecisionRecord)
        used = sum(d.input_tokens_billed + d.output_tokens for d in decisions)
        assert reply.body["error"]["code"] == "rate_limit_exceeded"
        # The next one was estimated at its prompt and the 100 it asked for.
        assert 3_000 - 200 <= used <= 3_000


async def test_a_limit_of_tokens_is_kept_within_a_hundredth_over_two_workers(
    tmp_path: Path,
) -> None:
    limit = 30_000
    async with rig(tmp_path, n_gateways=2, time_scale=0.001) as r:
        key = r.gateway.key(limit_tpm=limit)
        record = r.gateway.market.keys.record(key.split("_")[1])
        assert record is not None
        r.gateways[1].market.keys.apply(record)
        statuses = {200}
        while 200 in statuses:
            asked = (r.ask(key, gateway=r.gateways[i % 2], max_tokens=60) for i in range(100))
            replies = await asyncio.gather(*asked)
            statuses = {x.status for x in replies}
            assert statuses <= {200, 429}
            for gateway in r.gateways:  # what was taken beyond what was used is given back
                await gateway.state.tenancy.close()
        decisions = [d for g in r.gateways for d in await g.written(DecisionRecord)]
    used = sum(d.input_tokens_billed + d.output_tokens for d in decisions)
    assert 0.99 * limit <= used <= 1.01 * limit


async def test_one_tenants_flood_is_its_own_trouble(tmp_path: Path) -> None:
    async with rig(tmp_path, time_scale=0.001) as r:
        loud, quiet = r.gateway.key("loud", limit_rpm=5), r.gateway.key("quiet", limit_rpm=50)
        replies = await asyncio.gather(
            *(r.ask(loud) for _ in range(50)), *(r.ask(quiet) for _ in range(20))
        )
        assert [x.status for x in replies[:50]].count(200) == 5
        assert {x.status for x in replies[50:]} == {200}


async def test_a_key_buys_only_what_it_may(tmp_path: Path) -> None:
    async with rig(tmp_path, models=("llama-3-8b", "llama-3.1-8b"), time_scale=0.001) as r:
        key = r.gateway.key(models=["llama-3.1-8b"])
        replies = [await r.ask(key) for _ in range(5)]
        assert {x.body["model"] for x in replies} == {"llama-3.1-8b"}
        refused = await r.ask(key, model="llama-3-8b")
        assert (refused.status, refused.body["error"]["code"]) == (403, "model_not_allowed")
        widened = await r.ask(key, sla={"compliance": {"allow": ["llama-3-8b"]}})
        assert widened.status == 422


async def test_a_keys_sla_fills_in_and_its_rules_cannot_be_loosened(tmp_path: Path) -> None:
    async with rig(tmp_path, time_scale=0.001) as r:
        sla = {"quality": 0.8, "compliance": {"zdr": True}}
        key = r.gateway.key(sla=sla)
        offers = {
            (await r.ask(key, sla={"ttft_ms": 900})).headers["x-broker-offer"] for _ in range(5)
        }
        assert not any(o.startswith("novita/") for o in offers)  # it keeps prompts for a week
        (decision, *_) = await r.gateway.written(DecisionRecord)
        assert '"quality":0.8' in decision.sla
        assert '"ttft_ms":900' in decision.sla


async def test_a_revoked_key_is_refused_within_two_seconds_and_the_log_is_told(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path, time_scale=0.001) as r:
        key = r.gateway.key()
        state = r.gateway.state
        following = asyncio.create_task(
            follow_revocations(state.shared, state.market.keys, r.gateway._spool, SystemClock())
        )
        assert (await r.ask(key)).status == 200
        begun = time.monotonic()
        # As long ago as whoever revokes is given to tell the log.
        await state.shared.revoke(key.split("_")[1], SystemClock().now_us() - 10_000_000, "ops")
        while (await r.ask(key)).status == 200:
            assert time.monotonic() - begun < 2.0
            await asyncio.sleep(0.02)
        assert time.monotonic() - begun < 2.0
        await asyncio.sleep(POLL_S)
        (told,) = await r.gateway.written(KeyRecord)
        assert told.revoked
        following.cancel()


def test_a_rotated_key_overlaps_and_ends() -> None:
    ring = KeyRing()
    key, record = new_key("t", ("app",), at_us=100, by="test")
    newer, renewed = rotated(record, at_us=200, by="test", overlap_us=50)
    for known in (renewed, record):  # out of order: the newest counts
        ring.apply(known)
    assert ring.caller(f"Bearer {newer}", 210).key_id == record.key_id
    assert ring.caller(f"Bearer {key}", 249).key_id == record.key_id
    with pytest.raises(NotAuthenticated, match="replaced"):
        ring.caller(f"Bearer {key}", 250)
    assert ring.caller(f"Bearer {newer}", 10**15).tenant == "t"
    for stolen in (record.digest, renewed.digest, digest_of(record.digest)):
        with pytest.raises(NotAuthenticated):
            ring.caller(f"Bearer {stolen}", 210)


@pytest.mark.parametrize(
    ("period", "now_us", "seconds"),
    [
        ("k|day 1970-01-01", 3_600_000_000, 82_800.0),
        ("k|month 1970-01", 0, 31 * 86_400.0),
        ("k|month 1970-02", 31 * 86_400_000_000, 28 * 86_400.0),
    ],
)
def test_the_next_period(period: str, now_us: int, seconds: float) -> None:
    assert until_next_s(period, now_us) == seconds
