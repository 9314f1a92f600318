"""Writers share the hold, who replaces the log has it alone, and death lets go of it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from feeds.hold import LogHold

WRITER = """
import asyncio, sys
from feeds.hold import LogHold

async def main():
    async with LogHold(sys.argv[1]).writing():
        print("writing", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_writers_write_side_by_side(tmp_path: Path) -> None:
    path = str(tmp_path / "hold")
    async with asyncio.timeout(5), LogHold(path).writing(), LogHold(path).writing():
        pass


async def test_nobody_writes_while_it_is_held_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "hold")
    written = asyncio.Event()

    async def write() -> None:
        async with LogHold(path).writing():
            written.set()

    async with LogHold(path).alone(5):
        writer = asyncio.create_task(write())
        await asyncio.sleep(0.1)
        assert not written.is_set()
    await asyncio.wait_for(writer, 5)
    assert written.is_set()


async def test_a_stream_of_writers_does_not_keep_the_replacer_out(tmp_path: Path) -> None:
    path = str(tmp_path / "hold")
    stop = asyncio.Event()

    async def write() -> None:
        hold = LogHold(path)
        while not stop.is_set():
            async with hold.writing():
                await asyncio.sleep(0.02)

    writers = [asyncio.create_task(write()) for _ in range(8)]
    await asyncio.sleep(0.05)
    async with LogHold(path).alone(5):
        pass
    stop.set()
    await asyncio.gather(*writers)


async def test_a_delivery_that_does_not_end_is_waited_for_so_long(tmp_path: Path) -> None:
    path = str(tmp_path / "hold")
    async with LogHold(path).writing():
        with pytest.raises(TimeoutError):
            async with LogHold(path).alone(0.1):
                pass
        async with asyncio.timeout(5), LogHold(path).writing():
            pass  # having given up, the replacer keeps nobody out


async def test_a_killed_writer_holds_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "hold")
    writer = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WRITER, path), stdout=asyncio.subprocess.PIPE
    )
    assert writer.stdout is not None
    assert await writer.stdout.readline() == b"writing\n"
    with pytest.raises(TimeoutError):
        async with LogHold(path).alone(0.1):
            pass
    writer.kill()
    async with LogHold(path).alone(5):
        pass
    await writer.wait()


async def test_without_a_file_nothing_is_held() -> None:
    async with asyncio.timeout(5), LogHold("").writing(), LogHold("").writing():
        pass
