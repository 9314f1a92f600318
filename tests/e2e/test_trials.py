"""Params tried on a running market, in the shadow and as a canary: by HTTP and from the shell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from analytics.explain import decisions
from analytics.remake import remake_all
from broker import cli
from tests.fakes.up_rig import Market, Reply, polled

pytestmark = pytest.mark.asyncio(loop_scope="session")
PATH = "choice.unstated_value_usd"


async def admin(market: Market, method: str, path: str = "", **more: Any) -> Reply:
    key, url = market.up.keys["ops"], market.up.admin_url
    return await market.send(method, f"/admin/params{path}", key=key, url=url, **more)


async def post(market: Market, path: str, **body: Any) -> Reply:
    return await admin(market, "POST", path, json={"why": "a test", **body})


async def decided(market: Market, **more: Any) -> dict[str, Any]:
    """A request's decision, as anybody may read it once it is over."""
    reply = await market.ask(**more)
    assert reply.status == 200, reply.body
    told = await market.send("GET", f"/v1/decisions/{reply.headers['x-broker-decision']}")
    found: dict[str, Any] = told.body
    return found


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def in_order(market: Market) -> AsyncIterator[None]:
    """Nothing is left running, and the newest number is that of the params in force."""
    before = (await admin(market, "GET")).body["version"]
    yield
    for path in ("/shadow/stop", "/canary/abort"):
        assert (await post(market, path)).status in (200, 409)
    version = (await admin(market, "GET")).body["version"]
    body = {"if_version": version, "changes": {"exploration.share": 0.02}, "why": "a test"}
    assert (await admin(market, "PATCH", json=body)).status == 200
    back = await admin(market, "POST", "/rollback", json={"to": before, "why": "a test"})
    assert back.status == 200


async def test_the_shadow_tells_what_it_would_buy_and_buys_nothing(market: Market) -> None:
    # Worth far more than it costs, by what is believed alone, and never by chance.
    changes = {PATH: 10.0, "choice.optimism_sd": 0.0, "exploration.share": 0.0}
    begun = await post(market, "/shadow", changes=changes)
    assert begun.status == 200, begun.body
    version = begun.body["version"]

    async def compared() -> dict[str, Any] | None:
        told = await decided(market)
        return told if told["decided"]["shadow"] else None

    told = await polled(compared, "a decision compared")
    assert told["decided"]["params_version"] < version
    shadow = told["decided"]["shadow"]
    assert shadow["params_version"] == version
    # A good answer worth ten dollars is bought at the best model, whatever it costs.
    assert shadow["p_good"] >= max(b["p_good"] for b in told["decided"]["ranked"]) - 1e-9
    again = await post(market, "/shadow", changes={PATH: 0.5})
    assert (again.status, again.body["error"]["code"]) == (409, "trial_conflict")
    record_of = [told["decision_id"]]

    async def stored() -> Any:
        found = await decisions(market.up_store, record_of)
        return found or None

    found = await polled(stored, "the decision in the store")
    assert found[0].shadow_version == version

    async def replayed() -> bool:
        return (await remake_all(market.up_store, found))[0].identical

    await polled(replayed, "the decision made again, the same")
    assert (await post(market, "/shadow/stop")).status == 200
    assert (await post(market, "/shadow/stop")).status == 409

    async def over() -> bool:
        return (await decided(market))["decided"]["shadow"] is None

    await polled(over, "no decision compared any more")
    history = (await admin(market, "GET", "/history")).body
    assert [t["event"] for t in history["trials"][:2]] == ["end", "shadow"]
    assert history["trials"][1]["why"] == "a test"


@pytest.mark.parametrize("path", ["/shadow", "/canary"])
async def test_what_may_not_be_tried(market: Market, path: str) -> None:
    beyond = await post(market, path, changes={"choice.optimism_sd": 9})
    assert (beyond.status, beyond.body["error"]["bounds"]) == (422, [0.0, 4.0])
    unknown = await post(market, path, changes={"choice.optimism": 1})
    assert (unknown.status, unknown.body["error"]["code"]) == (422, "unknown_param")
    assert "choice.optimism_sd" in unknown.body["error"]["near"]
    now = (await admin(market, "GET")).body["params"]["choice"]["optimism_sd"]
    same = await post(market, path, changes={"choice.optimism_sd": now})
    assert same.status == 422
    assert "changes nothing" in same.body["error"]["message"]
    share = await post(market, path, changes={PATH: 1.0}, share=1.5)
    assert share.status == 422
    assert share.body["error"]["bounds"][1] <= 1.0
    for body in (b"{", b'{"changes": {}, "why": "x"}', b'{"changes": {"a": "b"}, "why": "x"}'):
        assert (await admin(market, "POST", path, data=body)).status == 400
    told = (await admin(market, "GET", "/trials")).body
    assert told["shadow"] is None
    assert told["canary"] is None


def shell(market: Market, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    """A command in this process: the interpreter's start is another test's matter."""
    command = ["params", *arguments, "--json", "--config", str(market.up.config_path)]
    capsys.readouterr()
    code = cli.app(command, standalone_mode=False) or 0
    return code, msgspec.json.decode(capsys.readouterr().out.strip().splitlines()[-1])


async def test_the_shell_starts_and_stops_a_shadow(
    market: Market,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(cli.logs, "configure", lambda level: None)
    monkeypatch.setenv("BROKER_OPS_KEY", market.up.keys["ops"])

    async def run(*arguments: str) -> tuple[int, Any]:
        return await asyncio.to_thread(shell, market, capsys, *arguments)

    file = tmp_path / "tried.toml"
    file.write_text("[choice]\nunstated_value_usd = 0.5\n")
    code, begun = await run("shadow", str(file), "--share", "0.5", "--why", "a test")
    assert code == 0
    assert begun["changes"][0]["new"] == 0.5
    code, told = await run("canary", "status")
    assert code == 0
    assert (told["shadow"]["version"], told["shadow"]["share"]) == (begun["version"], 0.5)
    code, refused = await run("shadow", "choice.optimism_sd=9", "--why", "a test")
    assert code == 1
    assert refused["error"]["code"] == "trial_conflict"
    code, ended = await run("shadow", "stop", "--why", "enough")
    assert code == 0
    assert (ended["event"], ended["why"]) == ("end", "enough")
    code, refused = await run("shadow", str(tmp_path / "none.toml"), "--why", "a test")
    assert code == 1
    assert "none.toml" in refused["error"]["message"]


async def test_a_canary_takes_its_share_and_is_promoted_or_aborted(market: Market) -> None:
    begun = await post(market, "/canary", changes={PATH: 0.001}, share=0.5)
    assert begun.status == 200, begun.body
    version = begun.body["version"]
    second = await post(market, "/canary", changes={PATH: 0.004}, share=0.5)
    assert (second.status, second.body["error"]["version"]) == (409, version)
    now = (await admin(market, "GET")).body["version"]
    body = {"if_version": now, "changes": {PATH: 0.004}, "why": "a test"}
    assert (await admin(market, "PATCH", json=body)).status == 409

    async def taken() -> dict[str, Any] | None:
        told = await decided(market, sla={"quality": 0.9})
        return told if told["decided"]["params_version"] == version else None

    told = await polled(taken, "a request of the canary")
    assert told["decided"]["arm"] == f"v{version}"
    assert told["decided"]["shadow"]["params_version"] == now
    ids = [told["decision_id"]]

    async def replayed() -> bool:
        found = await decisions(market.up_store, ids)
        return bool(found) and (await remake_all(market.up_store, found))[0].identical

    await polled(replayed, "a canary's decision made again, the same")

    async def watched() -> bool:
        canary = (await admin(market, "GET", "/trials")).body["canary"]
        return bool(canary["guard"] and canary["guard"]["n_canary"])

    async def seen() -> bool:
        await decided(market)
        return await watched()

    await polled(seen, "the guard sees the canary's requests")
    wrong = await post(market, "/canary/promote", version=version + 7)
    assert wrong.status == 409
    made = await post(market, "/canary/promote")
    assert (made.status, made.body["version"], made.body["event"]) == (200, version, "promote")
    assert (await admin(market, "GET")).body["version"] == version
    assert (await post(market, "/canary/promote")).status == 409
    events = (await admin(market, "GET", "/history")).body["trials"][:2]
    assert [e["event"] for e in events] == ["promote", "canary"]
