"""The embedded store's process: ClickHouse's HTTP interface over chDB.

Run by `store.ChdbServer` as ``python -m broker.embedded.chdb_server``. Its configuration is one
line of JSON on standard input (no secret in arguments or environment), its sign of life one
line of JSON on standard output: ``{"port": 8123, "pid": 4711, "version": "26.9.2.1",
"landlock": 7}``. It ends on SIGTERM, in order, and when standard input closes, which is how it
learns that its parent is gone.

Order matters at the start: the socket is bound, then the process shut in, and only then is the
engine loaded, because Landlock binds only the threads that are started later.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import sys
import sysconfig
from pathlib import Path
from typing import Final

import msgspec
from aiohttp import web

from broker.embedded.accounts import Accounts, AnalystLimits
from broker.embedded.desk import Desk
from broker.embedded.engine import Engine
from broker.embedded.errors import QueryFailed
from broker.embedded.http_answer import error_answer, send_answer
from broker.embedded.http_request import credentials, read_call
from broker.embedded.launcher import die_with_parent
from broker.embedded.sandbox import enclose
from broker.embedded.unfinished import forget_unfinished

_log = logging.getLogger(__name__)

_READ_BUFFER_BYTES: Final = 1 << 21
_ANALYST_BODY_BYTES: Final = 1 << 20
_SHUTDOWN_S: Final = 10.0
#: On `/ping`: answers since the start that nobody was there to take any more.
GONE_HEADER: Final = "X-Broker-Clients-Gone"


class ServerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the server is told at its start.

    Attributes
    ----------
    data_dir : ClickHouse's data; created if it is missing
    port : TCP port on `host`; 0 takes a free one
    parent_pid : process to end with
    max_body_bytes : longest request body of the writer, after decompression
    """

    data_dir: str
    accounts: Accounts
    limits: AnalystLimits
    parent_pid: int
    host: str = "127.0.0.1"
    port: int = 0
    max_body_bytes: int = 1 << 29


class Server:
    """The HTTP routes over a `Desk`.

    Attributes
    ----------
    n_clients_gone : callers that hung up before they had said or heard everything; their
        statement ran all the same, so a writer's next try meets its own token
    """

    def __init__(self, config: ServerConfig, engine: Engine) -> None:
        self._config = config
        self._engine = engine
        self._desk = Desk(engine, config.limits)
        self.n_clients_gone = 0

    def app(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=_ANALYST_BODY_BYTES)
        app.router.add_get("/ping", self._ping)
        app.router.add_route("*", "/{_:.*}", self._statement)
        return app

    def close(self) -> None:
        """Finish what runs and close the engine."""
        self._desk.close()

    async def _ping(self, _: web.Request) -> web.Response:
        return web.Response(text="Ok.\n", headers={GONE_HEADER: str(self.n_clients_gone)})

    async def _statement(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._answered(request)
        except ConnectionError as error:
            self.n_clients_gone += 1
            _log.debug("the caller is gone: %s", error)
            return web.Response()  # to nobody; raised further it would be logged as our fault

    async def _answered(self, request: web.Request) -> web.StreamResponse:
        query_id = request.query.get("query_id", "")
        try:
            if request.method not in ("GET", "POST"):
                raise web.HTTPMethodNotAllowed(request.method, ("GET", "POST"))
            if request.method == "GET" and "query" not in request.query:
                return await self._ping(request)
            is_analyst = self._config.accounts.is_analyst(*credentials(request))
            limit = _ANALYST_BODY_BYTES if is_analyst else self._config.max_body_bytes
            call = await read_call(request, limit)
            query_id = call.query_id
            answer = await (self._desk.read(call) if is_analyst else self._desk.write(call))
        except QueryFailed as error:
            return error_answer(error, query_id=query_id, version=self._engine.version)
        return await send_answer(request, answer, query_id=query_id, timezone=self._engine.timezone)


def _readable_places() -> list[Path]:
    """Where Python, its packages and this program lie."""
    here = Path(__file__).resolve().parents[2]
    places = {Path(place) for place in sysconfig.get_paths().values()}
    return [here, Path(sys.prefix), Path(sys.base_prefix), *places]


async def serve(config: ServerConfig, listening: socket.socket, landlock: int) -> None:
    """Open the engine, answer on `listening` until told to stop, close in order."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    watch = asyncio.create_task(_watch_parent(stop))
    data_dir = Path(config.data_dir) / "clickhouse"
    for line in forget_unfinished(data_dir):
        _log.warning("forgotten, since its part was never stored: %s", line)
    engine = Engine(data_dir)
    server = Server(config, engine)
    runner = web.AppRunner(
        server.app(),
        access_log=None,
        auto_decompress=False,
        read_bufsize=_READ_BUFFER_BYTES,
        shutdown_timeout=_SHUTDOWN_S,
        handle_signals=False,
    )
    await runner.setup()
    await web.SockSite(runner, listening).start()
    ready = {
        "port": listening.getsockname()[1],
        "pid": os.getpid(),
        "version": engine.version,
        "landlock": landlock,
    }
    print(json.dumps(ready), flush=True)
    try:
        await stop.wait()
    finally:
        watch.cancel()
        await runner.cleanup()
        await asyncio.to_thread(server.close)
        if server.n_clients_gone:
            _log.info("%d callers were gone before their answer was", server.n_clients_gone)


async def _watch_parent(stop: asyncio.Event) -> None:
    """Set `stop` when standard input closes."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.read(1024):
        pass
    stop.set()


def _own_temporary_dir(data_dir: Path) -> None:
    """An empty place for the engine's temporary files, inside the one directory it may write."""
    place = data_dir / "tmp"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    os.environ["TMPDIR"] = str(place)


def main() -> None:
    """Read the configuration, shut the process in, serve."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    config = msgspec.json.decode(os.read(0, 1 << 20), type=ServerConfig)
    die_with_parent(config.parent_pid)
    data_dir = Path(config.data_dir)
    _own_temporary_dir(data_dir)
    os.chdir(data_dir)
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((config.host, config.port))
    listening.listen(128)
    landlock = enclose(readable=_readable_places(), writable=[data_dir])
    if landlock == 0:
        _log.warning("no Landlock in this kernel: only the query guard stands before files")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(config, listening, landlock))


if __name__ == "__main__":
    main()
