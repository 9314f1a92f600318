"""Live params on a running market: changed, refused, rolled back; by HTTP and from the shell."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import pytest

from analytics.explain import decisions
from broker import cli
from broker.admin_exposure import check_exposure
from broker.config import ConfigError
from tests.fakes.up_rig import Market, Reply, polled

pytestmark = pytest.mark.asyncio(loop_scope="session")
PATH = "choice.optimism_sd"


async def admin(market: Market, method: str, path: str = "", key: str = "", **more: Any) -> Reply:
    sent = key or market.up.keys["ops"]
    url = market.up.admin_url
    return await market.send(method, f"/admin/params{path}", key=sent, url=url, **more)


async def patch(market: Market, version: int, changes: dict[str, Any]) -> Reply:
    body = {"if_version": version, "changes": changes, "why": "a test"}
    return await admin(market, "PATCH", json=body)


async def in_force(market: Market, version: int) -> float:
    """Seconds until a decision is made under `version`."""
    begun_s = time.monotonic()

    async def decided() -> bool:
        reply = await market.ask()
        path = f"/v1/decisions/{reply.headers['x-broker-decision']}"
        told = await market.send("GET", path)
        return bool(told.body["decided"]["params_version"] >= version)

    await polled(decided, f"params version {version} in force", 5.0)
    return time.monotonic() - begun_s


async def test_a_change_is_in_force_refused_and_rolled_back(market: Market) -> None:
    before = (await admin(market, "GET")).body
    version = before["version"]
    was = before["params"]["choice"]["optimism_sd"]
    field = next(f for f in before["fields"] if f["path"] == PATH)
    assert (field["value"], field["low"], field["high"]) == (was, 0.0, 4.0)
    assert field["unit"]
    assert field["meaning"]

    both = await asyncio.gather(*(patch(market, version, {PATH: v}) for v in (0.7, 0.8)))
    assert sorted(reply.status for reply in both) == [200, 409]
    won = next(reply.body for reply in both if reply.status == 200)
    lost = next(reply.body for reply in both if reply.status == 409)
    assert won["version"] == version + 1 == lost["error"]["version"]
    assert won["by"]
    assert won["changes"][0]["old"] == was
    assert await in_force(market, version + 1) < 1.0

    beyond = await patch(market, version + 1, {PATH: 9})
    assert (beyond.status, beyond.body["error"]["bounds"]) == (422, [0.0, 4.0])
    unknown = await patch(market, version + 1, {"choice.optimism": 1})
    assert (unknown.status, unknown.body["error"]["code"]) == (422, "unknown_param")
    assert PATH in unknown.body["error"]["near"]
    for body in (b"{", b"[]", b'{"changes": {}}', b'{"if_version": "x"}'):
        assert (await admin(market, "PATCH", data=body)).status == 400
    assert (await admin(market, "GET", key=market.up.keys["app"])).status == 403
    assert (await admin(market, "GET", key="mmb_no")).status == 401
    assert (await market.send("GET", "/admin/params", key=market.up.keys["ops"])).status == 404

    back = await admin(market, "POST", "/rollback", json={"to": version, "why": "worse"})
    assert (back.status, back.body["version"]) == (200, version + 2)
    assert back.body["changes"][0]["new"] == was
    assert (await admin(market, "POST", "/rollback", json={"to": 999, "why": "x"})).status == 404
    told = (await admin(market, "GET", "/history")).body
    assert [v["version"] for v in told["versions"][:2]] == [version + 2, version + 1]
    assert told["versions"][0]["why"] == f"rollback to {version}: worse"
    assert told["versions"][1]["changes"][0] == won["changes"][0]


async def test_a_change_is_previewed_by_recorded_traffic(market: Market) -> None:
    replies = [await market.ask("market:previewed", sla={"quality": 0.9}) for _ in range(5)]
    ids = [reply.headers["x-broker-decision"] for reply in replies]

    async def stored() -> bool:
        return len(await decisions(market.up_store, ids)) == len(ids)

    await polled(stored, "decisions in the store")
    version = (await admin(market, "GET")).body["version"]
    body = {"changes": {"choice.unstated_value_usd": 0.0, PATH: 3.9}, "since": "1h"}

    async def driven() -> dict[str, Any] | None:
        told = await admin(market, "POST", "/preview", json=body)
        assert told.status == 200, told.body
        found: dict[str, Any] = told.body
        return found if found["whatif"]["n_decisions"] >= len(ids) else None

    told = await polled(driven, "decisions driven")
    assert told["from_version"] == version
    assert {c["path"] for c in told["whatif"]["changed"]} == set(body["changes"])
    assert told["whatif"]["cost_usd"]["then"]["doubly_robust"]["value"] > 0.0
    assert told["whatif"]["offers"]
    assert f"{PATH}: " in told["words"]
    assert (await admin(market, "GET")).body["version"] == version
    beyond = await admin(market, "POST", "/preview", json={"changes": {PATH: 9}})
    assert (beyond.status, beyond.body["error"]["bounds"]) == (422, [0.0, 4.0])
    never = await admin(market, "POST", "/preview", json={**body, "since": "yesterday-ish"})
    assert never.status == 400


def shell(market: Market, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    """A command in this process: the interpreter's start is another test's matter."""
    command = ["params", *arguments, "--json", "--config", str(market.up.config_path)]
    capsys.readouterr()
    code = cli.app(command, standalone_mode=False) or 0
    return code, msgspec.json.decode(capsys.readouterr().out.strip().splitlines()[-1])


async def test_the_shell_changes_and_refuses(
    market: Market, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.logs, "configure", lambda level: None)
    monkeypatch.setenv("BROKER_OPS_KEY", market.up.keys["ops"])

    async def run(*arguments: str) -> tuple[int, Any]:
        return await asyncio.to_thread(shell, market, capsys, *arguments)

    code, told = await run("get", PATH)
    assert code == 0
    assert [f["path"] for f in told["fields"]] == [PATH]
    code, made = await run("set", "exploration.share=0.02", "--why", "a test")
    assert code == 0
    assert made["version"] == told["version"] + 1
    code, refused = await run("set", "exploration.share=7", "--why", "a test")
    assert code == 1
    assert refused["error"]["bounds"] is not None
    code, back = await run("rollback", str(told["version"]), "--why", "a test")
    assert code == 0
    assert back["changes"][0]["path"] == "exploration.share"
    code, history = await run("history")
    assert code == 0
    assert history["versions"][0]["version"] == back["version"]
    code, seen = await run("preview", "exploration.share=0.1", "--since", "1h")
    assert code in (0, 1)
    assert seen["whatif"]["changed"][0]["path"] == "exploration.share"


async def test_only_the_market_page_may_call_from_a_browser(market: Market) -> None:
    asked = {"Access-Control-Request-Method": "PATCH"}
    for origin, status in ((market.url, 204), ("http://elsewhere.example", 403), ("null", 403)):
        reply = await admin(market, "OPTIONS", headers={"Origin": origin, **asked})
        assert reply.status == status
        allowed = reply.headers.get("Access-Control-Allow-Origin")
        assert allowed == (market.url if status == 204 else None)


async def test_without_an_operators_key_the_port_stays_on_loopback(market: Market) -> None:
    settings = market.up.settings
    bare = msgspec.structs.replace(
        settings, keys=[], admin=msgspec.structs.replace(settings.admin, host="0.0.0.0")
    )
    with pytest.raises(ConfigError, match="no key has the scope ops"):
        await check_exposure(bare)
