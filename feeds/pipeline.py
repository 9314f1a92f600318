"""poll → decode → step → commit, for a step that must see every record once and in order.

Each partition has a `Lane`. Lanes run side by side; within one, nothing overtakes. A lane that
holds more than its bound is paused, so a step that stands still costs bounded memory, while
polling goes on and keeps the membership. On a rebalance what has begun is finished and committed,
and the rest is read again by whoever gets the partition. If the log was replaced, what waits is
finished as well, since nobody can read it again.

The step decides where reading begins (`Step.assign`), because it knows what it has stored. The
group's committed offset is only a hint for a step that does not.

A process that stood still past its session timeout (SIGSTOP, a sleeping laptop) has lost its
partitions without being told. It begins nothing more with what it holds, and joins anew.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Annotated, NamedTuple, Protocol

from msgspec import Meta, Struct, field

from feeds.batch import Batch, Batcher, BatchSettings
from feeds.codec import decode
from feeds.consumer import LogConsumer, RawMessage
from feeds.dead_letter import DeadLetters
from feeds.errors import BadRecord, LogChanged, LogUnavailable
from feeds.kafka import KafkaSettings, Partition
from feeds.lane import Bury, Lane, PipelineStats, Retry, Sleep
from feeds.repeats import LOOK_BACK_MESSAGES, Repeats
from feeds.topics import Topic

logger = logging.getLogger(__name__)


class Start(NamedTuple):
    """Where to begin in a partition: at `offset`; the first batch ends exactly at `through`."""

    offset: int
    through: int | None = None


class Span(NamedTuple):
    """What a partition holds: its first offset, and the next one to be written."""

    begin: int
    end: int


class Step(Protocol):
    """What is done with the records."""

    async def assign(self, log: str, spans: Mapping[Partition, Span]) -> Mapping[Partition, Start]:
        """These partitions of `log` are ours; say where to begin.

        Those not answered begin at the group's committed offset, or else at the beginning.
        """
        ...

    async def take(self, batch: Batch) -> None:
        """Deal with a batch. Returning means done: its offsets may be committed.

        Called for one batch of a partition at a time, for several partitions side by side. After
        a recoverable error it is called with the same batch again; any other ends the pipeline.
        """
        ...

    async def revoke(self, partitions: frozenset[Partition]) -> None:
        """These partitions are no longer ours, and no batch of theirs is in `take`.

        May name partitions whose `assign` was interrupted.
        """
        ...


class PipelineSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of the loop. A lane is paused above `max_lane_bytes` and resumed below half of it.

    `drain_s` is how long a rebalance waits for what has begun; keep it below Kafka's
    `rebalance_timeout_ms`.
    """

    batch: BatchSettings = field(default_factory=BatchSettings)
    max_lane_bytes: Annotated[int, Meta(ge=1)] = 16 * 1024 * 1024
    max_poll_messages: Annotated[int, Meta(ge=1)] = 20_000
    poll_ms: Annotated[int, Meta(ge=1)] = 50
    commit_every_s: Annotated[float, Meta(ge=0)] = 1.0
    drain_s: Annotated[float, Meta(ge=0)] = 20.0
    max_backoff_s: Annotated[float, Meta(gt=0)] = 5.0


class _Frozen(Exception):
    """This process stood still past its session timeout."""


class Pipeline:
    """The loop. Build it, `await run()`; `stop()` ends it in order.

    Parameters
    ----------
    kafka : KafkaSettings
    topics : topics to read
    step : Step
    dead_letters : DeadLetters
    bury : writes dead letters to the log; awaited before their offsets are committed
    group : consumer group; None reads all partitions of all topics
    recoverable : exceptions of the step that mean "try again", besides `LogUnavailable`
    settings : PipelineSettings
    sleep : `asyncio.sleep`, or a test's own

    Attributes
    ----------
    stats : PipelineStats
    log : the incarnation read now; empty before the first connection
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        topics: Sequence[Topic],
        step: Step,
        *,
        dead_letters: DeadLetters,
        bury: Bury,
        group: str | None = None,
        recoverable: tuple[type[Exception], ...] = (),
        settings: PipelineSettings | None = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._kafka = kafka
        self._topics = list(topics)
        self._step = step
        self._dead_letters = dead_letters
        self._bury = bury
        self._group = group
        self._settings = settings or PipelineSettings()
        self._sleep = sleep
        self._consumer: LogConsumer | None = None
        self._lanes: dict[Partition, Lane] = {}
        self._awaited: frozenset[Partition] = frozenset()
        self._preparing: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._alive_ns = 0
        self._carried: dict[Partition, Repeats] = {}
        self._failure: BaseException | None = None
        self.stats = PipelineStats()
        self.log = ""
        self._retry = Retry(
            (LogUnavailable, *recoverable),
            self._settings.max_backoff_s,
            sleep,
            self.stats,
            lambda error: logger.warning("trying again: %s", error),
        )

    @property
    def next_offsets(self) -> dict[Partition, int]:
        """Next offset per partition we hold: all before it are done."""
        return {p: lane.next_offset for p, lane in self._lanes.items()}

    def stop(self) -> None:
        """Finish what has begun, commit, leave the group; `run` then returns."""
        self._stopping.set()

    async def run(self) -> None:
        """Read until `stop`.

        Raises
        ------
        TooManyBad
            More is unreadable than can be the writers' fault.
        LogRefused
            Wrong rights or settings.
        Exception
            Whatever the step raised that is not recoverable. That batch is not committed.
        """
        n_failures = 0
        while not self._stopping.is_set():
            consumer = self._consumer = LogConsumer(
                self._kafka, self._topics, group=self._group, rebalanced=self
            )
            everything = False
            try:
                await consumer.start()
                self.log, n_failures = consumer.log, 0
                if self._group is None:
                    await self.on_assigned(consumer.assignment)
                async with self._pulse():
                    await self._read(consumer)
            except LogChanged as error:
                logger.warning("%s", error)
                self.stats.n_log_changes += 1
                # Writers send again what the old log may have handed us before it went.
                self._carried = {p: lane.repeats for p, lane in self._lanes.items()}
                everything = True
            except LogUnavailable as error:
                logger.warning("connecting again: %s", error)
            except _Frozen:
                logger.warning("this process stood still too long and joins its group again")
            finally:
                held = frozenset(self._lanes) | self._awaited
                await self._release(held, everything=everything)
                with suppress(LogUnavailable):
                    await consumer.close()
            self._raise_failure()
            if not self._stopping.is_set():
                await self._retry.pause(n_failures)
                n_failures += 1

    async def on_assigned(self, partitions: frozenset[Partition]) -> None:
        """A rebalance gave us these. The step is asked by the loop, not in the client's task."""
        self.stats.n_rebalances += 1
        self._awaited |= partitions

    async def on_revoked(self, partitions: frozenset[Partition]) -> None:
        """A rebalance takes these away; they go once what has begun is finished."""
        if partitions:
            await self._release(partitions, everything=False)

    def _raise_failure(self) -> None:
        """Raise what a lane ended with while it was being released, in the client's task."""
        if self._failure is not None:
            raise self._failure

    async def _read(self, consumer: LogConsumer) -> None:
        commit_every_ns = round(self._settings.commit_every_s * 1e9)
        committed_ns = time.monotonic_ns()
        while not self._stopping.is_set():
            self._raise_failure()
            if self._is_frozen():
                raise _Frozen
            self._prepare_awaited(consumer)
            fetched = await self._poll(consumer)
            now_ns = time.monotonic_ns()
            for partition, messages in fetched.items():
                lane = self._lanes.get(partition)
                if lane is not None:  # else it is being prepared, and sought after that
                    self._feed(lane, messages, now_ns)
            for lane in self._lanes.values():
                lane.check()
                if lane.is_idle:  # else what comes meanwhile goes with the next batch
                    lane.push(lane.batcher.due(now_ns))
            self._hold_back(consumer)
            if now_ns - committed_ns > commit_every_ns:
                committed_ns = now_ns
                await self._commit(consumer, list(self._lanes.values()))

    async def _poll(self, consumer: LogConsumer) -> dict[Partition, list[RawMessage]]:
        settings = self._settings
        try:
            return await consumer.poll(
                timeout_ms=settings.poll_ms, max_messages=settings.max_poll_messages
            )
        except LogChanged:
            raise
        except LogUnavailable as error:
            # The client connects again by itself; what it holds meanwhile stays valid.
            logger.debug("polling: %s", error)
            await self._sleep(settings.poll_ms / 1e3)
            return {}

    def _feed(self, lane: Lane, messages: Sequence[RawMessage], now_ns: int) -> None:
        add, partition, n_good = lane.batcher.add, lane.partition, 0
        for message in messages:
            offset = message.offset
            if offset < lane.expected:
                continue
            lane.expected = offset + 1
            if offset < lane.start:
                _look_back(lane, message)
                continue
            payload = message.value or b""
            at_us = message.timestamp * 1_000
            self.stats.n_bytes += len(payload)
            if message.value is None:  # a deletion: nothing to be stored, but read
                lane.push(add(offset, at_us, payload, now_ns))
                continue
            try:
                record = decode(payload)
            except BadRecord as error:
                self._dead_letters.good(partition, n_good)
                n_good = 0
                dead = self._dead_letters.bad(partition, offset, payload, str(error))
                self.stats.n_dead += 1
                lane.push(add(offset, at_us, payload, now_ns, dead=dead))
            else:
                n_good += 1
                if lane.repeats.is_repeat(record):
                    self.stats.n_repeated += 1
                    lane.push(add(offset, at_us, payload, now_ns))
                    continue
                self.stats.n_records += 1
                lane.push(add(offset, at_us, payload, now_ns, record=record))
        self._dead_letters.good(partition, n_good)
        self.stats.n_messages += len(messages)

    def _hold_back(self, consumer: LogConsumer) -> None:
        """Pause lanes that hold too much, resume those that do no longer."""
        bound = self._settings.max_lane_bytes
        for lane in self._lanes.values():
            if not lane.paused and lane.n_bytes > bound:
                lane.paused = True
                consumer.pause([lane.partition])
            elif lane.paused and lane.n_bytes <= bound // 2:
                lane.paused = False
                consumer.resume([lane.partition])
        self.stats.n_paused = sum(lane.paused for lane in self._lanes.values())

    def _prepare_awaited(self, consumer: LogConsumer) -> None:
        """Have newly assigned partitions prepared beside the loop, which must keep polling."""
        if self._preparing is not None:
            if not self._preparing.done():
                return
            self._preparing.result()
            self._preparing = None
        if self._awaited:
            self._preparing = asyncio.create_task(self._prepare(consumer, self._awaited))

    async def _prepare(self, consumer: LogConsumer, partitions: frozenset[Partition]) -> None:
        """Ask the step where to begin, and open the lanes. A rebalance cancels it."""
        starts, begins = await self._retry.call(lambda: self._starts(consumer, partitions))
        for partition, start in starts.items():
            look_from = max(begins[partition], start.offset - LOOK_BACK_MESSAGES)
            self._lanes[partition] = Lane(
                partition,
                Batcher(consumer.log, partition, self._settings.batch, through=start.through),
                start.offset,
                look_from=look_from,
                repeats=self._carried.pop(partition, Repeats()),
                take=self._step.take,
                bury=self._bury,
                may_begin=self._may_begin,
                retry=self._retry,
                stats=self.stats,
            )
            consumer.seek(partition, look_from)
        consumer.generation += 1  # what a poll under way holds was fetched before the seek
        self._awaited -= partitions

    async def _starts(
        self, consumer: LogConsumer, partitions: frozenset[Partition]
    ) -> tuple[dict[Partition, Start], dict[Partition, int]]:
        spans = {p: Span(*s) for p, s in (await consumer.spans(partitions)).items()}
        given = await self._step.assign(consumer.log, spans)
        starts = {}
        for partition, span in spans.items():
            start = given.get(partition)
            if start is None:
                committed = await consumer.committed(partition) if self._group else None
                start = Start(span.begin if committed is None else committed)
            offset = min(max(start.offset, span.begin), span.end)
            starts[partition] = Start(offset, start.through)
        return starts, {p: span.begin for p, span in spans.items()}

    @asynccontextmanager
    async def _pulse(self) -> AsyncIterator[None]:
        """Notice when this process stands still; a task of its own, as polling may take long."""

        async def beat() -> None:
            while not self._is_frozen():
                self._alive_ns = time.monotonic_ns()
                await asyncio.sleep(self._kafka.session_timeout_ms / 1e4)

        self._alive_ns = time.monotonic_ns()
        beating = asyncio.create_task(beat())
        try:
            yield
        finally:
            beating.cancel()
            await asyncio.wait([beating])

    def _is_frozen(self) -> bool:
        """Whether we stood still past the session timeout; it stays so until we joined anew."""
        session_ns = self._kafka.session_timeout_ms * 1_000_000
        return self._group is not None and time.monotonic_ns() - self._alive_ns > session_ns

    async def _may_begin(self) -> None:
        """Hold a lane back while this process may have lost its partitions without knowing."""
        while self._is_frozen():
            await self._sleep(self._settings.poll_ms / 1e3)

    async def _release(self, partitions: frozenset[Partition], *, everything: bool) -> None:
        """Give partitions up in order: finish, commit, tell the step."""
        consumer = self._consumer
        assert consumer is not None
        if self._preparing is not None:
            # It works on all awaited partitions; those we keep are prepared again.
            self._preparing.cancel()
            await asyncio.wait([self._preparing])
            self._preparing = None
        self._awaited -= partitions
        lanes = [self._lanes.pop(p) for p in partitions if p in self._lanes]
        within_s = None if everything and not self._stopping.is_set() else self._settings.drain_s
        if everything:
            self._alive_ns = sys.maxsize  # nobody else can read these, so nothing holds them back
        endings = (lane.finish(everything=everything, within_s=within_s) for lane in lanes)
        for error in await asyncio.gather(*endings):
            self._failure = self._failure or error
        if not everything:
            await self._commit(consumer, lanes)
        for partition in partitions:
            self._dead_letters.forget(partition)
        if partitions:
            await self._step.revoke(partitions)

    async def _commit(self, consumer: LogConsumer, lanes: Iterable[Lane]) -> None:
        if self._group is None:
            return
        moved = [lane for lane in lanes if lane.next_offset > lane.committed]
        offsets = {lane.partition: lane.next_offset for lane in moved}
        try:
            await consumer.commit(offsets)
        except LogUnavailable as error:
            # As a rule a rebalance. Whoever reads on asks the step, or repeats a little.
            self.stats.n_commit_failures += 1
            logger.info("not committed: %s", error)
            return
        for lane in moved:
            lane.committed = offsets[lane.partition]


def _look_back(lane: Lane, message: RawMessage) -> None:
    """Learn from a message before the lane's start what would be a repeat."""
    if message.value is not None:
        with suppress(BadRecord):
            lane.repeats.is_repeat(decode(message.value))
