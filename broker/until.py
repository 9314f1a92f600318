"""`asyncio.timeout` whose end may be put off as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType


class Until:
    """As an async context manager: `TimeoutError` at `at_s`, unless `put_off` names a later time.

    Parameters
    ----------
    at_s : float
        On the loop's clock.
    put_off : callable
        Asked when the time has come; the new end on the same clock, None to let it end.
    """

    __slots__ = ("_handle", "_put_off", "_timeout")

    def __init__(self, at_s: float, put_off: Callable[[], float | None]) -> None:
        self._timeout = asyncio.timeout(None)
        self._put_off = put_off
        self._handle = asyncio.get_running_loop().call_at(at_s, self._due)

    def _due(self) -> None:
        loop = asyncio.get_running_loop()
        later_s = None
        try:
            later_s = self._put_off()
        finally:
            # Whatever goes wrong in the question, the wait ends.
            if later_s is None:
                self._timeout.reschedule(loop.time())
            else:
                self._handle = loop.call_at(later_s, self._due)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._handle.cancel()
        await self._timeout.__aexit__(kind, error, traceback)
