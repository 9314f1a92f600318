"""Every fault a paper seller can show, seen over a socket, and the seller's books of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from broker.paper.faults import Fault, FaultSpec
from broker.paper.serve import PaperMarket
from broker.paper.tasks import check, generate

ITEM = generate("math", 7)
SOON_S = 0.4
LATE_S = 10.0


@pytest_asyncio.fixture
async def market() -> AsyncIterator[PaperMarket]:
    market = PaperMarket(time_scale=0.01, providers=["openai", "anthropic"])
    await market.start()
    yield market
    await market.stop()


@pytest_asyncio.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=LATE_S)
    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:
        yield session


class Buyer:
    """Asks for `ITEM` in one wire format and gives back status, content type and bytes."""

    def __init__(self, market: PaperMarket, http: aiohttp.ClientSession, provider: str) -> None:
        self.market, self.http, self.provider = market, http, provider
        base_url = market.catalogue.provider(provider).base_url
        openai = provider == "openai"
        self.url = base_url + ("/chat/completions" if openai else "/v1/messages")
        self.model = "gpt-4o" if openai else "claude-3-5-sonnet"

    def call(self, stream: bool) -> Any:
        body = {
            "model": self.model,
            "stream": stream,
            "max_tokens": 300,
            "messages": [{"role": "user", "content": ITEM.prompt}],
        }
        headers = {"authorization": f"Bearer {self.market.api_key}"}
        return self.http.post(self.url, json=body, headers=headers)

    async def ask(self, stream: bool) -> tuple[int, str, bytes]:
        async with self.call(stream) as response:
            return response.status, response.content_type, await response.read()

    async def fail(self, kind: Fault, **how: Any) -> None:
        await self.market.set_faults(self.provider, [FaultSpec(kind=kind, **how)])


@pytest_asyncio.fixture(params=["openai", "anthropic"])
async def buyer(
    request: pytest.FixtureRequest, market: PaperMarket, http: aiohttp.ClientSession
) -> Buyer:
    return Buyer(market, http, request.param)


def events(raw: bytes) -> list[Any]:
    """JSON of each `data:` line, `[DONE]` left out."""
    lines = [line[6:] for line in raw.split(b"\n") if line.startswith(b"data: ")]
    return [json.loads(line) for line in lines if line != b"[DONE]"]


def text_of(found: list[Any]) -> str:
    parts = []
    for event in found:
        if "delta" in event:
            parts.append(event["delta"].get("text", ""))
        parts += [choice["delta"].get("content") or "" for choice in event.get("choices", [])]
    return "".join(parts)


def ended(raw: bytes) -> bool:
    return b"data: [DONE]" in raw or b"message_stop" in raw


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(LATE_S):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def hangs(coming: Awaitable[object]) -> bool:
    try:
        await asyncio.wait_for(coming, SOON_S)
    except TimeoutError:
        return True
    return False


async def test_die_refuses_connections_and_cuts_open_ones_until_revived(buyer: Buyer) -> None:
    await buyer.fail(Fault.SLOW, factor=1000)
    under_way = asyncio.create_task(buyer.ask(False))
    totals = buyer.market.ledgers()[buyer.provider]
    await until(lambda: totals.n_open == 1)
    await buyer.fail(Fault.DIE)
    with pytest.raises(aiohttp.ClientError):
        await under_way
    with pytest.raises(aiohttp.ClientConnectorError):
        await buyer.ask(False)
    await buyer.market.clear_faults(buyer.provider)
    assert (await buyer.ask(False))[0] == 200
    await until(lambda: totals.aborted == 1)


async def test_refuse_resets_new_and_kept_connections(buyer: Buyer) -> None:
    assert (await buyer.ask(False))[0] == 200
    ledger = buyer.market.sellers[buyer.provider].ledger
    await buyer.fail(Fault.REFUSE)
    for n_before in range(3):
        with pytest.raises((aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)):
            await buyer.ask(False)
        assert ledger.connections_refused >= n_before
    assert ledger.totals.calls == 1


async def test_black_hole_hangs_connects(buyer: Buyer) -> None:
    await buyer.fail(Fault.BLACK_HOLE)
    assert await hangs(buyer.ask(False))
    await buyer.market.clear_faults(buyer.provider)
    assert (await buyer.ask(False))[0] == 200


@pytest.mark.parametrize("status", [500, 503, 529])
async def test_error(buyer: Buyer, status: int) -> None:
    await buyer.fail(Fault.ERROR, status=status)
    got, kind, raw = await buyer.ask(True)
    assert (got, kind) == (status, "application/json")
    assert json.loads(raw)["error"]["message"]


async def test_error_share_hits_about_that_share(buyer: Buyer) -> None:
    await buyer.fail(Fault.ERROR, share=0.3)
    answers = await asyncio.gather(*(buyer.ask(False) for _ in range(200)))
    assert 30 <= sum(status == 503 for status, _, _ in answers) <= 90
    totals = buyer.market.ledgers()[buyer.provider]
    assert totals.faults + totals.served == 200


@pytest.mark.parametrize("retry_after_s", [None, 30.0])
async def test_rate_limit_with_and_without_retry_after(
    buyer: Buyer, retry_after_s: float | None
) -> None:
    await buyer.fail(Fault.RATE_LIMIT, retry_after_s=retry_after_s, per_minute=2)
    assert [(await buyer.ask(False))[0] for _ in range(3)] == [200, 200, 429]
    async with buyer.call(False) as response:
        assert response.headers.get("retry-after") == ("30" if retry_after_s else None)
        assert (await response.json())["error"]["type"] == "rate_limit_error"


async def test_a_quota_is_told_with_every_answer(buyer: Buyer) -> None:
    await buyer.fail(Fault.QUOTA, per_window=2, window_s=30.0)
    left = []
    for _ in range(3):
        async with buyer.call(False) as response:
            told = {n: v for n, v in response.headers.items() if "requests-remaining" in n.lower()}
            told |= {n: v for n, v in response.headers.items() if n.endswith("remaining-requests")}
            left.append((response.status, *told.values()))
            waits_s = float(response.headers.get("retry-after", "0"))
    assert left == [(200, "1"), (200, "0"), (429, "0")]
    assert 0.0 < waits_s <= 30.0


async def test_slow_is_slower_by_its_factor(buyer: Buyer) -> None:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    await buyer.ask(False)
    usual_s = loop.time() - began_s
    await buyer.fail(Fault.SLOW, factor=60)
    began_s = loop.time()
    await buyer.ask(False)
    assert loop.time() - began_s > max(0.2, 3 * usual_s)


@pytest.mark.parametrize("stream", [False, True])
async def test_hang_sends_no_headers(buyer: Buyer, stream: bool) -> None:
    await buyer.fail(Fault.HANG)

    async def headers() -> None:
        async with buyer.call(stream):
            pass

    assert await hangs(headers())
    totals = buyer.market.ledgers()[buyer.provider]
    await until(lambda: totals.aborted == 1)
    assert totals.n_open == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_headers_then_nothing(buyer: Buyer, stream: bool) -> None:
    await buyer.fail(Fault.HANG_AFTER_HEADERS)
    async with buyer.call(stream) as response:
        assert response.status == 200
        assert await hangs(response.content.readany())


async def test_stall_stops_after_some_chunks_and_bills_those(buyer: Buyer) -> None:
    await buyer.fail(Fault.STALL, after_chunks=3)
    async with buyer.call(True) as response:
        raw = b""
        while len(text_of(events(raw))) < 3 or text_of(events(raw)).count(" ") < 3:
            raw += await response.content.readany()
        assert await hangs(response.content.read())
    assert not ended(raw)
    totals = buyer.market.ledgers()[buyer.provider]
    await until(lambda: totals.aborted == 1)
    whole = buyer.market.behaviour.counterfactual(
        "gpt-4o" if buyer.provider == "openai" else "claude-3.5-sonnet", ITEM
    )
    assert 0 < totals.output_tokens < whole.output_tokens
    assert totals.billed_nusd > 0


async def test_a_whole_answer_stalls_half_way(buyer: Buyer) -> None:
    await buyer.fail(Fault.STALL)
    async with buyer.call(False) as response:
        assert await response.content.readany()
        assert await hangs(response.content.readany())


@pytest.mark.parametrize("stream", [False, True])
async def test_drip_sends_byte_after_byte(buyer: Buyer, stream: bool) -> None:
    await buyer.fail(Fault.DRIP, after_chunks=0, every_s=0.02)
    async with buyer.call(stream) as response:
        raw = b""
        while len(raw) < 400 and not raw.endswith(b"data"):
            raw += await response.content.readany()
            if not stream and len(raw) > 10:
                break
        single = [await response.content.readany() for _ in range(3)]
    assert all(0 < len(piece) <= 4 for piece in single)


async def test_keepalive_comments_are_all_that_comes(buyer: Buyer) -> None:
    await buyer.fail(Fault.KEEPALIVE, every_s=0.01)
    async with buyer.call(True) as response:
        raw = b""
        while raw.count(b": keep-alive\n\n") < 5:
            raw += await response.content.readany()
    assert text_of(events(raw)) == ""


async def test_in_band_error_comes_after_a_harmless_first_chunk(buyer: Buyer) -> None:
    await buyer.fail(Fault.IN_BAND_ERROR)
    status, kind, raw = await buyer.ask(True)
    found = events(raw)
    assert (status, kind) == (200, "text/event-stream")
    assert len(found) >= 2
    assert "error" not in found[0]
    assert found[-1]["error"]["message"]
    assert text_of(found) == ""
    assert not ended(raw)


@pytest.mark.parametrize("stream", [False, True])
async def test_200_with_an_error_body(buyer: Buyer, stream: bool) -> None:
    await buyer.fail(Fault.ERROR_BODY)
    status, kind, raw = await buyer.ask(stream)
    assert (status, kind) == (200, "application/json")
    assert json.loads(raw)["error"]


@pytest.mark.parametrize("stream", [False, True])
async def test_empty_choices(buyer: Buyer, stream: bool) -> None:
    await buyer.fail(Fault.EMPTY_CHOICES)
    status, _, raw = await buyer.ask(stream)
    assert status == 200
    if stream:
        assert text_of(events(raw)) == ""
    else:
        body = json.loads(raw)
        assert body.get("choices", body.get("content")) == []


async def test_truncated_json(buyer: Buyer) -> None:
    await buyer.fail(Fault.TRUNCATED_JSON)
    for stream in (False, True):
        with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientOSError)):
            await buyer.ask(stream)


async def test_no_finish_ends_cleanly_without_saying_so(buyer: Buyer) -> None:
    await buyer.fail(Fault.NO_FINISH)
    status, _, raw = await buyer.ask(True)
    assert status == 200
    assert check(ITEM, text_of(events(raw)))
    assert not ended(raw)
    assert b'finish_reason":"' not in raw


@pytest.mark.parametrize("stream", [False, True])
async def test_html(buyer: Buyer, stream: bool) -> None:
    await buyer.fail(Fault.HTML)
    status, kind, raw = await buyer.ask(stream)
    assert (status, kind) == (200, "text/html")
    assert raw.startswith(b"<!doctype html>")


@pytest.mark.parametrize("stream", [False, True])
async def test_bad_bytes_are_not_utf8(buyer: Buyer, stream: bool) -> None:
    await buyer.fail(Fault.BAD_BYTES)
    _, _, raw = await buyer.ask(stream)
    assert b"\x00" in raw
    with pytest.raises(UnicodeDecodeError):
        raw.decode()


@pytest.mark.parametrize("stream", [False, True])
async def test_giant_line(buyer: Buyer, stream: bool) -> None:
    await buyer.fail(Fault.GIANT_LINE, factor=3)
    _, _, raw = await buyer.ask(stream)
    assert len(raw) >= 3 << 20
    assert b"\n" not in raw


async def test_gzip_bomb(buyer: Buyer) -> None:
    await buyer.fail(Fault.GZIP_BOMB, factor=4)
    async with buyer.call(False) as response:
        assert response.headers["content-encoding"] == "gzip"
        assert len(await response.read()) < (4 << 20) / 500


async def test_duplicated_and_reordered_chunks_and_two_finishes(buyer: Buyer) -> None:
    usual = (await buyer.ask(True))[2]
    await buyer.fail(Fault.DUPLICATE_CHUNKS)
    twice = (await buyer.ask(True))[2]
    assert len(text_of(events(twice))) == 2 * len(text_of(events(usual)))
    await buyer.fail(Fault.REORDER_CHUNKS)
    mixed = text_of(events((await buyer.ask(True))[2]))
    assert sorted(mixed) == sorted(text_of(events(usual)))
    assert mixed != text_of(events(usual))
    await buyer.fail(Fault.TWO_FINISHES)
    double = (await buyer.ask(True))[2]
    mark = b'"finish_reason":"stop"' if buyer.provider == "openai" else b'"stop_reason":"end_turn"'
    assert double.count(mark) == 2 * usual.count(mark) == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_lying_usage(buyer: Buyer, stream: bool) -> None:
    await buyer.fail(Fault.LYING_USAGE, lie="missing")
    _, _, raw = await buyer.ask(stream)
    found = events(raw) if stream else [json.loads(raw)]
    assert not any(event.get("usage") for event in found)
    await buyer.fail(Fault.LYING_USAGE, lie="strings")
    body = json.loads((await buyer.ask(False))[2])
    assert any(isinstance(value, str) for value in body["usage"].values())
    totals = buyer.market.ledgers()[buyer.provider]
    assert totals.output_tokens > 0
    assert totals.billed_nusd > 0


async def test_degrade_makes_right_answers_wrong(buyer: Buyer) -> None:
    body = (await buyer.ask(True))[2]
    assert check(ITEM, text_of(events(body)))
    await buyer.fail(Fault.DEGRADE, points=100)
    body = (await buyer.ask(True))[2]
    assert not check(ITEM, text_of(events(body)))


async def test_broken_json_halves_what_is_said(buyer: Buyer) -> None:
    whole = text_of(events((await buyer.ask(True))[2]))
    await buyer.fail(Fault.BROKEN_JSON)
    status, _, raw = await buyer.ask(True)
    said = text_of(events(raw))
    assert status == 200
    assert ended(raw)
    assert whole.startswith(said)
    assert len(said) < len(whole)
    assert buyer.market.ledgers()[buyer.provider].billed_nusd > 0


async def test_what_is_withdrawn_is_not_there(buyer: Buyer) -> None:
    await buyer.fail(Fault.WITHDRAW)
    status, _, raw = await buyer.ask(False)
    assert (status, b"does not exist" in raw) == (404, True)
    await buyer.market.set_faults(buyer.provider, [])
    assert (await buyer.ask(False))[0] == 200


def test_every_fault_has_a_test_here() -> None:
    source = Path(__file__).read_text()
    untested = {fault for fault in Fault if f"fail(Fault.{fault.name}" not in source}
    assert untested == {Fault.REPRICE}  # shown in test_paper_control.py
