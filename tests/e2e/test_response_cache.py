"""The exact response cache: off by default, by key, and a decision like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from broker.config import Settings
from broker.response_cache import CacheSettings, ResponseCache
from feeds.clock import ManualClock
from feeds.records import DecisionRecord
from tests.fakes.gateway_rig import Reply, rig

STILL: dict[str, Any] = {"temperature": 0}


def word(reply: Reply) -> str:
    assert reply.status == 200, reply.body
    return str(reply.headers.get("x-broker-cache", "")).partition(";")[0]


async def test_a_hit_costs_nothing_is_recorded_and_streams_as_well(tmp_path: Path) -> None:
    async with rig(tmp_path) as market:
        gateway = market.gateway
        key = gateway.key(cache_age_s=60, budget_day_usd=1.0)
        first = await market.ask(key, **STILL)
        assert word(first) == "miss"
        n_calls = sum(ledger.calls for ledger in market.paper.ledgers().values())
        second = await market.ask(key, **STILL)
        assert word(second) == "hit"
        assert second.headers["x-broker-offer"] == "cache"
        assert float(second.headers["x-broker-cost-usd"]) == 0.0
        assert second.body["choices"] == first.body["choices"]
        assert second.body["model"] == first.body["model"]
        assert second.body["usage"] == first.body["usage"]
        streamed = await market.ask(key, stream=True, user="ann", **STILL)
        assert word(streamed) == "hit"
        deltas = [
            msgspec.json.decode(line[6:])["choices"][0]["delta"].get("content", "")
            for line in streamed.body.splitlines()
            if line.startswith("data: {")
        ]
        assert "".join(deltas) == first.body["choices"][0]["message"]["content"]
        assert streamed.body.rstrip().endswith("data: [DONE]")
        assert sum(ledger.calls for ledger in market.paper.ledgers().values()) == n_calls
        made = {r.decision_id: r for r in await gateway.written(DecisionRecord)}
        hit = made[second.headers["x-broker-decision"]]
        source = first.headers["x-broker-decision"]
        assert (hit.winner, hit.delivered_offer, hit.policy) == ("cache", "cache", "cache")
        assert (hit.cost_nusd, hit.n_attempts, hit.cached_from) == (0, 0, source)
        told = (await market.get(key, f"/v1/decisions/{hit.decision_id}")).body
        assert told["cached_from"] == source
        assert told["why"][0] == f"Served from the response cache: the answer of {source}."


async def test_a_streamed_answer_is_kept_and_served_whole(tmp_path: Path) -> None:
    async with rig(tmp_path) as market:
        key = market.gateway.key(cache_age_s=60)
        assert word(await market.ask(key, stream=True, **STILL)) == "miss"
        whole = await market.ask(key, **STILL)
        assert word(whole) == "hit"
        assert whole.body["choices"][0]["message"]["content"]
        assert whole.body["usage"]["completion_tokens"] > 0


async def test_what_is_not_asked_for_the_same_is_bought(tmp_path: Path) -> None:
    async with rig(tmp_path) as market:
        gateway = market.gateway
        key, other = gateway.key(cache_age_s=60), gateway.key("rival", cache_age_s=60)
        plain, forced = gateway.key(), gateway.key(cache_age_s=60, cache_any=True)
        await market.ask(key, **STILL)
        assert word(await market.ask(other, **STILL)) == "miss"  # never across tenants or keys
        assert word(await market.ask(plain, **STILL)) == ""  # off by default
        assert word(await market.ask(key)) == "skipped"  # not deterministic
        assert word(await market.ask(key, "What is 6 * 8?", **STILL)) == "miss"
        for more in ({"max_tokens": 9}, {"sla": {"compliance": {"zdr": True}}}, {"stop": "x"}):
            reply = await market.ask(key, **STILL, **more)
            assert reply.status != 200 or word(reply) == "miss", more
        assert word(await market.ask(key, headers={"x-broker-cache": "bypass"}, **STILL)) == (
            "bypass"
        )
        assert word(await market.ask(key, headers={"x-broker-cache": "refresh"}, **STILL)) == (
            "refresh"
        )
        assert word(await market.ask(key, sla={"ttft_ms": 900}, **STILL)) == "hit"
        bad = await market.ask(key, headers={"x-broker-cache": "maybe"}, **STILL)
        assert (bad.status, bad.body["error"]["param"]) == (400, "x-broker-cache")
        assert word(await market.ask(forced)) == "miss"
        assert word(await market.ask(forced)) == "hit"


async def test_an_answer_scored_bad_is_served_no_more_and_a_hits_score_teaches_nothing(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as market:
        key = market.gateway.key(cache_age_s=60)
        await market.ask(key, **STILL)
        hit = await market.ask(key, **STILL)
        scored = {"decision_id": hit.headers["x-broker-decision"], "quality": 0, "source": "user"}
        async with market.http.post(
            f"{market.gateway.url}/v1/outcomes",
            json=scored,
            headers={"Authorization": f"Bearer {key}"},
        ) as response:
            assert response.status == 202, await response.text()
        assert word(await market.ask(key, **STILL)) == "miss"
        told = (await market.get(key, f"/v1/decisions/{scored['decision_id']}")).body
        assert told["feedback"][0]["quality"] == 0


def test_ages_and_sizes_are_bounded() -> None:
    from broker.auth import Caller
    from broker.wire.neutral import Answer, Choice, Message, NeutralRequest, Text
    from feeds.control_records import KeyPolicy

    clock = ManualClock()
    cache = ResponseCache(CacheSettings(max_bytes=3_000, max_answer_bytes=1_200), clock)
    caller = Caller("k", "acme", ("app",), KeyPolicy(cache_age_s=10.0))

    def asked(text: str) -> NeutralRequest:
        return NeutralRequest(
            model="market", messages=(Message("user", (Text(text),)),), temperature=0.0
        )

    def keep(text: str, size: int) -> None:
        lookup = cache.look_up(asked(text), caller, None)
        answer = Answer(choices=(Choice(text="x" * size),))
        cache.keep(lookup, answer, decision_id=f"dec_{text}", model="m", p_good=0.9)

    keep("huge", 2_000)
    assert len(cache) == 0
    for i in range(10):
        keep(str(i), 500)
    assert 0 < cache.n_bytes <= 3_000
    assert cache.look_up(asked("9"), caller, None).word == "hit"
    assert cache.look_up(asked("0"), caller, None).word == "miss"
    clock.advance(11.0)
    assert cache.look_up(asked("9"), caller, None).word == "miss"
    cut = Answer(choices=(Choice(text="x", finish="content_filter"),))
    lookup = cache.look_up(asked("cut"), caller, None)
    cache.keep(lookup, cut, decision_id="dec_cut", model="m", p_good=0.9)
    assert cache.look_up(asked("cut"), caller, None).word == "miss"
    assert Settings().cache.max_bytes == 67_108_864
