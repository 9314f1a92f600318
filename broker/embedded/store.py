"""The embedded store as its owner sees it: start, address, accounts, stop.

    store = ChdbServer(data_dir)
    await store.start()                       # healthy when it returns, 1-2 s
    client = await clickhouse_connect.get_async_client(**store.writer_options())
    ...
    await store.stop()

The server is a child process (`chdb_server`), since chDB is one engine a process and a crash of
it must not be ours. If it dies it is started again at the same address, with growing pauses;
what it had acknowledged is on disk. It ends with this process, however this one ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from broker.embedded.accounts import Account, Accounts, AnalystLimits
from broker.embedded.chdb_server import ServerConfig
from broker.embedded.child import Child
from broker.embedded.errors import NotRunning, StartFailed

_log = logging.getLogger(__name__)

_HOST: Final = "127.0.0.1"
_ROOT: Final = Path(__file__).resolve().parents[2]
_STOP_GRACE_S: Final = 15.0
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 10.0


class _Ready(msgspec.Struct):
    port: int
    pid: int
    version: str
    landlock: int


class ChdbServer:
    """A ClickHouse HTTP server over chDB, on this machine only.

    Parameters
    ----------
    data_dir : where its data lie; kept when it stops
    port : TCP port on 127.0.0.1; 0 takes a free one at the first start and keeps it
    writer, analyst : their credentials; a password is drawn where none is given
    limits : of the analyst
    start_timeout_s : how long a start may take before `StartFailed`
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int = 0,
        writer: Account | None = None,
        analyst: Account | None = None,
        limits: AnalystLimits | None = None,
        start_timeout_s: float = 30.0,
    ) -> None:
        self._data_dir = data_dir
        self._port = port
        self._accounts = Accounts(
            writer=writer or Account("broker", secrets.token_urlsafe(24)),
            analyst=analyst or Account("analyst", secrets.token_urlsafe(24)),
        )
        self._limits = limits or AnalystLimits()
        self._start_timeout_s = start_timeout_s
        self._child: Child | None = None
        self._ready: _Ready | None = None
        self._keeper: asyncio.Task[None] | None = None
        self.n_restarts = 0

    @property
    def port(self) -> int:
        if not self._port:
            raise NotRunning("the store has not been started, so it has no port yet")
        return self._port

    @property
    def url(self) -> str:
        """``http://127.0.0.1:port``; the same after a restart."""
        return f"http://{_HOST}:{self.port}"

    @property
    def writer(self) -> Account:
        return self._accounts.writer

    @property
    def analyst(self) -> Account:
        return self._accounts.analyst

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def version(self) -> str:
        """ClickHouse's version."""
        if self._ready is None:
            raise NotRunning("the store is not running")
        return self._ready.version

    def writer_options(self, **more: Any) -> dict[str, Any]:
        """Arguments for clickhouse-connect's ``get_client`` and ``get_async_client``."""
        return self._options(self.writer, more)

    def analyst_options(self, **more: Any) -> dict[str, Any]:
        """The same for the read-only account."""
        return self._options(self.analyst, more)

    def rss_bytes(self) -> int:
        """Resident memory of the server process now (some 300 MB are the engine's code)."""
        return self._running().rss_bytes()

    def log_tail(self) -> str:
        """The last lines that the server process logged."""
        return self._running().tail()

    async def start(self) -> None:
        """Start and return once it answers; from then on a crash is followed by a restart.

        Raises
        ------
        StartFailed : not ready within `start_timeout_s`; says what the process printed
        """
        if self._keeper is not None:
            return
        await self._spawn()
        self._keeper = asyncio.create_task(self._keep_running())

    async def stop(self) -> None:
        """Finish running statements and end the process. Harmless when it is not running."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
        if self._child is not None:
            await self._child.end(grace_s=_STOP_GRACE_S)
            self._child = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    def _options(self, account: Account, more: dict[str, Any]) -> dict[str, Any]:
        return {
            "host": _HOST,
            "port": self.port,
            "username": account.user,
            "password": account.password,
            "compress": False,  # loopback is faster than any codec
            **more,
        }

    def _running(self) -> Child:
        if self._child is None:
            raise NotRunning("the store is not running")
        return self._child

    async def _spawn(self) -> None:
        child = await Child.spawn(
            [sys.executable, "-s", "-m", "broker.embedded.chdb_server"],
            env={"PYTHONPATH": str(_ROOT), "LANG": "C.UTF-8", "TZ": "UTC"},
            pipes=True,
        )
        config = ServerConfig(
            data_dir=str(self._data_dir.resolve()),
            accounts=self._accounts,
            limits=self._limits,
            parent_pid=os.getpid(),
            host=_HOST,
            port=self._port,
        )
        try:
            child.stdin.write(msgspec.json.encode(config) + b"\n")
            async with asyncio.timeout(self._start_timeout_s):
                line = await child.stdout.readline()
            if not line:
                await child.wait()
                raise StartFailed(f"the store ended with {child.returncode}: {child.tail()}")
            self._ready = msgspec.json.decode(line, type=_Ready)
        except TimeoutError as error:
            raise StartFailed(
                f"the store was not ready within {self._start_timeout_s} s: {child.tail()}"
            ) from error
        finally:
            if self._ready is None or self._ready.pid != child.pid:
                await child.end(grace_s=0)
        self._port = self._ready.port
        self._child = child

    async def _keep_running(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            child = self._running()
            code = await child.wait()
            _log.error("the store ended with code %s, starting it again: %s", code, child.tail())
            await child.end(grace_s=0)
            while True:
                await asyncio.sleep(pause_s)
                try:
                    await self._spawn()
                except StartFailed as error:
                    pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                    _log.error("the store does not start: %s", error)
                else:
                    pause_s = _FIRST_PAUSE_S
                    self.n_restarts += 1
                    break
