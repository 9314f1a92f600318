"""The gateway's side of the checking process: one at a time, each with a limit, killed past it."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import sys
from collections import OrderedDict
from hashlib import sha256
from typing import Final

import msgspec

from bidding.errors import BadRequest
from broker.verify.child import MAX_BYTES, Finding, Task

_LIMIT_S: Final = 2.0
_BARRED_S: Final = 600.0
_START_S: Final = 20.0
_MOST_BARRED: Final = 10_000

_encode = msgspec.json.Encoder().encode
_findings = msgspec.json.Decoder(Finding)


class CheckStopped(Exception):
    """A check that took too long, or brought the checking process down."""


def extra_is_there() -> bool:
    """Whether the extra `verify` is installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("jsonschema_rs", "re2"))


class Checker:
    """Checks texts in a process of its own, started when first needed.

    A check that was stopped is barred for a while: it may not take the process from others at once
    again.
    """

    def __init__(self, *, limit_s: float = _LIMIT_S) -> None:
        self._limit_s = limit_s
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._barred: OrderedDict[bytes, float] = OrderedDict()

    async def find(self, task: Task) -> Finding:
        """Check a text.

        Raises
        ------
        CheckStopped
            No verdict: it took too long, now or before.
        """
        name = sha256(f"{task.schema}\x1f{task.regex}".encode("utf-8", "replace")).digest()
        now_s = asyncio.get_running_loop().time()
        if self._barred.get(name, 0.0) > now_s:
            raise CheckStopped("this check took too long before")
        packed = _encode(task)
        if len(packed) > MAX_BYTES:
            raise CheckStopped("too much to check")
        async with self._turn:
            try:
                process = await self._started()
            except (TimeoutError, OSError, EOFError) as error:
                await self._kill()
                raise CheckStopped("the checking process does not start") from error
            try:
                async with asyncio.timeout(self._limit_s):
                    return await _asked(process, packed)
            except (TimeoutError, OSError, EOFError) as error:
                self._barred[name] = now_s + _BARRED_S
                if len(self._barred) > _MOST_BARRED:
                    self._barred.popitem(last=False)
                await self._kill()
                raise CheckStopped(f"the check took longer than {self._limit_s:g} s") from error
            except BaseException:
                # Whoever waited has gone; what comes now would be taken for the next one's.
                await self._kill()
                raise

    async def look_at(self, task: Task, path: str) -> None:
        """Whether a check can be used at all.

        Raises
        ------
        BadRequest
        """
        if not extra_is_there():
            raise BadRequest(
                "checks by schema or expression are not installed here",
                path=path,
                remedy="ask your operator for the extra: model-market-broker[verify]",
            )
        try:
            finding = await self.find(task)
        except CheckStopped as error:
            raise BadRequest(str(error), path=path, remedy="make the check simpler") from error
        if finding.bad_check:
            raise BadRequest(finding.bad_check, path=path, remedy="correct it")

    async def close(self) -> None:
        """End the process."""
        async with self._turn:
            await self._kill()

    async def _started(self) -> asyncio.subprocess.Process:
        process = self._process
        if process is None or process.returncode is not None:
            process = self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "broker.verify.child"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={"PYTHONPATH": ":".join(p for p in sys.path if p), "PATH": ""},
            )
            async with asyncio.timeout(_START_S):
                await _asked(process, _encode(Task()))
        return process

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        if process.stdin is not None:
            process.stdin.close()


async def _asked(process: asyncio.subprocess.Process, packed: bytes) -> Finding:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(len(packed).to_bytes(4, "big") + packed)
    await process.stdin.drain()
    head = await process.stdout.readexactly(4)
    return _findings.decode(await process.stdout.readexactly(int.from_bytes(head, "big")))
