"""What followed a change, and a withdrawn canary, on a running market: by HTTP and the shell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from broker import cli
from tests.fakes.up_rig import Market, Reply, polled

pytestmark = pytest.mark.asyncio(loop_scope="session")
PATH = "choice.unstated_value_usd"


async def admin(market: Market, method: str, path: str = "", **more: Any) -> Reply:
    key, url = market.up.keys["ops"], market.up.admin_url
    return await market.send(method, f"/admin/params{path}", key=key, url=url, **more)


async def put(market: Market, value: float) -> int:
    """A version in force, and every request decided under it from now on."""
    now = (await admin(market, "GET")).body["version"]
    body = {"if_version": now, "changes": {PATH: value}, "why": "a test"}
    made = await admin(market, "PATCH", json=body)
    assert made.status == 200, made.body
    version = int(made.body["version"])

    async def decided() -> bool:
        (params_version, _) = await ask(market, "market:math")
        return params_version >= version

    await polled(decided, f"version {version} in force")
    return version


async def ask(market: Market, model: str, quality: float | None = None) -> tuple[int, str]:
    """A request: the version it was bought under, and its arm."""
    reply = await market.ask(model)
    assert reply.status == 200, reply.body
    decision = reply.headers["x-broker-decision"]
    if quality is not None:
        line = {"decision_id": decision, "quality": quality, "source": "verifier"}
        assert (await market.send("POST", "/v1/outcomes", json=line)).status == 202
    told = (await market.send("GET", f"/v1/decisions/{decision}")).body["decided"]
    return int(told["params_version"]), str(told["arm"])


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def in_order(market: Market) -> AsyncIterator[None]:
    """Nothing is left running, and the newest number is that of the params in force."""
    before = (await admin(market, "GET")).body["version"]
    yield
    await admin(market, "POST", "/canary/abort", json={"why": "a test"})
    now = (await admin(market, "GET")).body["version"]
    body = {"if_version": now, "changes": {"exploration.share": 0.03}, "why": "a test"}
    assert (await admin(market, "PATCH", json=body)).status == 200
    back = await admin(market, "POST", "/rollback", json={"to": before, "why": "a test"})
    assert back.status == 200


async def test_each_side_of_a_change_is_counted(
    market: Market, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of the same class on both sides; what else is asked meanwhile is of other classes.
    first = await put(market, 0.0)
    for i in range(7):
        assert await ask(market, "market:followed", float(i > 2)) == (first, "")
    second = await put(market, 0.5)
    for _ in range(9):
        assert await ask(market, "market:followed", 1.0) == (second, "")

    async def counted() -> list[Any]:
        return await market.rows(
            "SELECT params_version, countIf(sla_class LIKE '%|followed%'), count()"
            " FROM market.decisions"
            f" WHERE params_version IN ({first}, {second}) GROUP BY 1 ORDER BY 1"
        )

    async def followed() -> dict[str, Any] | None:
        told = await admin(market, "GET", f"/{second}/followed")
        if told.status != 200:
            return None
        found: dict[str, Any] = told.body["in_force"]
        n = {v: (mine, every) for v, mine, every in await counted()}
        settled = n.get(first, (0, 0))[0] == 7 and n.get(second, (0, 0))[0] == 9
        sides = (found["requests_against"], found["requests"])
        scores = found["measures"]["quality"]
        both = settled and sides == (n[first][1], n[second][1])
        return found if both and (scores["n_against"], scores["n"]) == (7, 9) else None

    found = await polled(followed, "what followed, every request and score counted")
    assert found["against_version"] == first
    assert found["compared"] == "before and after"
    quality = found["measures"]["quality"]
    assert (quality["value_against"], quality["value"]) == (pytest.approx(4 / 7, abs=1e-6), 1.0)
    assert quality["low"] < quality["difference"] < quality["high"]
    # An answer worth half a dollar is bought dearer than one worth nothing.
    assert found["measures"]["spend_usd_per_1k"]["difference"] > 0

    async def in_history() -> dict[str, Any] | None:
        history = (await admin(market, "GET", "/history")).body["versions"]
        one = next(v for v in history if v["version"] == second)
        return one if one["followed"] and one["followed"]["words"] == found["words"] else None

    entry = await polled(in_history, "the same in the history")
    assert (entry["why"], entry["changes"][0]["new"]) == ("a test", 0.5)
    assert f"against {found['requests_against']:,} before (version {first})" in found["words"]
    assert "(n 7 and 9)" in found["words"]

    monkeypatch.setattr(cli.logs, "configure", lambda level: None)
    monkeypatch.setenv("BROKER_OPS_KEY", market.up.keys["ops"])
    monkeypatch.setenv("COLUMNS", "400")

    def shell(*arguments: str) -> str:
        capsys.readouterr()
        command = ["params", *arguments, "--config", str(market.up.config_path)]
        assert not cli.app(command, standalone_mode=False)
        return capsys.readouterr().out

    words = " ".join((await asyncio.to_thread(shell, "history")).split())
    assert f"followed by {found['words']}" in words
    table = await asyncio.to_thread(shell, "followed", str(second))
    assert f"version {second}, in force, against version {first}, before and after" in table
    told = await asyncio.to_thread(shell, "followed", str(second), "--json")
    assert msgspec.json.decode(told.strip().splitlines()[-1])["version"] == second
    assert (await admin(market, "GET", "/999999/followed")).status == 404
    assert (await admin(market, "GET", "/x/followed")).status == 400
    reader = market.up.keys["app"]
    path = f"/admin/params/{second}/followed"
    assert (await market.send("GET", path, key=reader, url=market.up.admin_url)).status == 403


async def test_a_withdrawn_canary_is_told_against_the_requests_outside_it(market: Market) -> None:
    now = (await admin(market, "GET")).body["version"]
    body = {"changes": {PATH: 0.25}, "share": 0.5, "why": "a test"}
    begun = await admin(market, "POST", "/canary", json=body)
    assert begun.status == 200, begun.body
    version = begun.body["version"]
    seen = [await ask(market, "market:withdrawn") for _ in range(8)]

    async def in_it() -> bool:
        seen.append(await ask(market, "market:withdrawn"))
        return (version, f"v{version}") in seen and (now, "") in seen[-12:]

    await polled(in_it, "requests on both sides")
    ended = await admin(market, "POST", "/canary/abort", json={"why": "enough"})
    assert ended.status == 200

    async def followed() -> dict[str, Any] | None:
        trials = (await admin(market, "GET", "/history")).body["trials"]
        found = next(t for t in trials if t["version"] == version)["followed"]
        (n,) = await market.rows(
            "SELECT count() FROM market.decisions"
            f" WHERE params_version = {version} AND sla_class LIKE '%|withdrawn%'"
        )
        mine = sum(arm != "" for _, arm in seen)
        return found if found and n == (mine,) and found["requests"] >= mine else None

    found = await polled(followed, "what followed the canary")
    assert (found["against_version"], found["compared"]) == (now, "by lot")
    assert found["measures"]["failed_share"]["difference"] is not None
    assert "outside it" in found["words"]
