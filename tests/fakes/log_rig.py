"""What the log's tests share: records to write, a step that remembers, a slow and a broken line."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from msgspec.structs import replace

from feeds import topics
from feeds.batch import Batch
from feeds.clock import SystemClock
from feeds.control_records import ParamsRecord
from feeds.dead_letter import DeadLetters, DeadLetterSettings
from feeds.errors import LogRefused, LogUnavailable
from feeds.kafka import KafkaSettings, Message, Partition
from feeds.pipeline import Pipeline, PipelineSettings, Span, Start
from feeds.producer import Delivery, LogProducer
from feeds.records import DeadRecord, FeedbackRecord
from feeds.topics import Topic

APACHE_KAFKA = os.environ.get("BROKER_TEST_KAFKA", "")
DEADLINE_S = 30.0


def quick_groups(bootstrap: str, **changes: Any) -> KafkaSettings:
    """The embedded log's settings with groups that settle in half a second instead of 1.5.

    For tests of the log alone: a process that also estimates may stand still for longer than such
    a session on a busy machine, and would then join its group again and again.
    """
    return KafkaSettings.embedded(bootstrap, **{"session_timeout_ms": 1_000, **changes})


def fresh(topic: Topic = topics.FEEDBACK) -> Topic:
    """A topic like `topic`, of a name nobody else uses."""
    return replace(topic, name=f"{topic.name}-{uuid.uuid4().hex[:12]}")


def feedback(i: int, *, task: str = "", boot: str = "", seq: int = 0) -> FeedbackRecord:
    """A record with a number; unstamped unless told."""
    return FeedbackRecord(
        feedback_id=str(i),
        decision_id="d",
        at_us=i,
        task=task or f"task-{i % 7}",
        tenant="t",
        sla_class="c",
        offer="p/m",
        model="m",
        quality=0.5,
        source="user",
        boot=boot,
        seq=seq,
    )


def number(record: object) -> int:
    assert isinstance(record, FeedbackRecord)
    return int(record.feedback_id)


def params(version: int, scope: str = "market") -> ParamsRecord:
    return ParamsRecord(scope=scope, version=version, at_us=version, by="t", why="t", params="{}")


async def until(holds: Callable[[], object], within_s: float = DEADLINE_S) -> None:
    """Wait for a condition, polling; fail when it does not come to hold."""
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end, "the condition did not come to hold in time"
        await asyncio.sleep(0.005)


class Memory:
    """A step that remembers everything, per log and partition, and can be made to wait or fail."""

    def __init__(self, starts: Mapping[Partition, Start] | None = None) -> None:
        self.starts = dict(starts or {})
        self.batches: list[Batch] = []
        self.assigned: list[tuple[str, dict[Partition, Span]]] = []
        self.revoked: list[frozenset[Partition]] = []
        self.in_take: set[Partition] = set()
        self.may_take = asyncio.Event()
        self.may_take.set()
        self.failures: list[Exception] = []
        self.n_calls = 0

    async def assign(self, log: str, spans: Mapping[Partition, Span]) -> Mapping[Partition, Start]:
        self.assigned.append((log, dict(spans)))
        return {p: s for p, s in self.starts.items() if p in spans}

    async def take(self, batch: Batch) -> None:
        self.n_calls += 1
        assert batch.partition not in self.in_take, "two batches of a partition at once"
        self.in_take.add(batch.partition)
        try:
            await self.may_take.wait()
            if self.failures:
                raise self.failures.pop(0)
            await asyncio.sleep(0)
            self.batches.append(batch)
        finally:
            self.in_take.discard(batch.partition)

    async def revoke(self, partitions: frozenset[Partition]) -> None:
        assert not (partitions & self.in_take), "revoked in the middle of a batch"
        self.revoked.append(partitions)

    @property
    def numbers(self) -> list[int]:
        """The records' numbers, in the order they were taken."""
        return [number(r) for b in self.batches for r in b.records]

    def per_partition(self) -> dict[tuple[str, Partition], list[int]]:
        """Offsets in the order they were taken, per log and partition."""
        found: dict[tuple[str, Partition], list[int]] = {}
        for batch in self.batches:
            found.setdefault((batch.log, batch.partition), []).extend(batch.offsets)
        return found


class Grave:
    """Takes dead letters."""

    def __init__(self) -> None:
        self.letters: list[DeadRecord] = []

    async def bury(self, dead: Sequence[DeadRecord]) -> None:
        self.letters += dead


class Running:
    """A pipeline on its way: `async with Running(...) as running`; ends in order."""

    def __init__(
        self,
        kafka: KafkaSettings,
        topic: Topic,
        step: Memory,
        *,
        group: str | None = None,
        settings: PipelineSettings | None = None,
        dead: DeadLetterSettings | None = None,
        recoverable: tuple[type[Exception], ...] = (),
    ) -> None:
        self.step = step
        self.grave = Grave()
        self.pipeline = Pipeline(
            kafka,
            [topic],
            step,
            dead_letters=DeadLetters(dead or DeadLetterSettings(), SystemClock()),
            bury=self.grave.bury,
            group=group,
            settings=settings,
            recoverable=recoverable,
        )
        self.task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Running:
        self.task = asyncio.create_task(self.pipeline.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.pipeline.stop()
        assert self.task is not None
        await self.task

    async def until(self, holds: Callable[[], object]) -> None:
        """Like `until`, and fails at once if the pipeline ends."""
        assert self.task is not None
        task = self.task

        def or_ended() -> object:
            if task.done():
                task.result()
            return holds()

        await until(or_ended)


async def write_raw(producer: LogProducer, topic: Topic, values: Sequence[bytes]) -> None:
    """Put bytes on the log as they are, all under one key."""
    delivery = await producer.deliver([Message(topic.name, b"k", v) for v in values])
    assert delivery.error is None, delivery.error


class Line:
    """A TCP line to the log that can be slow, silent or cut.

    Kafka's clients learn the broker's address from its answers, so the line rewrites nothing: it
    must be what the broker advertises. Use `KafkaSettings(bootstrap=...)` of a broker told so.
    """

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.delay_s = 0.0
        self.drop_answers = False
        self.n_answers_dropped = 0
        self.port = 0

    async def __aenter__(self) -> Line:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Close all connections now."""
        for writer in self._writers:
            writer.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._to_port)
        except OSError:
            writer.close()  # nobody there yet
            return
        self._writers |= {writer, back}
        for coroutine in (self._pump(reader, back, False), self._pump(there, writer, True)):
            task = asyncio.create_task(coroutine)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_answer: bool
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                if is_answer and self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if is_answer and self.drop_answers:
                    self.n_answers_dropped += 1
                    self.cut()
                    return
                writer.write(data)
                await writer.drain()
        writer.close()


class FakeLog:
    """A producer for the spool's tests: keeps what it is given, or fails as told.

    `lose_acks` takes messages and says it did not, once per number set.
    """

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.up = True
        self.lose_acks = 0
        self.refuse: Callable[[Message], bool] = lambda _: False
        self.before: Callable[[], Awaitable[None]] | None = None

    async def deliver(self, messages: Sequence[Message]) -> Delivery:
        if self.before is not None:
            await self.before()
        await asyncio.sleep(0)
        everything = list(range(len(messages)))
        if not self.up:
            return Delivery([], everything, [], LogUnavailable("down"))
        refused = [i for i in everything if self.refuse(messages[i])]
        self.messages += [m for i, m in enumerate(messages) if i not in refused]
        if self.lose_acks:
            self.lose_acks -= 1
            return Delivery([], [i for i in everything if i not in refused], refused, None)
        return Delivery([], [], refused, LogRefused("too large") if refused else None)
