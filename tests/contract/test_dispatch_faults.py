"""Sellers broken below HTTP's level: black holes, TLS, cut transfers, drips, floods."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker.wire.neutral import Failed, TextDelta
from tests.fakes.dispatching import Market, market
from tests.fakes.scripted_seller import (
    DONE,
    FINISH,
    ROLE,
    Connection,
    ScriptedSeller,
    chunk,
    hangs,
    sends,
    streams,
)

GOOD = {"prompt_tokens": 12, "completion_tokens": 5}
WHOLE = json.dumps(
    {
        "choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}],
        "usage": GOOD,
    }
).encode()


def good() -> ScriptedSeller:
    return ScriptedSeller(streams(["4", " it", " is"], usage=GOOD))


def moved(m: Market, url: str) -> None:
    """Seller a is at `url` instead."""
    seat = m.seats["a/m"]
    provider = msgspec.structs.replace(seat.provider, base_url=url)
    m.seats["a/m"] = msgspec.structs.replace(seat, provider=provider)


async def text_of(m: Market, **order: Any) -> str:
    delivery = await m.dispatcher.run(m.order(**order))
    assert delivery.answer is not None
    return delivery.answer.choices[0].text


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A port whose backlog is full, so that connecting to it hangs."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        yield port
        for filler in fillers:
            filler.close()


async def test_a_black_hole_costs_the_connect_timeout_and_no_more(black_hole: int) -> None:
    async with market(good(), good(), connect_s=0.3) as m:
        moved(m, f"http://127.0.0.1:{black_hole}/v1")
        begun = time.monotonic()
        assert await text_of(m) == "4 it is"
        assert 0.25 < time.monotonic() - begun < 1.0
        assert m.ends() == [("a", "connect"), ("b", "ok")]
        assert m.records[0].reason == "connect timeout"


@asynccontextmanager
async def tls_seller(folder: Path, name: str) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A TLS server with a certificate nobody signed; keeps every byte it is sent in clear."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    command += ["-keyout", str(key), "-out", str(cert), "-subj", f"/CN={name}"]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1], seen
    finally:
        server.close()


async def test_a_certificate_nobody_signed_gets_neither_prompt_nor_key(tmp_path: Path) -> None:
    async with tls_seller(tmp_path, "127.0.0.1") as (port, seen), market(good(), good()) as m:
        moved(m, f"https://127.0.0.1:{port}/v1")
        assert await text_of(m) == "4 it is"
        assert m.ends() == [("a", "tls"), ("b", "ok")]
        assert b"".join(seen) == b""


async def test_a_stalled_handshake_costs_the_connect_timeout() -> None:
    async with market(ScriptedSeller(hangs), good(), connect_s=0.3) as m:
        moved(m, m.seats["a/m"].provider.base_url.replace("http:", "https:"))
        begun = time.monotonic()
        assert await text_of(m) == "4 it is"
        assert time.monotonic() - begun < 1.5
        assert m.ends()[0][1] in ("connect", "tls")


async def test_a_name_that_does_not_resolve_falls_back() -> None:
    async with market(good(), good()) as m:
        moved(m, "http://seller.invalid/v1")
        assert await text_of(m) == "4 it is"
        assert m.ends() == [("a", "connect"), ("b", "ok")]


@pytest.mark.parametrize("cut", [0, 1, len(WHOLE) // 2, len(WHOLE) - 1])
async def test_a_body_shorter_than_announced_is_truncated(cut: int) -> None:
    async def script(c: Connection) -> None:
        await c.head(kind="application/json", content_length=str(len(WHOLE)))
        await c.send(WHOLE[:cut])

    async with market(ScriptedSeller(script), good()) as m:
        assert await text_of(m) == "4 it is"
        assert m.ends() == [("a", "truncated"), ("b", "ok")]


async def test_a_connection_reset_after_the_finish_is_still_an_answer() -> None:
    async def script(c: Connection) -> None:
        await c.head(transfer_encoding="chunked")
        for piece in (ROLE, chunk({"content": "all"}), FINISH):
            await c.send(b"%x\r\n%b\r\n" % (len(piece), piece))

    async with market(ScriptedSeller(script), good()) as m:
        assert await text_of(m) == "all"
        assert m.ends() == [("a", "ok")]
        assert m.records[0].usage_estimated


async def test_one_byte_at_a_time_is_as_good_as_silence() -> None:
    async def dripping(c: Connection) -> None:
        await c.head()
        for byte in b"".join([ROLE, chunk({"content": "x"}), FINISH, DONE]):
            await c.send(bytes([byte]))
            await asyncio.sleep(0.05)

    async with market(ScriptedSeller(dripping), good(), ttft_ms=60.0) as m:
        begun = time.monotonic()
        assert await text_of(m, latency_ms=3000.0) == "4 it is"
        assert time.monotonic() - begun < 1.0
        assert m.ends() == [("a", "timeout_ttft"), ("b", "ok")]


async def test_headers_without_end_fall_back() -> None:
    async def script(c: Connection) -> None:
        await c.send(b"HTTP/1.1 200 OK\r\n")
        for _ in range(4000):
            await c.send(b"x-fill: " + b"y" * 4000 + b"\r\n")

    async with market(ScriptedSeller(script), good()) as m:
        assert await text_of(m, hard_ms=5000.0) == "4 it is"
        assert m.ends()[0][0] == "a"
        assert m.ends()[-1] == ("b", "ok")


@pytest.mark.parametrize("body", [b"\x00\x01\x02", b"HTTP/9.9 wat\r\n\r\n", b"SSH-2.0-x\r\n"])
async def test_what_is_no_http_falls_back(body: bytes) -> None:
    async def script(c: Connection) -> None:
        await c.send(body)

    async with market(ScriptedSeller(script), good()) as m:
        assert await text_of(m) == "4 it is"
        assert m.ends()[0] in (("a", "malformed"), ("a", "connect"))


async def test_a_stalled_error_body_does_not_hold_the_request_up() -> None:
    async def script(c: Connection) -> None:
        await c.head(500, "application/json", content_length="1000")
        await c.hang()

    async with market(ScriptedSeller(script), good(), gap_ms=200.0) as m:
        begun = time.monotonic()
        assert await text_of(m) == "4 it is"
        assert time.monotonic() - begun < 1.0
        assert m.ends() == [("a", "server_error"), ("b", "ok")]


async def test_a_drip_after_a_visible_token_ends_with_the_gap_or_the_deadline() -> None:
    async def script(c: Connection) -> None:
        await c.head()
        await c.send(ROLE + chunk({"content": "word"}))
        while True:
            await c.send(b": still here\n\n")
            await asyncio.sleep(0.02)

    async with market(ScriptedSeller(script), good(), gap_ms=300.0) as m:
        events: list[Any] = []
        begun = time.monotonic()
        async with await m.dispatcher.open(m.order(True)) as delivery:
            async for batch in delivery:
                events += batch
        assert time.monotonic() - begun < 0.3 + 0.25
        assert isinstance(events[-1], Failed)
        assert [e.text for e in events if isinstance(e, TextDelta)] == ["word"]


async def test_a_flood_is_read_no_faster_than_the_app_reads() -> None:
    n_sent = 0

    async def flooding(c: Connection) -> None:
        nonlocal n_sent
        await c.head()
        await c.send(ROLE)
        piece = chunk({"content": "y" * 8000})
        while n_sent < 64 * 1024 * 1024:
            await c.send(piece)
            n_sent += len(piece)

    async with market(ScriptedSeller(flooding), gap_ms=60_000.0) as m:
        async with await m.dispatcher.open(m.order(True)) as delivery:
            await anext(delivery)
            settled = -1
            while settled != n_sent:
                settled = n_sent
                await asyncio.sleep(0.1)
        assert n_sent < 16 * 1024 * 1024
        assert m.ends() == [("a", "cancelled")]


async def test_nothing_is_left_open_after_a_storm_of_everything() -> None:
    before = len(asyncio.all_tasks())
    broken = [
        ScriptedSeller(hangs, sends(ROLE), sends(b"data: {\n\n"), streams(["ok"], usage=GOOD)),
        ScriptedSeller(sends(kind="text/html"), streams(["ok"], usage=GOOD)),
    ]
    async with market(*broken, ttft_ms=50.0) as m:
        orders = [m.order(latency_ms=1500.0, hard_ms=4000.0) for _ in range(40)]
        done = await asyncio.gather(*(m.dispatcher.run(o) for o in orders), return_exceptions=True)
        answered = [d for d in done if not isinstance(d, BaseException)]
        assert len(answered) >= 36
        assert m.dispatcher.n_inflight == 0
        ids = [r.attempt_id for r in m.records]
        assert len(ids) == len(set(ids))
    assert len(asyncio.all_tasks()) <= before
