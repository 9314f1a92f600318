"""A listening port that can die, refuse, swallow connections, and come back with its number.

A second socket, bound to the same port but never listening, keeps the number ours while the
seller is dead: connecting is then refused by the kernel, as at a host whose process is gone.
A black hole is a listener that nobody accepts from, its queue already full: the kernel drops
what comes, and the buyer's connect hangs.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import cast

from aiohttp import web

_RST_ON_CLOSE = struct.pack("ii", 1, 0)
QUEUE_FILLERS = 4


def reset(transport: asyncio.BaseTransport | None) -> None:
    """Close a connection with an RST instead of a FIN."""
    if transport is None or transport.is_closing():
        return
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
    # uvloop's transports are not subclasses of asyncio.Transport, hence the cast
    cast(asyncio.Transport, transport).abort()


class _Refuser(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        reset(transport)


class Port:
    """One seller's port. `refusing` is asked at every new connection."""

    def __init__(self, host: str, server: web.Server, refusing: Callable[[], bool]) -> None:
        self._server = server
        self._refusing = refusing
        self._reserved = _bound(host, 0)
        self._address: tuple[str, int] = self._reserved.getsockname()[:2]
        self._listening: asyncio.Server | None = None
        self._hole: list[socket.socket] = []

    @property
    def number(self) -> int:
        """The port's number, the same for the life of the seller."""
        return self._address[1]

    async def open(self) -> None:
        """Listen."""
        if self._listening is not None:
            return
        self._fill_in_hole()
        self._listening = await asyncio.get_running_loop().create_server(
            self._protocol, sock=_bound(*self._address), backlog=1024
        )

    def die(self) -> None:
        """Stop listening and reset every connection."""
        self._fill_in_hole()
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        self.reset_all()

    def black_hole(self) -> None:
        """Swallow new connections: connecting to us hangs."""
        if self._hole:
            return
        self.die()
        hole = _bound(*self._address)
        hole.listen(0)
        self._hole = [hole]
        for _ in range(QUEUE_FILLERS):
            filler = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            filler.setblocking(False)
            filler.connect_ex(self._address)
            self._hole.append(filler)

    def reset_all(self) -> None:
        """Reset every open connection."""
        for connection in self._server.connections:
            reset(connection.transport)

    async def close(self) -> None:
        """Give the port up; open connections are reset."""
        self.die()
        await self._server.shutdown(0)
        self._reserved.close()

    def _protocol(self) -> asyncio.Protocol:
        # uvloop stops listening an iteration late: what still comes in then is refused
        gone = self._listening is None
        return _Refuser() if gone or self._refusing() else self._server()

    def _fill_in_hole(self) -> None:
        for sock in self._hole:
            sock.close()
        self._hole = []


def _bound(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.setblocking(False)
    sock.bind((host, port))
    return sock
