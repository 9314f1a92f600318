"""A head that is no HTTP is one line in the log, not a trace."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator

import pytest
from aiohttp import web

from broker.logs import configure


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    configure("info")
    yield stream
    root.handlers[:] = before
    root.setLevel(level)


async def test_malformed_heads_are_one_line_each(logged: io.StringIO) -> None:
    async def hello(request: web.BaseRequest) -> web.Response:
        return web.Response(text="hello")

    runner = web.ServerRunner(web.Server(hello))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    heads = [
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nBad\x00Name: y\r\n\r\n",
    ]
    for head in heads:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head)
        assert b" 400 " in await reader.readline()
        writer.close()
        await writer.wait_closed()
    await runner.cleanup()
    lines = [json.loads(line) for line in logged.getvalue().splitlines()]
    told = [line for line in lines if line["logger"] == "aiohttp.server"]
    assert len(told) == len(heads)
    for line in told:
        assert line["level"] == "warning"
        assert "trace" not in line
        assert line["message"].startswith("no HTTP from 127.0.0.1: ")
        assert "\n" not in line["message"]


async def test_a_body_that_is_not_what_its_head_says_is_one_line(logged: io.StringIO) -> None:
    async def read(request: web.BaseRequest) -> web.Response:
        try:
            await request.read()
        except web.RequestPayloadError:
            return web.Response(status=400)
        return web.Response()

    runner = web.ServerRunner(web.Server(read))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    reader, writer = await asyncio.open_connection("127.0.0.1", runner.addresses[0][1])
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 7\r\n\r\n"
    writer.write(head + b"no gzip")
    assert b" 400 " in await reader.readline()
    writer.close()
    await writer.wait_closed()
    await runner.cleanup()
    lines = [json.loads(line) for line in logged.getvalue().splitlines()]
    told = [line for line in lines if line["logger"] == "aiohttp.server"]
    assert len(told) == 1
    assert told[0]["level"] == "warning"
    assert "trace" not in told[0]
