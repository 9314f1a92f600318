"""The log killed, frozen, slow, cut and replaced under a spool and its readers: rows 29-31 and 33.

Each test has a log of its own. *Once* means: as a reader sees it that drops repeats.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from broker.embedded.child import free_port
from broker.embedded.tansu import Tansu, _binary
from feeds.batch import BatchSettings
from feeds.compacted import Follower
from feeds.consumer import LogConsumer
from feeds.errors import LogUnavailable
from feeds.incarnation import incarnation
from feeds.kafka import KafkaSettings
from feeds.pipeline import PipelineSettings
from feeds.producer import LogProducer
from feeds.spool import Spool, SpoolSettings
from feeds.topics import FEEDBACK, PARAMS
from tests.fakes.log_rig import Line, Memory, Running, feedback, params, quick_groups, until

ROOT = Path(__file__).resolve().parents[2]
QUICK = PipelineSettings(
    batch=BatchSettings(max_wait_ms=0), poll_ms=20, commit_every_s=0.05, max_backoff_s=0.1
)


@asynccontextmanager
async def spool_to(settings: KafkaSettings, path: Path) -> AsyncIterator[Spool]:
    producer = LogProducer(settings)
    spool = Spool(SpoolSettings(path=str(path / "spool.sqlite")), producer, gateway="g")
    await spool.start()
    try:
        yield spool
    finally:
        await spool.close(timeout_s=1)
        await producer.close()


@asynccontextmanager
async def traffic(spool: Spool) -> AsyncIterator[list[float]]:
    """Puts some 1,500 records a second; the milliseconds each group of ten took to put."""
    took_ms: list[float] = []
    n = 0

    async def run() -> None:
        nonlocal n
        while True:
            began = time.perf_counter()
            for _ in range(10):
                spool.put(FEEDBACK, feedback(n))
                n += 1
            took_ms.append((time.perf_counter() - began) * 1e3)
            await asyncio.sleep(0.006)

    task = asyncio.create_task(run())
    try:
        yield took_ms
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def tansu_behind_a_line() -> AsyncIterator[tuple[Line, KafkaSettings]]:
    """A log whose clients all go through a line of ours: it is told to advertise that."""
    inside, outside = free_port("127.0.0.1"), free_port("127.0.0.1")
    process = await asyncio.create_subprocess_exec(
        *(str(_binary()), "broker", "--storage-engine", "memory://tansu/"),
        *("--listener-url", f"tcp://127.0.0.1:{inside}"),
        *("--advertised-listener-url", f"tcp://127.0.0.1:{outside}"),
        *("--cluster-id", f"test-{inside}"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    line = Line(inside)
    line.port = outside
    settings = KafkaSettings.embedded(f"127.0.0.1:{outside}", request_timeout_ms=10_000)
    try:
        async with line:
            async with asyncio.timeout(20):
                while True:
                    with suppress(LogUnavailable):
                        await incarnation(settings)
                        break
                    await asyncio.sleep(0.02)
            yield line, settings
    finally:
        process.kill()
        await process.wait()


def assert_unhurried(took_ms: list[float]) -> None:
    """Ten puts are some 20 µs of work; the median cannot be moved by a busy machine."""
    assert sorted(took_ms)[len(took_ms) // 2] < 0.5


async def test_a_killed_log_costs_the_writers_nothing_and_a_new_one_gets_every_record(
    tmp_path: Path,
) -> None:
    """Rows 29 and 31: kill -9 in mid-stream; offsets start at 0 again."""
    async with Tansu() as log:
        settings = KafkaSettings.embedded(log.bootstrap)
        step = Memory()
        async with (
            spool_to(settings, tmp_path) as spool,
            Running(settings, FEEDBACK, step, settings=QUICK) as running,
        ):
            async with traffic(spool) as took_ms:
                await running.until(lambda: len(step.numbers) > 1_000)
                os.kill(log.pid, signal.SIGKILL)
                await until(lambda: spool.stats.n_disk > 500)
                n_at_death = max(step.numbers)
                await log.stop()
                await log.start()
                await running.until(lambda: len(step.numbers) > 6_000)
            assert await spool.flush(20)
            n = spool.stats.n_put
            await running.until(lambda: max(step.numbers) == n - 1)
            stats = spool.stats
            assert (stats.n_dropped, stats.n_refused, stats.n_delivered) == (0, 0, n)
            assert running.pipeline.stats.n_log_changes == 1
        assert_unhurried(took_ms)
        numbers = step.numbers
        assert len(set(numbers)) == len(numbers), "none twice, although some were sent to both logs"
        # A log in memory takes with it what it had acknowledged and nobody had read yet.
        lost = set(range(n)) - set(numbers)
        assert len(lost) < 200
        assert all(n_at_death - 200 < i < n_at_death + 400 for i in lost)
        new = [b for b in step.batches if b.log == log.incarnation]
        assert min(b.first_offset for b in new) == 0, "the new log is read from its beginning"


async def test_a_log_that_goes_while_all_is_read_loses_nothing(tmp_path: Path) -> None:
    """The orderly case, as when the embedded log is recycled: readers drained first."""
    async with Tansu() as log:
        settings = quick_groups(log.bootstrap)
        step = Memory()
        async with (
            spool_to(settings, tmp_path) as spool,
            Running(settings, FEEDBACK, step, settings=QUICK, group="g") as running,
        ):
            for round_ in range(1, 4):
                for i in range((round_ - 1) * 500, round_ * 500):
                    spool.put(FEEDBACK, feedback(i))
                assert await spool.flush(20)
                await running.until(lambda n=round_ * 500: len(step.numbers) == n)
                await log.restart()
            assert sorted(step.numbers) == list(range(1_500))
            assert len({b.log for b in step.batches}) == 3


async def test_a_commit_to_a_topic_that_is_gone_ends() -> None:
    """As after a log was replaced and before anybody has made its topics anew."""
    async with Tansu() as log:
        settings = quick_groups(log.bootstrap)
        consumer = LogConsumer(settings, [FEEDBACK], group="g")
        admin = AIOKafkaAdminClient(**settings.client_options())
        async with consumer:
            await until(lambda: consumer.assignment)
            await admin.start()
            await admin.delete_topics([FEEDBACK.name])
            with pytest.raises(LogUnavailable, match="committing"):
                async with asyncio.timeout(10 * settings.session_timeout_ms / 1e3):
                    await consumer.commit(dict.fromkeys(consumer.assignment, 1))
            await admin.close()


async def test_a_frozen_log(tmp_path: Path) -> None:
    """Row 30: SIGSTOP. Connections stay open and nothing answers."""
    async with Tansu() as log:
        settings = KafkaSettings.embedded(log.bootstrap, request_timeout_ms=1_500)
        step = Memory()
        async with (
            spool_to(settings, tmp_path) as spool,
            Running(settings, FEEDBACK, step, settings=QUICK) as running,
        ):
            async with traffic(spool) as took_ms:
                await running.until(lambda: len(step.numbers) > 500)
                rss = psutil.Process().memory_info().rss
                os.kill(log.pid, signal.SIGSTOP)
                try:
                    # Past the request's timeout, so that it is given up and sent again.
                    await until(lambda: spool.stats.n_disk > 3_000 and spool.stats.n_send_failures)
                    assert psutil.Process().memory_info().rss - rss < 64 * 1024 * 1024
                    assert spool.stats.memory_bytes < 1024 * 1024
                    assert spool.stats.connected == 0
                finally:
                    os.kill(log.pid, signal.SIGCONT)
                await running.until(lambda: len(step.numbers) > 8_000)
            assert await spool.flush(30)
            n = spool.stats.n_put
            await running.until(lambda: len(step.numbers) >= n)
            assert spool.stats.n_dropped == 0
        assert_unhurried(took_ms)
        assert sorted(step.numbers) == list(range(n))


async def test_a_slow_log(tmp_path: Path) -> None:
    """Row 30: every answer takes a second; nothing times out, so nothing is sent twice."""
    async with tansu_behind_a_line() as (line, settings):
        step = Memory()
        async with spool_to(settings, tmp_path) as spool:
            async with traffic(spool) as took_ms:
                await until(lambda: spool.stats.n_delivered > 500)
                line.delay_s = 1.0
                n_before = spool.stats.n_delivered
                await until(lambda: spool.stats.n_delivered > n_before + 3_000)
                line.delay_s = 0.0
                await until(lambda: spool.stats.n_disk == 0)
            assert await spool.flush(30)
            n = spool.stats.n_put
            async with Running(settings, FEEDBACK, step, settings=QUICK) as running:
                await running.until(lambda: len(step.numbers) >= n)
                assert running.pipeline.stats.n_repeated == 0
        assert_unhurried(took_ms)
        assert sorted(step.numbers) == list(range(n))


async def test_a_line_that_is_cut_after_the_log_took_the_records(tmp_path: Path) -> None:
    """Acknowledgements are lost, records are sent again, readers see them once."""
    async with tansu_behind_a_line() as (line, settings):
        step = Memory()
        async with spool_to(settings, tmp_path) as spool:
            async with traffic(spool):
                for round_ in range(1, 6):
                    await until(lambda n=round_ * 800: spool.stats.n_put > n)
                    dropped = line.n_answers_dropped
                    line.drop_answers = True
                    await until(lambda n=dropped: line.n_answers_dropped > n)
                    line.drop_answers = False
            assert await spool.flush(30)
            n = spool.stats.n_put
            async with Running(settings, FEEDBACK, step, settings=QUICK) as running:
                await running.until(lambda: len(step.numbers) >= n)
        assert sorted(step.numbers) == list(range(n))


async def test_readers_ride_out_a_line_that_is_cut_again_and_again() -> None:
    async with (
        tansu_behind_a_line() as (line, settings),
        LogProducer(settings) as producer,
    ):
        step, versions = Memory(), []
        follower = Follower(settings, [PARAMS], lambda _k, r, _p: versions.append(r.version))
        following = asyncio.create_task(follower.run())
        async with Running(settings, FEEDBACK, step, settings=QUICK, group="g") as running:
            for i in range(0, 600, 100):
                delivered = False
                while not delivered:
                    with suppress(LogUnavailable):
                        records = [feedback(n, boot="b", seq=n + 1) for n in range(i, i + 100)]
                        await producer.publish(FEEDBACK, records)
                        await producer.publish(PARAMS, [params(i)])
                        delivered = True
                await running.until(lambda n=i: len(step.numbers) >= n + 100)
                line.cut()
            await until(lambda: versions and versions[-1] == 500)
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
        assert sorted(step.numbers) == list(range(600))
        assert versions == sorted(versions)


READER = """
import asyncio, sys
from feeds.batch import BatchSettings
from feeds.pipeline import PipelineSettings
from feeds.topics import FEEDBACK
from tests.fakes.log_rig import Memory, Running, number, quick_groups

class Speaking(Memory):
    async def take(self, batch):
        await super().take(batch)
        print(*[number(r) for r in batch.records], flush=True)

async def main():
    settings = PipelineSettings(
        batch=BatchSettings(max_records=20, max_wait_ms=0), poll_ms=20, commit_every_s=0.05
    )
    kafka = quick_groups(sys.argv[1])
    async with Running(kafka, FEEDBACK, Speaking(), group="zombies", settings=settings) as running:
        await running.task

asyncio.run(main())
"""


@pytest.mark.slow
async def test_a_zombie_that_wakes_begins_nothing_with_what_is_no_longer_its_own() -> None:
    """Row 33: SIGSTOP past the session timeout, partitions move, SIGCONT."""
    async with Tansu() as log:
        settings = quick_groups(log.bootstrap)
        async with LogProducer(settings) as producer:
            await producer.publish(FEEDBACK, [feedback(i) for i in range(2_000)])
            zombie = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", READER, log.bootstrap),
                cwd=ROOT,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            assert zombie.stdout is not None
            said: list[int] = []

            async def listen() -> None:
                assert zombie.stdout is not None
                while line := await zombie.stdout.readline():
                    said.extend(map(int, line.split()))

            listening = asyncio.create_task(listen())
            try:
                await until(lambda: len(said) >= 2_000)
                step = Memory()
                async with Running(
                    settings, FEEDBACK, step, group="zombies", settings=QUICK
                ) as heir:
                    await heir.until(lambda: step.assigned)
                    zombie.send_signal(signal.SIGSTOP)
                    await heir.until(lambda: len(heir.pipeline.next_offsets) == FEEDBACK.partitions)
                    await producer.publish(FEEDBACK, [feedback(i) for i in range(2_000, 3_000)])
                    await heir.until(lambda: {*said, *step.numbers} >= set(range(3_000)))
                    zombie.send_signal(signal.SIGCONT)
                    await heir.until(lambda: heir.pipeline.stats.n_rebalances >= 3)
                    await producer.publish(FEEDBACK, [feedback(i) for i in range(3_000, 4_000)])
                    await heir.until(lambda: {*said, *step.numbers} >= set(range(4_000)))
            finally:
                zombie.kill()
                await zombie.wait()
                await listening
        everything = said + step.numbers
        assert sorted(everything) == list(range(4_000))
