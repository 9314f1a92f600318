"""A gateway on a thread of its own, for tests that call it as plain programs do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.fakes.gateway_rig import Rig, rig


@contextmanager
def rig_on_thread(folder: Path, **more: Any) -> Iterator[Rig]:
    """`rig`, served until the block is left."""
    ready: list[Rig | BaseException] = []
    up, done = threading.Event(), threading.Event()

    async def serve() -> None:
        try:
            async with rig(folder, **more) as market:
                ready.append(market)
                up.set()
                await asyncio.get_running_loop().run_in_executor(None, done.wait)
        except BaseException as error:
            ready.append(error)
            up.set()
            raise

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    up.wait(60.0)
    try:
        first = ready[0]
        if isinstance(first, BaseException):
            raise first
        yield first
    finally:
        done.set()
        thread.join(60.0)
