"""The market page in a real Chromium: loads clean, lives, and tells a decision just made."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio
from playwright.async_api import Page, async_playwright, expect

from broker.up import Up

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
QUIET = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def market(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Up]:
    async with Up(tmp_path_factory.mktemp("page")) as up:
        yield up


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[(1280, 900), (390, 844)])
async def page(market: Up, request: pytest.FixtureRequest) -> AsyncIterator[tuple[Page, list[str]]]:
    """The page, opened with a key in its address, and all it complained of."""
    width, height = request.param
    complaints: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        context = await browser.new_context(viewport={"width": width, "height": height})
        shown = await context.new_page()
        shown.set_default_timeout(20_000)
        shown.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        shown.on("pageerror", lambda error: complaints.append(str(error)))
        await shown.goto(f"{market.url}/#key={market.page_key}")
        yield shown, complaints
        await browser.close()


async def ask(market: Up) -> str:
    headers = {"Authorization": f"Bearer {market.page_key}"}
    body = {"model": "market", "messages": [{"role": "user", "content": "What is 6 * 7?"}]}
    async with (
        aiohttp.ClientSession(market.url, headers=headers) as session,
        session.post("/v1/chat/completions", json=body) as answer,
    ):
        assert answer.status == 200, await answer.text()
        return answer.headers["x-broker-decision"]


@pytest.mark.asyncio(loop_scope="module")
async def test_lives_and_tells_a_decision_just_made(
    market: Up, page: tuple[Page, list[str]]
) -> None:
    shown, complaints = page
    await shown.wait_for_selector("#quotes tbody tr >> nth=10")
    assert "key=" not in shown.url
    status = shown.locator("#status")
    before = await status.inner_text()
    made = await ask(market)
    await expect(status).not_to_have_text(before, timeout=20_000)
    await expect(status).to_contain_text("live, view", timeout=20_000)

    await shown.fill("#decision", made)
    await shown.click("#search button")
    await shown.wait_for_selector("#autopsy ul li")
    told = await shown.inner_text("#autopsy")
    assert made in told
    assert "offers bid" in told
    assert "delivered in" in told

    await shown.wait_for_selector("#recent tbody button")
    await expect(shown.locator("#figures .figure b").first).not_to_have_text("0", timeout=20_000)
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert await shown.evaluate(overflow) <= 0
    assert not complaints


@pytest.mark.asyncio(loop_scope="module")
async def test_a_param_is_changed_and_rolled_back(market: Up, page: tuple[Page, list[str]]) -> None:
    shown, complaints = page
    await shown.click("#params summary >> text=choice")
    field = shown.locator("[data-path='choice.optimism_sd']")
    before = await field.input_value()
    await shown.fill("#why", "to see it move")
    await field.fill("0.7")
    await shown.locator(".param", has=field).locator("button").click()
    told = shown.locator("#params-preview")
    await expect(told).to_contain_text("decisions since", timeout=30_000)
    await expect(told).to_contain_text("choice.optimism_sd: 1 -> 0.7")
    await shown.click("#params-apply")
    said = shown.locator("#params-said")
    await expect(said).to_contain_text("is in force", timeout=20_000)
    await expect(shown.locator("#status")).to_contain_text("params", timeout=20_000)
    await expect(field).to_have_value("0.7")
    followed = shown.locator("#params-history")
    await expect(followed).to_contain_text("requests against", timeout=30_000)
    await shown.locator("#params-history button").last.click()
    await expect(field).to_have_value(before, timeout=20_000)
    await shown.locator("#params summary >> text=choice").click()
    await field.fill("1e9")
    await shown.locator(".param", has=field).locator("button").click()
    await expect(told).to_contain_text("optimism_sd", timeout=20_000)
    assert all("422" in text for text in complaints)
    complaints.clear()


@pytest.mark.asyncio(loop_scope="module")
async def test_an_unknown_decision_and_a_wrong_key_are_said(
    market: Up, page: tuple[Page, list[str]]
) -> None:
    shown, complaints = page
    await shown.fill("#decision", "dec_nothing")
    await shown.click("#search button")
    await shown.wait_for_selector("#autopsy [role=alert]")
    assert "dec_nothing" in await shown.inner_text("#autopsy")
    assert all("404" in text for text in complaints)

    other = await shown.context.new_page()
    await other.goto(f"{market.url}/#key=mmb_wrong")
    await other.wait_for_selector("#login[open]")
    assert "not known" in await other.inner_text("#login-error")
    await other.close()


@pytest.mark.asyncio(loop_scope="module")
async def test_files_are_served_with_a_strict_policy_and_nothing_beyond_them(market: Up) -> None:
    async with aiohttp.ClientSession(market.url) as session:
        async with session.get("/") as answer:
            assert answer.status == 200
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        for path in ("/page/../config.py", "/page/%2e%2e/app.py", "/page/vendor/../../x", "/page/"):
            async with session.get(path) as answer:
                assert answer.status == 404, path
        async with session.get("/v1/reports/savings") as answer:
            assert answer.status == 401
        headers = {"Authorization": f"Bearer {market.keys['app']}"}
        async with session.get("/v1/reports/savings", headers=headers) as answer:
            assert answer.status == 403


@pytest.mark.asyncio(loop_scope="module")
async def test_reports_over_http(market: Up) -> None:
    headers = {"Authorization": f"Bearer {market.keys['analyst']}"}
    async with aiohttp.ClientSession(market.url, headers=headers) as session:
        async with session.get("/v1/reports") as answer:
            assert len((await answer.json())["data"]) >= 20
        async with session.get("/v1/reports/market_share?since=2h&format=csv") as answer:
            assert (await answer.text()).startswith('"bucket","offer"')
        for path, status, code in (
            ("nothing", 404, "unknown_report"),
            ("savings?since=soon", 400, "invalid_value"),
            ("savings?colour=red", 400, "invalid_value"),
            ("savings?format=xls", 400, "invalid_value"),
        ):
            async with session.get(f"/v1/reports/{path}") as answer:
                assert (answer.status, (await answer.json())["error"]["code"]) == (status, code)
