"""The control port, the sellers' public pages and the process, as others use them."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio

from bidding.market import Catalogue
from broker.paper.errors import BadControl
from broker.paper.serve import PaperMarket

BODY = {"model": "llama-3.1-8b-instant", "messages": [{"role": "user", "content": "hi"}]}


@pytest_asyncio.fixture
async def market() -> AsyncIterator[PaperMarket]:
    market = PaperMarket(time_scale=0.01, providers=["groq", "aws"])
    await market.start()
    yield market
    await market.stop()


@pytest_asyncio.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def send(
    http: aiohttp.ClientSession, method: str, url: str, body: Any = None
) -> tuple[int, Any]:
    async with http.request(method, url, json=body) as response:
        return response.status, await response.json()


async def ask(market: PaperMarket, http: aiohttp.ClientSession, **headers: str) -> int:
    headers["authorization"] = f"Bearer {market.api_key}"
    url = market.catalogue.provider("groq").base_url + "/chat/completions"
    async with http.post(url, json=BODY, headers=headers) as response:
        await response.read()
        return response.status


async def test_faults_are_patched_per_provider_and_per_model(
    market: PaperMarket, http: aiohttp.ClientSession
) -> None:
    groq = f"{market.control_url}/control/sellers/groq"
    error = {"kind": "error", "status": 500}
    status, body = await send(http, "PATCH", f"{groq}/llama-3.1-8b", {"add": [error]})
    assert status == 200
    assert body["faults"]["groq/llama-3.1-8b"][0]["status"] == 500
    assert await ask(market, http) == 500
    _, everything = await send(http, "GET", f"{market.control_url}/control/sellers")
    assert everything == {"groq": {"groq/llama-3.1-8b": body["faults"]["groq/llama-3.1-8b"]},
                          "aws": {}}  # fmt: skip
    await send(http, "PATCH", f"{groq}/llama-3.1-8b", {"clear": ["error"]})
    assert await ask(market, http) == 200
    await send(http, "PATCH", groq, {"faults": [error]})
    assert await ask(market, http) == 500
    await send(http, "PATCH", groq, {"faults": []})
    assert await ask(market, http) == 200


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/control/sellers/acme", {}, "no provider 'acme'"),
        ("/control/sellers/groq/gpt-9", {}, "does not sell 'gpt-9'"),
        ("/control/sellers/groq", {"faults": [{"kind": "explode"}]}, "explode"),
        ("/control/sellers/groq", {"faults": [{"kind": "slow", "k": 3}]}, "unknown field"),
        ("/control/sellers/groq/gemma-2-9b", {"add": [{"kind": "die"}]}, "whole provider"),
        ("/control/sellers/groq/incidents/7", {"status": "resolved"}, "no incident '7'"),
    ],
)
async def test_nonsense_is_refused_with_a_reason(
    market: PaperMarket, http: aiohttp.ClientSession, path: str, body: Any, said: str
) -> None:
    status, answer = await send(http, "PATCH", market.control_url + path, body)
    assert status == 400
    assert said in answer["error"]


async def test_repricing_shows_on_the_sellers_page_and_in_what_it_bills(
    market: PaperMarket, http: aiohttp.ClientSession
) -> None:
    seller = market.catalogue.provider("groq").base_url.removesuffix("/v1")
    _, before = await send(http, "GET", f"{seller}/prices")
    await ask(market, http)
    first_nusd = market.ledgers()["groq"].billed_nusd
    reprice = {"kind": "reprice", "input_factor": 3, "output_factor": 3}
    await send(
        http, "PATCH", f"{market.control_url}/control/sellers/groq/llama-3.1-8b", {"add": [reprice]}
    )
    _, after = await send(http, "GET", f"{seller}/prices")
    was = {row["offer"]: row for row in before["prices"]}
    for row in after["prices"]:
        factor = 3 if row["model"] == "llama-3.1-8b" else 1
        old = was[row["offer"]]
        assert row["output_usd_per_mtok"] == pytest.approx(factor * old["output_usd_per_mtok"])
    await ask(market, http)
    assert market.ledgers()["groq"].billed_nusd == pytest.approx(4 * first_nusd, rel=1e-6)


async def test_the_status_page_is_reachable_when_the_seller_is_dead(
    market: PaperMarket, http: aiohttp.ClientSession
) -> None:
    provider = market.catalogue.provider("groq")
    assert provider.status_url is not None
    _, own = await send(http, "GET", provider.base_url.removesuffix("/v1") + "/status.json")
    assert own["status"]["indicator"] == "none"
    control = f"{market.control_url}/control/sellers/groq"
    await send(http, "PATCH", control, {"add": [{"kind": "die"}]})
    incident = {"name": "API down", "impact": "critical", "components": ["API"]}
    status, opened = await send(http, "POST", f"{control}/incidents", incident)
    assert status == 201
    _, page = await send(http, "GET", provider.status_url)
    assert page["status"]["indicator"] == "critical"
    assert page["incidents"][0]["name"] == "API down"
    resolved = {"status": "resolved", "body": "Fixed"}
    await send(http, "PATCH", f"{control}/incidents/{opened['id']}", resolved)
    _, page = await send(http, "GET", provider.status_url)
    assert page["incidents"] == []


async def test_the_ledger_lists_calls_with_the_buyers_ids(
    market: PaperMarket, http: aiohttp.ClientSession
) -> None:
    for n in range(3):
        await ask(market, http, **{"x-broker-attempt": f"attempt-{n}"})
    ledger = f"{market.control_url}/control/ledger"
    _, totals = await send(http, "GET", ledger)
    assert (totals["groq"]["calls"], totals["groq"]["served"], totals["aws"]["calls"]) == (3, 3, 0)
    _, of_groq = await send(http, "GET", f"{ledger}/groq")
    assert of_groq["offers"]["groq/llama-3.1-8b"]["billed_nusd"] == totals["groq"]["billed_nusd"]
    _, calls = await send(http, "GET", f"{ledger}/groq/calls?after=0")
    assert [call["buyer_ids"]["x-broker-attempt"] for call in calls] == ["attempt-1", "attempt-2"]
    assert all(call["ended"] == "served" and call["bytes_out"] > 0 for call in calls)
    assert sum(call["billed_nusd"] for call in calls) * 3 == 2 * totals["groq"]["billed_nusd"]


async def test_the_catalogue_is_that_of_the_providers_started(
    market: PaperMarket, http: aiohttp.ClientSession
) -> None:
    async with http.get(f"{market.control_url}/catalogue.json") as response:
        catalogue = msgspec.json.decode(await response.read(), type=Catalogue).checked()
    assert catalogue == market.catalogue
    assert {offer.provider for offer in catalogue.offers} == {"groq", "aws"}
    assert "aws/claude-3.5-sonnet@eu" in {offer.id for offer in catalogue.offers}


async def test_before_start_there_is_no_catalogue_and_unknown_providers_are_refused() -> None:
    with pytest.raises(BadControl, match="not been started"):
        _ = PaperMarket(providers=["groq"]).catalogue
    with pytest.raises(BadControl, match="no such providers"):
        PaperMarket(providers=["acme"])


@pytest.mark.parametrize("how", ["terminate", "stdin"])
async def test_the_process_says_when_it_is_ready_and_ends_when_told(
    tmp_path: Path, how: str
) -> None:
    port_file = tmp_path / "market.json"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "broker.paper", "--port-file", str(port_file), "--with-stdin",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdin is not None
    async with asyncio.timeout(30):
        ready = json.loads(await process.stdout.readline())
        catalogue = msgspec.json.decode(port_file.read_bytes(), type=Catalogue).checked()
        async with aiohttp.ClientSession() as http:
            status, _ = await send(http, "GET", f"{ready['control_url']}/healthz")
        if how == "terminate":
            process.terminate()
        process.stdin.close()
        code = await process.wait()
    assert (status, code) == (200, 0)
    assert (ready["offers"], ready["providers"]) == (len(catalogue.offers), 21)
    assert len({provider.base_url for provider in catalogue.providers}) == 21


async def test_a_sellers_port_dies_refuses_and_swallows_under_uvloop(
    http: aiohttp.ClientSession,
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "broker.paper", "--with-stdin", "--providers", "groq",
        "--time-scale", "0.01", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdin is not None
    async with asyncio.timeout(30):
        ready = json.loads(await process.stdout.readline())
        _, catalogue = await send(http, "GET", f"{ready['control_url']}/catalogue.json")
        prices = catalogue["providers"][0]["base_url"].removesuffix("/v1") + "/prices"
        control = f"{ready['control_url']}/control/sellers/groq"
        for _ in range(3):
            await send(http, "PATCH", control, {"faults": []})
            assert (await send(http, "GET", prices))[0] == 200
            for kind in ("die", "refuse"):
                await send(http, "PATCH", control, {"faults": [{"kind": kind}]})
                with pytest.raises((aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)):
                    await send(http, "GET", prices)
            await send(http, "PATCH", control, {"faults": [{"kind": "black_hole"}]})
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(send(http, "GET", prices), 0.3)
        process.stdin.close()
        assert await process.wait() == 0
