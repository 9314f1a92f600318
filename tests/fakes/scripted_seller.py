"""A seller that follows a script, byte by byte, over a real socket.

A script is a coroutine given the connection and the request; it may answer well, badly, slowly,
or not at all. `calls` keeps what was asked; `n_aborted` how often the client hung up first.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

Script = Callable[["Connection"], Awaitable[None]]


class Connection:
    """One request on one connection, and the means to answer it."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: dict[str, Any]
    ) -> None:
        self._reader = reader
        self.writer = writer
        self.request = request

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, status: int = 200, kind: str = "text/event-stream", **more: str) -> None:
        """Status line and headers of an answer that lasts until the connection closes."""
        lines = [f"HTTP/1.1 {status} X", f"content-type: {kind}", "connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in more.items()]
        await self.send(("\r\n".join(lines) + "\r\n\r\n").encode())

    async def whole(
        self, body: bytes, status: int = 200, kind: str = "application/json", **more: str
    ) -> None:
        await self.head(status, kind, content_length=str(len(body)), **more)
        await self.send(body)

    async def hang(self) -> None:
        """Say nothing until the client goes."""
        await self._reader.read()

    def reset(self) -> None:
        """RST rather than FIN."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class ScriptedSeller:
    """The scripts are played in turn, the last one for ever."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts: list[Script] = list(scripts)
        self.calls: list[dict[str, Any]] = []
        self.port = 0
        self.n_open = 0
        self.asked = asyncio.Event()
        self.idle = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self.n_open += 1
        self.idle.clear()
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            headers = {}
            for line in lines[1:]:
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            request = {"line": lines[0], "headers": headers, "body": json.loads(body)}
            script = self.scripts[min(len(self.calls), len(self.scripts) - 1)]
            self.calls.append(request)
            self.asked.set()
            await script(Connection(reader, writer, request))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.n_open -= 1
            if not self.n_open:
                self.idle.set()
            writer.close()


@asynccontextmanager
async def selling(*sellers: ScriptedSeller) -> AsyncIterator[None]:
    """All `sellers` at ports of their own."""
    servers = []
    for seller in sellers:
        server = await asyncio.start_server(seller._serve, "127.0.0.1", 0)
        seller.port = server.sockets[0].getsockname()[1]
        servers.append(server)
    try:
        yield
    finally:
        for server in servers:
            server.close()
        tasks = [task for seller in sellers for task in seller._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)


def chunk(delta: dict[str, Any], finish: str | None = None, index: int = 0) -> bytes:
    """One OpenAI stream chunk."""
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    data = {"id": "c1", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def usage_chunk(usage: Any) -> bytes:
    return b"data: " + json.dumps({"id": "c1", "choices": [], "usage": usage}).encode() + b"\n\n"


ROLE = chunk({"role": "assistant", "content": ""})
FINISH = chunk({}, "stop")
DONE = b"data: [DONE]\n\n"


def streams(
    words: Sequence[str],
    *,
    usage: Any = None,
    first_s: float = 0.0,
    gap_s: float = 0.0,
) -> Script:
    """A sound stream of `words`."""

    async def script(c: Connection) -> None:
        await c.head()
        await asyncio.sleep(first_s)
        await c.send(ROLE)
        for word in words:
            await c.send(chunk({"content": word}))
            await asyncio.sleep(gap_s)
        await c.send(FINISH)
        if usage is not None:
            await c.send(usage_chunk(usage))
        await c.send(DONE)

    return script


def refuses(status: int, error: dict[str, Any] | None = None, **headers: str) -> Script:
    """An error answer in OpenAI's shape."""

    async def script(c: Connection) -> None:
        await c.whole(json.dumps({"error": error or {"message": "no"}}).encode(), status, **headers)

    return script


def sends(*pieces: bytes, kind: str = "text/event-stream", hang: bool = False) -> Script:
    """These bytes under a 200, then the end or silence."""

    async def script(c: Connection) -> None:
        await c.head(kind=kind)
        for piece in pieces:
            await c.send(piece)
        if hang:
            await c.hang()

    return script


async def hangs(c: Connection) -> None:
    """Accepts and never answers."""
    await c.hang()


async def resets(c: Connection) -> None:
    """Closes with RST before answering."""
    c.reset()
