"""One child process: spawned with a bare environment, watched, stopped, and never left behind.

Shared by the log and the store. The child gets only the variables named for it, so that nothing
read inside it (``file('/proc/self/environ')``) shows a secret of ours. What it prints goes to
an unnamed file, which cannot block it and whose tail explains a failed start.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from broker.embedded.errors import NotRunning

_TAIL_BYTES = 4096


class Child:
    """A running child process and what it has printed.

    Parameters
    ----------
    process : the spawned process
    output : file that receives its standard error (and output, unless that is a pipe)
    held : closes that file
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        output: IO[bytes],
        held: contextlib.ExitStack,
    ) -> None:
        self._process = process
        self._output = output
        self._held = held

    @classmethod
    async def spawn(
        cls,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path | None = None,
        pipes: bool = False,
    ) -> Child:
        """Start `argv` with exactly the variables in `env`; `pipes`: stdin and stdout are ours."""
        pipe = asyncio.subprocess.PIPE
        with contextlib.ExitStack() as held:
            output = held.enter_context(tempfile.TemporaryFile())
            process = await asyncio.create_subprocess_exec(
                *argv,
                env=dict(env),
                cwd=cwd,
                stdin=pipe if pipes else asyncio.subprocess.DEVNULL,
                stdout=pipe if pipes else output,
                stderr=output,
                start_new_session=True,  # a Ctrl-C in our terminal is for us: we stop it in order
            )
            return cls(process, output, held.pop_all())

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def stdin(self) -> asyncio.StreamWriter:
        if self._process.stdin is None:
            raise NotRunning("this child was spawned without pipes")
        return self._process.stdin

    @property
    def stdout(self) -> asyncio.StreamReader:
        if self._process.stdout is None:
            raise NotRunning("this child was spawned without pipes")
        return self._process.stdout

    @property
    def returncode(self) -> int | None:
        """Exit code once it has ended (negative: the signal), None while it runs."""
        return self._process.returncode

    async def wait(self) -> int:
        """Wait for its end; the exit code."""
        return await self._process.wait()

    def rss_bytes(self) -> int:
        """Resident memory now, from ``/proc`` (Linux)."""
        try:
            fields = Path(f"/proc/{self.pid}/statm").read_text().split()
        except OSError as error:
            raise NotRunning(f"process {self.pid} has ended") from error
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    def tail(self) -> str:
        """The last it printed."""
        end = self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, end - _TAIL_BYTES))
        return self._output.read().decode(errors="replace").strip()

    async def end(self, *, grace_s: float) -> int:
        """Ask it to end (SIGTERM), insist after `grace_s` (SIGKILL), reap it; the exit code."""
        if self.returncode is None and grace_s > 0:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), grace_s)
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        code = await self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
            with contextlib.suppress(ConnectionError):
                await self._process.stdin.wait_closed()
        self._held.close()
        return code


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port nobody listens on now. Another process may take it first: callers try again."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
