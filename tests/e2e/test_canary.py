"""Canaries on a running market: one tenant's, ended by its guard; and from the shell."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from broker import cli
from broker.key_commands import create_key
from feeds.control_records import KeyPolicy
from tests.fakes.up_rig import QUESTION, Market, Reply, polled

pytestmark = pytest.mark.asyncio(loop_scope="session")
PATH = "choice.unstated_value_usd"


async def admin(market: Market, method: str, path: str = "", **more: Any) -> Reply:
    key, url = market.up.keys["ops"], market.up.admin_url
    return await market.send(method, f"/admin/params{path}", key=key, url=url, **more)


async def tenant_key(market: Market, tenant: str) -> str:
    key, _ = await create_key(market.up.settings, tenant, ("app",), policy=KeyPolicy())

    async def in_force() -> bool:
        return (await market.send("GET", "/v1/models", key=key)).status == 200

    await polled(in_force, f"the key of {tenant}")
    return key


async def bought(market: Market, key: str) -> str:
    """A request's decision."""
    body = {"model": "market:math", "messages": QUESTION}
    reply = await market.send("POST", "/v1/chat/completions", key=key, json=body)
    assert reply.status == 200, reply.body
    return str(reply.headers["x-broker-decision"])


async def version_of(market: Market, key: str, decision: str) -> int:
    told = (await market.send("GET", f"/v1/decisions/{decision}", key=key)).body
    return int(told["decided"]["params_version"])


async def test_a_tenants_canary_touches_nobody_else_and_is_ended_by_its_guard(
    market: Market,
) -> None:
    tried, other = await tenant_key(market, "tried"), await tenant_key(market, "untried")
    before = (await admin(market, "GET")).body["version"]
    # A good answer is worth nothing, so the cheapest are bought; in the canary, at any price.
    cheap = {"if_version": before, "changes": {PATH: 0.0}, "why": "a test"}
    assert (await admin(market, "PATCH", json=cheap)).status == 200
    now = (await admin(market, "GET")).body["version"]
    body = {
        "changes": {PATH: 10.0, "choice.optimism_sd": 0.0},
        "why": "a test",
        "share": 0.5,
        "tenant": "tried",
    }
    begun = await admin(market, "POST", "/canary", json=body)
    assert begun.status == 200, begun.body
    version = begun.body["version"]
    others: list[str] = []

    async def ended() -> bool:
        await asyncio.gather(*(bought(market, tried) for _ in range(8)))
        others.append(await bought(market, other))
        return (await admin(market, "GET", "/trials")).body["canary"] is None

    await polled(ended, "the canary rolled back by its guard", 120.0)
    event = (await admin(market, "GET", "/history")).body["trials"][0]
    assert (event["event"], event["by"], event["version"]) == ("rollback", "guard", version)
    assert event["tenant"] == "tried"
    surely = {one["what"] for one in event["found"]["compared"] if one["surely"]}
    assert surely & {"dearer", "spend"}
    assert event["found"]["n_canary"] >= 50
    assert (await admin(market, "GET")).body["version"] == now
    assert {await version_of(market, other, one) for one in others} == {now}

    async def back() -> bool:
        return await version_of(market, tried, await bought(market, tried)) == now

    await polled(back, "the tenant's requests bought as before")
    undone = await admin(market, "POST", "/rollback", json={"to": before, "why": "a test"})
    assert undone.status == 200


def shell(market: Market, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """A command in this process: the interpreter's start is another test's matter."""
    command = ["params", *arguments, "--config", str(market.up.config_path)]
    capsys.readouterr()
    code = cli.app(command, standalone_mode=False) or 0
    return code, capsys.readouterr().out


async def test_the_shell_starts_tells_of_aborts_and_promotes_a_canary(
    market: Market, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.logs, "configure", lambda level: None)
    monkeypatch.setenv("BROKER_OPS_KEY", market.up.keys["ops"])
    before = (await admin(market, "GET")).body["version"]

    async def run(*arguments: str) -> tuple[int, str]:
        return await asyncio.to_thread(shell, market, capsys, *arguments)

    async def told(*arguments: str) -> tuple[int, Any]:
        code, out = await run(*arguments, "--json")
        return code, msgspec.json.decode(out.strip().splitlines()[-1])

    mine = ("--tenant", "nobody", "--share", "0.2", "--why", "a test")
    code, begun = await told("canary", "start", f"{PATH}=0.003", *mine)
    assert (code, begun["event"], begun["tenant"]) == (0, "canary", "nobody")
    code, words = await run("canary", "status")
    assert code == 0
    assert f"version {begun['version']}, 20% of nobody's requests" in words
    code, refused = await told("canary", "start", f"{PATH}=0.004", *mine)
    assert (code, refused["error"]["code"]) == (1, "trial_conflict")
    code, ended = await told("canary", "abort", "--why", "enough")
    assert (code, ended["event"], ended["why"]) == (0, "end", "enough")
    code, refused = await told("canary", "abort", "--why", "enough")
    assert (code, refused["error"]["code"]) == (1, "trial_conflict")

    code, begun = await told("canary", "start", f"{PATH}=0.003", *mine)
    assert code == 0
    code, made = await told("canary", "promote", "--why", "it did well")
    assert (code, made["event"], made["version"]) == (0, "promote", begun["version"])
    assert (await admin(market, "GET")).body["version"] == begun["version"]
    code, back = await told("rollback", str(before), "--why", "a test")
    assert (code, back["changes"][0]["path"]) == (0, PATH)
