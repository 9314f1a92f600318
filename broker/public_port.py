"""The listening side of the public port: who may connect, and how long they may dawdle.

aiohttp has no deadline for a request's head (measured: 50 of 50 half-sent ones still open after
96 s), and no limit to the connections of one address. Both are kept here, around its protocol
and without touching it. A connection is *reading* from its first byte until the head is whole,
*busy* while a handler works, *idle* between requests; `watch`, a middleware, says when it is
busy. One sweep closes what is late: a timer each would cost every request two. A body's own
deadline is the handler's.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Annotated, Final, cast

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from bidding.errors import BadRequest
from broker.error_answers import body_for
from broker.errors import Shed

_Seconds = Annotated[float, Meta(gt=0, le=3600)]
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_BACKLOG: Final = 1024


class PortSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Deadlines and limits of connections. `max_per_address` 0 is no limit: for a port behind a
    balancer, whose connections all come from one address. Each worker counts its own.
    """

    head_timeout_s: _Seconds = 5.0
    idle_timeout_s: _Seconds = 60.0
    linger_s: Annotated[float, Meta(ge=0, le=60)] = 2.0
    max_per_address: Annotated[int, Meta(ge=0)] = 1024
    sweep_s: _Seconds = 1.0

    @property
    def keepalive_s(self) -> float:
        """For aiohttp's own timer, which is deaf to the first bytes of a next request."""
        return self.idle_timeout_s + self.head_timeout_s + self.sweep_s


def _raw_answer(status: str, error: Exception) -> bytes:
    """An answer to someone whose request never became one."""
    body = msgspec.json.encode(body_for(error))
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "Retry-After: 1\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


_TOO_MANY = _raw_answer(
    "429 Too Many Requests", Shed("too many connections from this address", retry_after_s=1.0)
)
_TOO_SLOW = _raw_answer(
    "408 Request Timeout",
    BadRequest("the request's head did not arrive in time", remedy="send it at once"),
)


class _Connection(asyncio.Protocol):
    """Passes everything on to aiohttp's protocol, and keeps when it must be over."""

    __slots__ = ("_inner", "_port", "address", "due_s", "idle", "transport")

    def __init__(self, port: PublicPort, inner: asyncio.Protocol) -> None:
        self._port = port
        self._inner: asyncio.Protocol | None = inner
        self.transport: asyncio.Transport | None = None
        self.address = ""
        self.idle = False
        self.due_s = math.inf

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not subclasses of asyncio.Transport, hence the cast
        self.transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if peer else ""
        if self._inner is not None and self._port.admit(self):
            self._inner.connection_made(transport)
        else:
            self._inner = None
            self.transport.write(_TOO_MANY)
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        if self.idle:
            self.reading()
        if self._inner is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return None if self._inner is None else self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._inner is not None:
            self._port.leave(self)
            self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()

    def reading(self) -> None:
        """The first byte of a request has come, or will have to."""
        self.idle = False
        self.due_s = self._port.now_s() + self._port.settings.head_timeout_s

    def serving(self) -> None:
        """A request's head is whole; from here on its handler keeps the time."""
        self.idle = False
        self.due_s = math.inf

    def served(self) -> None:
        """The handler is done."""
        self.idle = True
        self.due_s = self._port.now_s() + self._port.settings.idle_timeout_s

    def expire(self) -> None:
        """Close; whoever was in the middle of a head is told why."""
        if self.transport is not None and not self.transport.is_closing():
            if not self.idle:
                self.transport.write(_TOO_SLOW)
            self.transport.close()
        self.due_s = math.inf


class PublicPort:
    """Listens for an application. `await start(…)`, then `await stop()`."""

    def __init__(self, settings: PortSettings) -> None:
        self.settings = settings
        self.n_refused = 0
        self.n_expired = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listening: asyncio.Server | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        self._open: dict[object, _Connection] = {}
        self._of_address: Counter[str] = Counter()

    @property
    def n_open(self) -> int:
        """Connections open now."""
        return len(self._open)

    @property
    def number(self) -> int:
        """The port listened at."""
        if self._listening is None:
            return 0
        return int(self._listening.sockets[0].getsockname()[1])

    async def start(self, server: web.Server, host: str, port: int) -> None:
        """Listen and hand connections to `server`. Raises `OSError` when the port is taken."""
        self._loop = loop = asyncio.get_running_loop()
        self._listening = await loop.create_server(
            lambda: _Connection(self, cast(asyncio.Protocol, server())),
            host,
            port,
            reuse_port=True,
            backlog=_BACKLOG,
        )
        self._sweep()

    async def stop(self) -> None:
        """Take no new connections; those open are their server's to close."""
        if self._listening is not None:
            self._listening.close()
        if self._sweeping is not None:
            self._sweeping.cancel()

    def now_s(self) -> float:
        """The loop's clock."""
        return 0.0 if self._loop is None else self._loop.time()

    def admit(self, connection: _Connection) -> bool:
        """Take note of a new connection; False when its address has too many."""
        most = self.settings.max_per_address
        if most and self._of_address[connection.address] >= most:
            self.n_refused += 1
            return False
        self._of_address[connection.address] += 1
        self._open[connection.transport] = connection
        connection.reading()
        return True

    def leave(self, connection: _Connection) -> None:
        """Forget a closed connection."""
        if self._open.pop(connection.transport, None) is not None:
            self._of_address[connection.address] -= 1
            if not self._of_address[connection.address]:
                del self._of_address[connection.address]

    def connection_of(self, request: web.Request) -> _Connection | None:
        """Which connection a request came by; None where it was not through this port."""
        return self._open.get(request.transport)

    def _sweep(self) -> None:
        now_s = self.now_s()
        for connection in [c for c in self._open.values() if c.due_s <= now_s]:
            self.n_expired += 1
            connection.expire()
        if self._loop is not None:
            self._sweeping = self._loop.call_later(self.settings.sweep_s, self._sweep)


PORT: Final = web.AppKey("port", PublicPort)


@web.middleware
async def watch(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Tell the port when a connection is at work."""
    port = request.app.get(PORT)
    connection = None if port is None else port.connection_of(request)
    if connection is None:
        return await handler(request)
    connection.serving()
    try:
        return await handler(request)
    finally:
        connection.served()
