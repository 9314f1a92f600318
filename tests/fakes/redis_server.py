"""A real Redis for as long as a test lasts, where the machine has one."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


def has_redis() -> bool:
    """Whether there is a `redis-server` to start."""
    return shutil.which("redis-server") is not None


@asynccontextmanager
async def redis_server(folder: Path) -> AsyncIterator[str]:
    """Its URL; nothing is kept when the block is left."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = await asyncio.create_subprocess_exec(
        *("redis-server", "--port", str(port), "--bind", "127.0.0.1"),
        *("--save", "", "--dir", str(folder), "--loglevel", "warning"),
    )
    try:
        for _ in range(200):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                await writer.wait_closed()
                break
            except OSError:
                await asyncio.sleep(0.02)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        await server.wait()
