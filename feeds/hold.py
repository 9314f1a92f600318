"""Nobody writes to the log while it is being replaced: a lock that many writers share.

The embedded log lives in memory and is replaced when it has grown too large. What is written
between its readers' last read and its end would be acknowledged and lost, so every writer shares
a lock for as long as a delivery takes, and who replaces the log takes it alone. The lock is
flock(2) on two files: it works between processes and ends with its holder, however that ends.
The second file is a turnstile, passed on the way in, so that a steady stream of writers cannot
keep the replacer out.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

_RETRY_S = 0.01


class LogHold:
    """The lock at `path`, for one task at a time. With an empty path it holds nothing back."""

    def __init__(self, path: str) -> None:
        self._path = path

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Share the lock while the body runs; waits as long as somebody holds it alone."""
        if not self._path:
            yield
            return
        async with AsyncExitStack() as stack:
            turnstile = await stack.enter_async_context(_taken(self._turnstile, fcntl.LOCK_SH))
            await stack.enter_async_context(_taken(self._path, fcntl.LOCK_SH))
            fcntl.flock(turnstile, fcntl.LOCK_UN)
            yield

    @asynccontextmanager
    async def alone(self, timeout_s: float) -> AsyncIterator[None]:
        """Hold the lock alone: deliveries on their way have ended, none begins.

        Raises
        ------
        TimeoutError
            A writer did not end its delivery in time.
        """
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(timeout_s):
                await stack.enter_async_context(_taken(self._turnstile, fcntl.LOCK_EX))
                await stack.enter_async_context(_taken(self._path, fcntl.LOCK_EX))
            yield

    @property
    def _turnstile(self) -> str:
        return f"{self._path}.turnstile"


@asynccontextmanager
async def _taken(path: str, kind: int) -> AsyncIterator[int]:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(_RETRY_S)
        yield file
    finally:
        os.close(file)
