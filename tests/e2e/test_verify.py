"""Answers checked before they are returned, on the paper market: what fails is bought again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from bidding.market import PriceList
from broker.paper.faults import Fault, FaultSpec
from broker.paper.tasks import check, generate
from broker.verify.webhook import VerifySettings
from feeds.records import DecisionRecord, FeedbackRecord
from tests.fakes.gateway_rig import Reply, Rig, rig

MODELS = ("llama-3.1-8b", "llama-3.1-70b", "llama-3.3-70b")
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "integer"}},
    "required": ["answer"],
}
QUESTION = "Answer as JSON: what is 6 * 7?"


@asynccontextmanager
async def market_of(folder: Path, **settings: Any) -> AsyncIterator[Rig]:
    """Three models, ever dearer, two sellers each; strict, so that nothing is explored."""
    async with rig(
        folder, providers=("groq", "together"), models=MODELS, settings=settings
    ) as market:
        book = market.gateway.market.book
        for offer in book.offers.offer_ids:
            model = offer.partition("/")[2]
            usd = (MODELS.index(model) + 1) * 10**8 + (offer[0] == "t") * 10**6
            book.apply_prices(offer, PriceList(input_nusd_per_mtok=usd, output_nusd_per_mtok=usd))
        market.gateway.market.refresh()
        yield market


def asked(verify: dict[str, Any], **sla: Any) -> dict[str, Any]:
    return {"sla": {"value_usd": 0.0, "strict": True, "verify": verify, **sla}}


async def broken(market: Rig, *models: str) -> None:
    """Sellers of these models answer, and what they say is no JSON."""
    for model in models:
        for provider in ("groq", "together"):
            if f"{provider}/{model}" in market.gateway.market.book.offers.offer_ids:
                await market.paper.set_faults(provider, [FaultSpec(kind=Fault.BROKEN_JSON)], model)


def word(reply: Reply) -> str:
    return str(reply.headers["x-broker-verify"])


async def records(market: Rig) -> tuple[list[DecisionRecord], list[FeedbackRecord]]:
    made = await market.gateway.written(DecisionRecord)
    return made, await market.gateway.written(FeedbackRecord)


@pytest.mark.parametrize("stream", [False, True])
async def test_broken_json_goes_to_the_next_better_bid(tmp_path: Path, stream: bool) -> None:
    """Plain questions are answered in prose by all models but those in JSON mode."""
    async with market_of(tmp_path) as market:
        await broken(market, "llama-3.1-8b")
        reply = await market.ask(
            market.gateway.key(),
            QUESTION,
            stream=stream,
            response_format={"type": "json_object"},
            **asked({"json_schema": {"type": "object", "required": ["answer"]}}),
        )
        assert reply.status == 200, reply.body
        assert word(reply) == "passed; answers=2"
        assert reply.headers["x-broker-attempts"] == "2"
        if stream:
            text = "".join(
                msgspec.json.decode(line[6:])["choices"][0]["delta"].get("content") or ""
                for line in reply.body.splitlines()
                if line.startswith("data: {")
            )
        else:
            text = reply.body["choices"][0]["message"]["content"]
        assert "answer" in msgspec.json.decode(text)
        (made,), scores = await records(market)
        first, second = made.verdicts
        assert (first.model, first.check, first.score) == ("llama-3.1-8b", "json_schema", 0.0)
        assert (second.model, second.check) == ("llama-3.1-70b", "passed")
        # All that was spent is told, and what was caught is no shortfall of the class.
        assert made.cost_nusd == first.cost_nusd + second.cost_nusd > second.cost_nusd
        assert float(reply.headers["x-broker-cost-usd"]) == pytest.approx(made.cost_nusd * 1e-9)
        assert made.delivered_model == "llama-3.1-70b"
        assert [(s.quality, s.source, s.weight) for s in scores] == [
            (0.0, "verifier", 0.3),
            (1.0, "verifier", pytest.approx(0.075)),
        ]
        assert (scores[0].p_good, scores[1].p_good) == (None, made.p_good)
        assert made.sla_class.endswith("|v")
        told = (await market.get(market.gateway.key(), f"/v1/decisions/{made.decision_id}")).body
        assert [c["check"] for c in told["checks"]] == ["json_schema", "passed"]
        assert any("failed its check: json_schema" in line for line in told["why"])


async def test_a_call_whose_arguments_do_not_fit_its_tool_is_bought_again(tmp_path: Path) -> None:
    async with market_of(tmp_path) as market:
        await broken(market, "llama-3.1-8b")
        tool = {"name": "look_up", "parameters": SCHEMA}
        reply = await market.ask(
            market.gateway.key(),
            tools=[{"type": "function", "function": tool}],
            tool_choice="required",
            **asked({"tools": True, "not_refused": True}),
        )
        assert reply.status == 200, reply.body
        (call,) = reply.body["choices"][0]["message"]["tool_calls"]
        assert isinstance(msgspec.json.decode(call["function"]["arguments"])["answer"], int)
        (made,), _ = await records(market)
        assert [v.check for v in made.verdicts] == ["tools", "passed"]


async def test_when_nobody_passes_the_app_chooses_and_bounds_hold(tmp_path: Path) -> None:
    async with market_of(tmp_path) as market:
        key = market.gateway.key()
        await broken(market, *MODELS)
        check = {"json_schema": True}
        form = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
        }
        last = await market.ask(key, QUESTION, response_format=form, **asked(check))
        assert (last.status, word(last)) == (200, "failed; check=json_schema; answers=3")
        assert last.headers["x-broker-attempts"] == "3"
        none = await market.ask(
            key, QUESTION, response_format=form, **asked(check | {"on_fail": "reject"})
        )
        assert (none.status, none.body["error"]["code"]) == (422, "check_failed")
        assert len(none.body["error"]["answers"]) == 3
        spent_usd = none.body["error"]["spent_usd"]
        told = (await market.get(key, f"/v1/decisions/{none.body['error']['decision_id']}")).body
        assert told["delivered"]["cost_usd"] == pytest.approx(spent_usd)
        assert spent_usd > 0
        two = await market.ask(
            key, QUESTION, response_format=form, **asked(check | {"most_answers": 2})
        )
        assert word(two).endswith("answers=2")
        (first, *_), _ = await records(market)
        cap_usd = first.ranked[0].cost_nusd * 1.3e-9
        capped = await market.ask(
            key, QUESTION, response_format=form, **asked(check, max_cost_usd=cap_usd)
        )
        assert word(capped).endswith("answers=1")
        hurried = await market.ask(
            key, QUESTION, response_format=form, **asked(check, latency_ms=1.0)
        )
        assert word(hurried).endswith("answers=1")
        made, _ = await records(market)
        rejected = made[1]
        assert (rejected.delivered_offer, rejected.failure) == (None, "malformed")
        assert rejected.cost_nusd == sum(v.cost_nusd for v in rejected.verdicts) > 0


async def test_a_budget_holds_for_all_answers_together(tmp_path: Path) -> None:
    async with market_of(tmp_path) as market:
        budget_usd = 0.0005
        key = market.gateway.key(budget_day_usd=budget_usd)
        body = asked({"regex": "^nobody says this$"})
        replies = await asyncio.gather(
            *(market.ask(key, f"{n}: 6 * 7?", **body) for n in range(40))
        )
        assert {reply.status for reply in replies} <= {200, 429}
        n_answers = [int(word(r).rpartition("=")[2]) for r in replies if r.status == 200]
        assert n_answers
        made, _ = await records(market)
        spent_usd = sum(record.cost_nusd for record in made) * 1e-9
        assert 0 < spent_usd <= budget_usd


async def test_checks_that_cannot_be_made_are_refused_before_anything_is_bought(
    tmp_path: Path,
) -> None:
    async with market_of(
        tmp_path, verify=VerifySettings(webhooks=("https://checks.example",))
    ) as market:
        key = market.gateway.key()
        deep = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(40)}
        slow = {"$ref": "#/$defs/d0", "$defs": deep | {"d40": {"type": "object"}}}
        for verify, path in (
            ({}, "sla.verify"),
            ({"json_schema": True}, "sla.verify.json_schema"),
            ({"json_schema": {"type": "nope"}}, "sla.verify.json_schema"),
            ({"json_schema": {"$ref": "http://127.0.0.1:1/s"}}, "sla.verify.json_schema"),
            ({"json_schema": {"pattern": "(?=a)a"}}, "sla.verify.json_schema"),
            ({"regex": "("}, "sla.verify.regex"),
            ({"regex": r"(a)\1"}, "sla.verify.regex"),
            ({"tools": True}, "sla.verify.tools"),
            ({"webhook": "https://elsewhere.example/x"}, "sla.verify.webhook"),
            ({"webhook": "http://checks.example/x"}, "sla.verify.webhook"),
            ({"webhook": "https://u:p@checks.example/x"}, "sla.verify.webhook"),
            ({"webhook": "https://checks.example:8443/x"}, "sla.verify.webhook"),
        ):
            reply = await market.ask(key, **asked(verify))
            assert reply.status == 400, (verify, reply.body)
            assert reply.body["error"]["param"] == path, verify
        assert sum(ledger.calls for ledger in market.paper.ledgers().values()) == 0
        # A schema that would take for ever is stopped, once; the answer is told to be unchecked.
        for _ in range(2):
            reply = await market.ask(
                key,
                QUESTION,
                response_format={"type": "json_object"},
                **asked({"json_schema": slow}),
            )
            told = reply.headers.get("x-broker-verify", reply.body)
            assert reply.status == 400 or told == "unknown; answers=1", reply.body
        # An expression that backtracks for ever elsewhere is read in one go.
        evil = await market.ask(key, "a" * 30_000, **asked({"regex": "(a+)+$|."}))
        assert word(evil).startswith("passed")


async def test_a_webhook_says_what_is_right_and_is_asked_nowhere_else(tmp_path: Path) -> None:
    asked_of: list[dict[str, Any]] = []
    items = [generate("math", n) for n in range(12)]

    async def checks(request: web.Request) -> web.Response:
        told = await request.json()
        asked_of.append(told)
        if request.path == "/elsewhere":
            raise web.HTTPFound("/checks")
        if request.path == "/broken":
            return web.Response(status=500)
        item = items[int(told["metadata"]["item"])]
        good = check(item, told["answer"]["choices"][0]["text"])
        return web.json_response({"score": float(good)})

    app = web.Application()
    app.router.add_post("/{any}", checks)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
    allowed = VerifySettings(webhooks=(origin,), private_hosts=("127.0.0.1",))
    try:
        async with market_of(tmp_path, verify=allowed) as market:
            key = market.gateway.key()
            n_good = n_first = 0
            for n, item in enumerate(items):
                reply = await market.ask(
                    key,
                    item.prompt,
                    metadata={"item": str(n)},
                    **asked({"webhook": f"{origin}/checks"}),
                )
                assert reply.status == 200, reply.body
                good = check(item, reply.body["choices"][0]["message"]["content"])
                assert good == word(reply).startswith("passed")
                n_good += good
                n_first += word(reply) == "passed; answers=1"
            assert n_first < n_good  # some were saved by being bought again
            assert {"decision_id", "task", "offer", "answer"} <= set(asked_of[0])
            assert "messages" not in asked_of[0]
            # No redirect is followed, and one that fails leaves the answer unchecked.
            for path in ("elsewhere", "broken"):
                n_before = len(asked_of)
                reply = await market.ask(
                    key,
                    metadata={"item": "0"},
                    **asked({"webhook": f"{origin}/{path}"}),
                )
                assert word(reply) == "unknown; answers=1"
                assert len(asked_of) == n_before + 1
    finally:
        await runner.cleanup()
    (tmp_path / "strict").mkdir()
    async with market_of(tmp_path / "strict", verify=VerifySettings(webhooks=(origin,))) as market:
        reply = await market.ask(market.gateway.key(), **asked({"webhook": f"{origin}/checks"}))
        assert (reply.status, reply.body["error"]["param"]) == (400, "sla.verify.webhook")
