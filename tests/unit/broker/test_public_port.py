"""Connections that dawdle, and addresses that open too many: raw sockets against a real port."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from broker.config import GatewaySettings, Settings
from broker.gateway import answer_errors
from broker.http_call import STATE, body_of
from broker.metrics import Metrics
from broker.public_port import PORT, PortSettings, PublicPort, watch

FAST = PortSettings(head_timeout_s=0.2, idle_timeout_s=0.3, linger_s=0.1, sweep_s=0.02)
HEAD = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"


DIALLED: list[asyncio.StreamWriter] = []


async def echo(request: web.Request) -> web.Response:
    return web.Response(body=await body_of(request))


async def slow(request: web.Request) -> web.Response:
    await asyncio.sleep(0.6)
    return web.Response(text="late but whole")


@asynccontextmanager
async def served(settings: PortSettings = FAST, **more: Any) -> AsyncIterator[PublicPort]:
    app = web.Application(client_max_size=1000, middlewares=[watch, answer_errors])
    held = Settings(gateway=GatewaySettings(max_body_bytes=1000, body_timeout_s=0.2))
    app[STATE] = SimpleNamespace(settings=held, metrics=Metrics())
    port = app[PORT] = PublicPort(settings)
    app.router.add_post("/echo", echo)
    app.router.add_get("/slow", slow)
    runner = web.AppRunner(
        app,
        access_log=None,
        keepalive_timeout=settings.keepalive_s,
        lingering_time=settings.linger_s,
        shutdown_timeout=0.1,
    )
    await runner.setup()
    assert runner.server is not None
    await port.start(runner.server, "127.0.0.1", 0)
    try:
        yield port
    finally:
        for writer in DIALLED:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        DIALLED.clear()
        await port.stop()
        await runner.cleanup()


async def dial(port: PublicPort) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port.number)
    DIALLED.append(writer)
    return reader, writer


async def said(reader: asyncio.StreamReader, within_s: float = 5.0) -> bytes:
    """Everything until the other side closes."""
    try:
        return await asyncio.wait_for(reader.read(), within_s)
    except ConnectionResetError:
        return b""


async def test_a_head_half_sent_is_given_up() -> None:
    async with served() as port:
        dialled = [await dial(port) for _ in range(20)]
        for _, writer in dialled:
            writer.write(b"POST /echo HTTP/1.1\r\nHost: x\r\n")
        begun = time.monotonic()
        answers = await asyncio.gather(*(said(reader) for reader, _ in dialled))
        assert time.monotonic() - begun < 2.0
        assert all(b" 408 " in answer and b'"remedy"' in answer for answer in answers)
        assert (port.n_open, port.n_expired) == (0, 20)


async def test_dripping_does_not_gain_time() -> None:
    async with served() as port:
        reader, writer = await dial(port)
        answer = asyncio.create_task(said(reader))
        for byte in HEAD:
            if answer.done():
                break
            writer.write(bytes([byte]))
            await asyncio.sleep(0.02)
        assert b" 408 " in await answer


async def test_a_connection_without_a_word_is_closed() -> None:
    async with served() as port:
        reader, _ = await dial(port)
        assert b" 408 " in await said(reader)


async def test_an_idle_connection_is_closed_without_a_word_but_not_one_at_work() -> None:
    async with served() as port:
        reader, writer = await dial(port)
        writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        whole = await said(reader)
        assert whole.startswith(b"HTTP/1.1 200 OK")
        assert whole.endswith(b"late but whole")
        assert b"408" not in whole


async def test_the_second_request_has_a_deadline_of_its_own() -> None:
    async with served() as port:
        reader, writer = await dial(port)
        for _ in range(3):
            writer.write(HEAD + b"hello")
            assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200 OK")
            await asyncio.sleep(0.1)
        writer.write(HEAD[:20])
        assert b" 408 " in await said(reader)


async def test_a_slow_body_is_refused_in_time() -> None:
    async with served() as port:
        reader, writer = await dial(port)
        writer.write(HEAD + b"he")
        answer = await said(reader)
        assert b" 400 " in answer
        assert b"did not arrive in time" in answer


async def test_a_body_over_the_limit_is_refused_unread() -> None:
    async with served() as port:
        reader, writer = await dial(port)
        writer.write(HEAD.replace(b"Content-Length: 5", b"Content-Length: 1001"))
        answer = await reader.readuntil(b"}}")
        assert b" 413 " in answer
        chunked = HEAD.replace(b"Content-Length: 5", b"Transfer-Encoding: chunked")
        reader, writer = await dial(port)
        writer.write(chunked + b"".join(b"64\r\n" + b"x" * 100 + b"\r\n" for _ in range(11)))
        assert b" 413 " in await reader.readuntil(b"}}")


async def test_an_address_has_so_many_connections_and_no_more() -> None:
    async with served(PortSettings(max_per_address=3, sweep_s=0.02)) as port:
        kept = [await dial(port) for _ in range(3)]
        for _, writer in kept:
            writer.write(HEAD + b"hello")
        for reader, _ in kept:
            await reader.readuntil(b"hello")
        reader, writer = await dial(port)
        refused = await said(reader)
        assert b" 429 " in refused
        assert b"Retry-After" in refused
        kept[0][1].close()
        for _ in range(100):
            if port.n_open < 3:
                break
            await asyncio.sleep(0.01)
        reader, writer = await dial(port)
        writer.write(HEAD + b"hello")
        await reader.readuntil(b"hello")
        assert port.n_refused == 1


SMUGGLED = {
    "two hosts": HEAD.replace(b"Host: x", b"Host: x\r\nHost: y") + b"hello",
    "length and chunked": HEAD.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n")
    + b"0\r\n\r\n",
    "two lengths": HEAD.replace(b"\r\n\r\n", b"\r\nContent-Length: 6\r\n\r\n") + b"hello",
    "folded header": HEAD.replace(b"Host: x", b"Host: x\r\nX-A: 1\r\n b") + b"hello",
    "bare newlines": HEAD.replace(b"\r\n", b"\n") + b"hello",
    "blank before colon": HEAD.replace(b"Host: x", b"Host : x") + b"hello",
    "NUL in a header": HEAD.replace(b"Host: x", b"Host: x\r\nX-A: \0") + b"hello",
    "bare CR in a header": HEAD.replace(b"Host: x", b"Host: x\r\nX-A: a\rb") + b"hello",
    "a negative length": HEAD.replace(b"Length: 5", b"Length: -5") + b"hello",
    "chunk size that is none": HEAD.replace(b"Content-Length: 5", b"Transfer-Encoding: chunked")
    + b"zz\r\nhello\r\n0\r\n\r\n",
    "a huge header": HEAD.replace(b"Host: x", b"Host: x\r\nX-A: " + b"a" * 70_000) + b"hello",
    "many headers": HEAD.replace(b"Host: x", b"Host: x\r\n" + b"X-A: 1\r\n" * 5_000) + b"hello",
}


@pytest.mark.parametrize("name", SMUGGLED)
async def test_what_two_servers_may_read_apart_is_refused_and_closed(name: str) -> None:
    async with served() as port:
        reader, writer = await dial(port)
        writer.write(SMUGGLED[name])
        answer = await said(reader)
        assert not answer.startswith(b"HTTP/1.1 2"), answer
        assert answer == b"" or answer.split(b" ", 2)[1] in (b"400", b"431"), answer
        assert answer.count(b"HTTP/1.1") <= 1
