"""The broker's own processes as children of one: started together, restarted when they die.

`broker up` runs every service as its own process, the way production does, only on one
machine. A child that dies is started again with a growing pause; one that keeps dying within
its first seconds ends the whole, with its last words.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bidding.errors import MarketError

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0
_STABLE_S = 10.0
_MOST_QUICK_DEATHS = 8
#: Services share a machine's cores and their matrices are small: BLAS threads of each would only
#: spin against the others (seen: the estimators' process at 60 % of a core in place of 20 %).
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_libc = ctypes.CDLL(None, use_errno=True)


class ChildKeepsDying(MarketError):
    """A service ends again and again right after its start; its log says why."""


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class ServiceProcess:
    """One service, kept running until `stop`. What it logs goes to `log_path`."""

    def __init__(self, name: str, arguments: Sequence[str], log_path: Path) -> None:
        self.name = name
        self.n_restarts = 0
        self._arguments = list(arguments)
        self._log_path = log_path
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Its process now."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start it and keep it running."""
        await self._spawn()
        self._keeper = asyncio.create_task(self._keep())

    def kill(self) -> None:
        """Kill it as a crash would; it is started again."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def stop(self, grace_s: float = 10.0) -> None:
        """End it in order, by force after `grace_s`."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), grace_s)
        except TimeoutError:
            logger.warning("%s did not end within %g s and is killed", self.name, grace_s)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def failed(self) -> None:
        """Return only by raising `ChildKeepsDying`."""
        if self._keeper is not None:
            await asyncio.shield(self._keeper)

    async def _spawn(self) -> None:
        with self._log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                *self._arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**_ONE_THREAD, **os.environ},
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    async def _keep(self) -> None:
        pause_s, n_quick = _FIRST_PAUSE_S, 0
        while True:
            assert self._process is not None
            started_s = time.monotonic()
            code = await self._process.wait()
            quick = time.monotonic() - started_s < _STABLE_S
            n_quick = n_quick + 1 if quick else 0
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S) if quick else _FIRST_PAUSE_S
            if n_quick >= _MOST_QUICK_DEATHS:
                raise ChildKeepsDying(f"{self.name} keeps ending ({code}): {self.tail()}")
            logger.error("%s ended with code %s and is started again", self.name, code)
            await asyncio.sleep(pause_s)
            await self._spawn()
            self.n_restarts += 1

    def tail(self, n_bytes: int = 2000) -> str:
        """The last it logged."""
        try:
            content = self._log_path.read_bytes()
        except OSError:
            return ""
        return content[-n_bytes:].decode(errors="replace").strip()
