"""Connecting to sellers: what is their failure, and what is ours."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bidding.market import Provider
from bidding.outcome import FailureClass
from broker.providers.base import WireCall
from broker.upstream import AttemptFailed, Upstream, UpstreamSettings

LIMIT_S = 0.1


@asynccontextmanager
async def upstream() -> AsyncIterator[Upstream]:
    client = Upstream(UpstreamSettings(connect_timeout_s=LIMIT_S))
    await client.start()
    try:
        yield client
    finally:
        await client.close()


def call_to(url: str) -> tuple[WireCall, Provider]:
    call = WireCall(method="POST", url=url, headers={}, body=b"{}")
    return call, Provider(id="p", name="P", wire="openai", base_url=url, jurisdiction="US")


async def test_a_loop_that_stood_still_is_not_the_sellers_failure() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    async with server, upstream() as client:
        for n_turns in range(1, 9):  # wherever on its way the connection is
            asking = asyncio.create_task(client.call(*call_to(url)))
            for _ in range(n_turns):
                await asyncio.sleep(0)
            time.sleep(1.5 * LIMIT_S)  # noqa: ASYNC251 - a loop that stands still is the case
            reply = await asking
            assert reply.status == 200
            reply.close()


async def test_a_seller_that_accepts_nobody_fails_in_time() -> None:
    # A listener whose queue is full drops whoever comes: nothing answers, not even a refusal.
    server = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0, backlog=0)
    address = server.sockets[0].getsockname()
    loop = asyncio.get_running_loop()
    async with upstream() as client:
        for listener in server.sockets:
            loop.remove_reader(listener.fileno())
        waiting = [asyncio.create_task(_held(address)) for _ in range(4)]
        await asyncio.sleep(0.05)
        begun_s = loop.time()
        with pytest.raises(AttemptFailed) as caught:
            await client.call(*call_to(f"http://127.0.0.1:{address[1]}/"))
        assert caught.value.failure is FailureClass.CONNECT
        assert caught.value.reason == "connect timeout"
        assert loop.time() - begun_s < 3.0 * LIMIT_S + 1.0
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    server.close()


async def _held(address: tuple[str, int]) -> None:
    _, writer = await asyncio.open_connection(*address)
    try:
        await asyncio.sleep(30.0)
    finally:
        writer.close()
