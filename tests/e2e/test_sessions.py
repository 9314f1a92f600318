"""Sessions on the paper market: sticky by price, over two workers, with the reason on record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bidding.market import PriceList
from broker.auth import new_key
from broker.paper.faults import Fault, FaultSpec
from feeds.flight import switch_in
from feeds.records import DecisionRecord
from tests.fakes.gateway_rig import Gateway, Reply, Rig, rig

MINI, HAIKU = "openai/gpt-4o-mini", "anthropic/claude-3-haiku"
SYSTEM = {"role": "system", "content": "You keep the books of a mill. " * 800}
# Strict, so that nothing is explored.
CHEAPEST: dict[str, Any] = {"value_usd": 0.0, "strict": True}
USD_PER_MTOK = 10**9


def prices(usd: float, cached: float) -> PriceList:
    return PriceList(
        input_nusd_per_mtok=round(usd * USD_PER_MTOK),
        output_nusd_per_mtok=round(usd * USD_PER_MTOK),
        cache_read_nusd_per_mtok=round(cached * USD_PER_MTOK),
    )


def reprice(market: Rig, mini: PriceList, haiku: PriceList) -> None:
    for gateway in market.gateways:
        gateway.market.book.apply_prices(MINI, mini)
        gateway.market.book.apply_prices(HAIKU, haiku)
        gateway.market.refresh()


class Agent:
    """An app that goes on with its conversation, a step at a time, at whichever worker."""

    def __init__(self, market: Rig, key: str, **body: Any) -> None:
        self.market, self.key, self.body = market, key, body
        self.messages: list[dict[str, Any]] = [SYSTEM]

    async def step(self, gateway: Gateway, text: str, **more: Any) -> Reply:
        self.messages.append({"role": "user", "content": text})
        reply = await self.market.ask(
            self.key, gateway=gateway, messages=self.messages, sla=CHEAPEST, **self.body, **more
        )
        assert reply.status == 200, reply.body
        self.messages.append(reply.body["choices"][0]["message"])
        await gateway.state.sessions.close()
        return reply


async def records(market: Rig) -> dict[str, DecisionRecord]:
    found: list[DecisionRecord] = []
    for gateway in market.gateways:
        found += await gateway.written(DecisionRecord)
    return {r.decision_id: r for r in found}


def shared_key(market: Rig) -> str:
    """One key, in force on all workers."""
    key, record = new_key("acme", ("app",), at_us=1, by="test")
    for gateway in market.gateways:
        gateway.market.keys.apply(record)
    return key


async def test_twelve_steps_stay_while_moving_costs_more_than_it_gains_and_move_when_not(
    tmp_path: Path,
) -> None:
    async with rig(
        tmp_path,
        providers=("openai", "anthropic"),
        models=("gpt-4o-mini", "claude-3-haiku"),
        n_gateways=2,
    ) as market:
        agent = Agent(market, shared_key(market))
        alone = shared_key(market)
        offers, cheapest, ids = [], [], []
        for n in range(12):
            if n < 8:  # the cheapest flips, by less than a warm cache and a voice are worth
                reprice(market, prices(1.0, 0.1), prices(0.9 if n % 2 else 1.1, 0.09))
            else:  # by more
                reprice(market, prices(10.0, 9.0), prices(0.5, 0.05))
            gateway = market.gateways[n % 2]
            fresh = await market.ask(
                alone, gateway=gateway, messages=[SYSTEM, {"role": "user", "content": f"{n}"}],
                sla=CHEAPEST,
            )  # fmt: skip
            cheapest.append(fresh.headers["x-broker-offer"])
            reply = await agent.step(gateway, f"Step {n}: go on.")
            offers.append(reply.headers["x-broker-offer"])
            ids.append(reply.headers["x-broker-decision"])
            assert reply.headers["x-broker-session"].endswith(f"; step={n + 1}")
            if n not in (0, 8):
                assert reply.headers["x-broker-handoff"] == "stayed"
            if n == 8:
                assert reply.headers["x-broker-handoff"] == f"from={MINI}; why=gain"
        assert cheapest[:8] == [MINI, HAIKU] * 4
        assert offers == [MINI] * 8 + [HAIKU] * 4
        told = await records(market)
        stayed, moved, after = (told[ids[n]] for n in (5, 8, 11))
        assert {told[i].session for i in ids} == {stayed.session}
        assert stayed.session
        # Why it stayed: the other was cheaper, by less than leaving the warm cache costs.
        switch = switch_in(stayed)
        assert switch is not None
        assert stayed.incumbent_cached_tokens > 3_000
        assert (switch.moved, switch.rival, stayed.handoff) == (False, HAIKU, "")
        assert 0 < switch.rival_gain_nusd < switch.rival_cost_nusd
        # Why it moved: by more than that.
        switch = switch_in(moved)
        assert switch is not None
        assert switch.gain_nusd is not None
        assert (switch.moved, moved.incumbent, moved.handoff) == (True, MINI, "gain")
        assert switch.gain_nusd > switch.cost_nusd > 500_000 == switch.consistency_nusd
        assert switch.lost_cache_nusd > 0
        # The step that fails later on can be traced to the hand-off before it.
        gateway = market.gateways[1]
        autopsy = (await market.get(agent.key, f"/v1/decisions/{ids[8]}")).body
        assert autopsy["session"]["handoff"]["why"] == "gain"
        assert any("handed over" in line for line in autopsy["why"])
        (handoff,) = after.earlier_handoffs
        assert (handoff.decision_id, handoff.step, handoff.source) == (ids[8], 9, MINI)
        async with market.http.get(
            f"{gateway.url}/v1/decisions/{ids[11]}",
            headers={"Authorization": f"Bearer {agent.key}"},
        ) as response:
            later = await response.json()
        (shown,) = later["session"]["earlier_handoffs"]
        assert (shown["from"], shown["to"], shown["why"]) == (MINI, HAIKU, "gain")
        assert any("handed over before, at step 9" in line for line in later["why"])


async def test_names_bind_and_other_conversations_and_other_keys_do_not(tmp_path: Path) -> None:
    async with rig(
        tmp_path, providers=("openai", "anthropic"), models=("gpt-4o-mini", "claude-3-haiku")
    ) as market:
        gateway = market.gateway
        key, other = gateway.key(), gateway.key()
        dear, cheap = prices(1.0, 0.5), prices(0.97, 0.485)
        reprice(market, cheap, dear)
        question = [SYSTEM, {"role": "user", "content": "How much flour?"}]
        named = {**CHEAPEST, "session": "mill-7"}

        async def offer(sent: str, **more: Any) -> tuple[str, str | None]:
            reply = await market.ask(sent, **({"messages": question, "sla": CHEAPEST} | more))
            assert reply.status == 200, reply.body
            return reply.headers["x-broker-offer"], reply.headers.get("x-broker-handoff")

        assert await offer(key, sla=named) == (MINI, None)
        assert await offer(key, user="ann", prompt_cache_key="mill") == (MINI, None)
        reprice(market, dear, cheap)
        # A name binds whatever is said; by header as well; but only under the same key.
        said = [{"role": "user", "content": "Something else altogether."}]
        assert await offer(key, messages=said, sla=named) == (MINI, "stayed")
        assert await offer(key, sla=named, stream=True) == (MINI, "stayed")
        header = {"x-broker-session": "mill-7"}
        assert await offer(key, headers=header) == (MINI, "stayed")
        assert await offer(other, sla=named) == (HAIKU, None)
        # The same words said anew are a conversation of their own, hints or no hints.
        assert await offer(key) == (HAIKU, None)
        assert await offer(key, user="ann", prompt_cache_key="mill") == (HAIKU, None)
        # The hint finds a conversation again whose history was cut.
        cut = [{"role": "assistant", "content": "…"}, *said]
        assert await offer(key, messages=cut, prompt_cache_key="mill", user="ann") == (
            HAIKU,
            "stayed",
        )
        bad = await market.ask(key, headers={"x-broker-session": "x" * 300})
        assert (bad.status, bad.body["error"]["param"]) == (400, "x-broker-session")


async def test_a_seller_that_fails_hands_over_and_an_auction_alone_has_sessions_too(
    tmp_path: Path,
) -> None:
    async with rig(
        tmp_path, providers=("openai", "anthropic"), models=("gpt-4o-mini", "claude-3-haiku")
    ) as market:
        key = market.gateway.key()
        reprice(market, prices(0.9, 0.09), prices(1.0, 0.1))
        agent = Agent(market, key)
        first = await agent.step(market.gateway, "Begin.")
        assert first.headers["x-broker-offer"] == MINI
        await market.paper.set_faults("openai", [FaultSpec(kind=Fault.ERROR, status=500)])
        second = await agent.step(market.gateway, "Go on.")
        assert second.headers["x-broker-offer"] == HAIKU
        assert second.headers["x-broker-handoff"].startswith(f"from={MINI}; why=failover:")
        headers = {"Authorization": f"Bearer {key}"}
        told = []
        for _ in range(2):
            async with market.http.post(
                f"{market.gateway.url}/v1/auctions",
                json={"input_tokens": 100, "session": "alone", "sla": CHEAPEST},
                headers=headers,
            ) as response:
                told.append((await response.json())["decision_id"])
        assert response.headers["x-broker-handoff"] == "stayed"
        autopsy = (await market.get(key, f"/v1/decisions/{told[1]}")).body
        assert (autopsy["session"]["step"], autopsy["session"]["switch"]["moved"]) == (2, False)


async def test_a_conversation_that_fits_nowhere_is_gated_or_shortened_where_the_key_lets_it(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as market:  # llama-3-8b: a window of 8,192 tokens
        plain, trims = market.gateway.key(), market.gateway.key(trim=True)
        talk = [SYSTEM | {"content": "You keep a mill's books."}]
        for n in range(12):
            talk.append({"role": "user", "content": f"Entry {n}: " + "flour, 3 sacks. " * 300})
            talk.append({"role": "assistant", "content": f"Noted {n}."})
        talk.append({"role": "user", "content": "How many entries?"})
        refused = await market.ask(plain, messages=talk)
        assert (refused.status, refused.body["error"]["code"]) == (422, "no_eligible_offer")
        cut = await market.ask(trims, messages=talk)
        assert cut.status == 200, cut.body
        assert cut.headers["x-broker-trimmed"].startswith("messages=")
        told = (await market.get(trims, f"/v1/decisions/{cut.headers['x-broker-decision']}")).body
        assert 0 < told["asked"]["trimmed_messages"] < len(talk) - 2
        assert told["asked"]["input_tokens"] <= 8_192
        assert any("were dropped, as the key allows" in line for line in told["why"])
