"""Reading the log: explicit offsets, a group or a fixed assignment, and never a foreign log's data.

A fixed assignment (no group) is for readers of everything, such as a gateway following quotes; a
group shares partitions among processes. Offsets are never committed by themselves: `commit` is
called with what has been dealt with.

On a volatile log each poll that brought messages is followed by a look at the log's incarnation
(see `incarnation`), and `LogChanged` is raised instead of handing over what another log sent.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, Self

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition

from feeds.errors import LogChanged
from feeds.groups import group_on
from feeds.incarnation import LogWatch
from feeds.kafka import KafkaSettings, Partition, ensure_topics, log_errors
from feeds.topics import Topic

_IDLE_LOOK_NS = 1_000_000_000
_STOP_S = 3.0

logger = logging.getLogger(__name__)


class RawMessage(Protocol):
    """What a poll yields (aiokafka's own object, not copied). `timestamp` is ms since the epoch."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...


class Rebalanced(Protocol):
    """Told of a group's rebalances in aiokafka's own task, which swallows what it raises."""

    async def on_assigned(self, partitions: frozenset[Partition]) -> None: ...

    async def on_revoked(self, partitions: frozenset[Partition]) -> None: ...


class LogConsumer:
    """A consumer of one incarnation of the log; after `LogChanged`, close it and start another.

    Parameters
    ----------
    settings : KafkaSettings
    topics : topics to read
    group : consumer group; None reads all partitions of all topics, from their beginning
    rebalanced : told of assignments (with a group only)

    Attributes
    ----------
    log : the incarnation read from
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topics: Sequence[Topic],
        *,
        group: str | None = None,
        rebalanced: Rebalanced | None = None,
    ) -> None:
        self._settings = settings
        self._topics = list(topics)
        self._group = group
        self._listener = _Listener(self, rebalanced)
        self._watch = LogWatch(settings)
        self._consumer: AIOKafkaConsumer | None = None
        self._looked_ns = 0
        self.generation = 0
        self.log = ""

    async def start(self) -> None:
        """Connect, make missing topics, join the group (seconds) or take all partitions.

        Raises
        ------
        LogUnavailable, LogRefused
        """
        settings = self._settings
        self.log = await self._watch.current()
        await ensure_topics(settings, self._topics)
        consumer = AIOKafkaConsumer(
            **settings.client_options(),
            group_id=self._group_of_this_log(),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=settings.fetch_max_wait_ms,
            max_partition_fetch_bytes=settings.fetch_partition_bytes,
            session_timeout_ms=settings.session_timeout_ms,
            heartbeat_interval_ms=max(settings.session_timeout_ms // 5, 100),
            rebalance_timeout_ms=settings.rebalance_timeout_ms,
            max_poll_interval_ms=max(300_000, settings.rebalance_timeout_ms),
        )
        if self._group is not None:
            consumer.subscribe([t.name for t in self._topics], listener=self._listener)
        self._consumer = consumer
        with log_errors(f"joining {self._group or 'the log'} at {settings.bootstrap}"):
            try:
                await consumer.start()
            except BaseException:
                self._consumer = None
                await _stop(consumer)
                raise
        if self._group is None:
            consumer.assign(self._all_partitions())

    def _group_of_this_log(self) -> str | None:
        return None if self._group is None else group_on(self._settings, self._group, self.log)

    def _all_partitions(self) -> list[Any]:
        # aiokafka insists on its own class here, and takes any equal tuple elsewhere.
        return [
            _native(Partition(t.name, p))
            for t in self._topics
            for p in range(self._settings.partitions_of(t))
        ]

    @property
    def assignment(self) -> frozenset[Partition]:
        """The partitions this consumer reads now."""
        return frozenset(Partition(*p) for p in self._open.assignment())

    async def poll(
        self, *, timeout_ms: int, max_messages: int | None = None
    ) -> dict[Partition, list[RawMessage]]:
        """Messages that came within the timeout, by partition and in order; may be none.

        Raises
        ------
        LogChanged
            The log was replaced. What this poll had fetched is of doubtful origin and dropped.
        LogUnavailable
            What was fetched cannot be vouched for now. Nothing is lost: the next poll looks again.
        """
        consumer = self._open
        with log_errors("reading"):
            fetched = await consumer.getmany(timeout_ms=timeout_ms, max_records=max_messages)
        generation = self.generation
        if self._settings.volatile and (fetched or self._is_look_due()):
            try:
                await self._look_after()
            except BaseException:
                self._rewind(fetched)
                raise
        if generation != self.generation:
            return {}  # a rebalance came in between: these partitions were given out anew
        return {Partition(*p): messages for p, messages in fetched.items()}

    def seek(self, partition: Partition, offset: int) -> None:
        """Read `partition` from `offset` on; nothing where a rebalance has just taken it away."""
        if partition in self._open.assignment():
            self._open.seek(_native(partition), offset)

    def pause(self, partitions: Iterable[Partition]) -> None:
        """Fetch nothing from these until `resume`; polling goes on."""
        mine = self._open.assignment()
        self._open.pause(*(_native(p) for p in partitions if p in mine))

    def resume(self, partitions: Iterable[Partition]) -> None:
        mine = self._open.assignment()
        self._open.resume(*(_native(p) for p in partitions if p in mine))

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Tell the group the next offset to read per partition.

        Raises
        ------
        LogUnavailable
            Among others when the partitions have been given to someone else, and when it took
            longer than a session: where a topic is gone, the client itself would try for ever.
        """
        if not offsets:
            return
        with log_errors("committing"):
            async with asyncio.timeout(self._settings.session_timeout_ms / 1e3):
                await self._open.commit({_native(p): offset for p, offset in offsets.items()})

    async def committed(self, partition: Partition) -> int | None:
        """The group's committed next offset, None if there is none."""
        with log_errors("reading committed offsets"):
            offset = await self._open.committed(_native(partition))
        return None if offset is None else int(offset)

    async def spans(self, partitions: Iterable[Partition]) -> dict[Partition, tuple[int, int]]:
        """First offset there is and next offset to be written, per partition."""
        wanted = [_native(p) for p in partitions]
        if not wanted:
            return {}
        with log_errors("reading offsets"):
            first = await self._open.beginning_offsets(wanted)
            end = await self._open.end_offsets(wanted)
            if self._settings.volatile:
                end |= await self._ends_by_fetching({p: e - 1 for p, e in end.items() if e > 0})
        return {Partition(*p): (first[p], end[p]) for p in wanted}

    async def _ends_by_fetching(self, last: Mapping[Any, int]) -> dict[Any, int]:
        """The true ends on Tansu, whose ListOffsets answers 1 after the last *batch's* first offset
        (measured: 101 for two batches of 100). The high watermark of a fetch is right.
        """
        if not last:
            return {}
        scout = AIOKafkaConsumer(**self._settings.client_options(), fetch_max_wait_ms=1)
        try:
            await scout.start()
            scout.assign(list(last))
            for partition, offset in last.items():
                scout.seek(partition, offset)
            async with asyncio.timeout(self._settings.request_timeout_ms / 1e3):
                while any(scout.highwater(p) is None for p in last):
                    await scout.getmany(timeout_ms=20)
            return {p: scout.highwater(p) for p in last}
        finally:
            await _stop(scout)

    async def close(self) -> None:
        """Leave the group and close. Harmless when never started."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await _stop(consumer)
        await self._watch.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def _open(self) -> AIOKafkaConsumer:
        assert self._consumer is not None, "not started"
        return self._consumer

    def _is_look_due(self) -> bool:
        return time.monotonic_ns() - self._looked_ns > _IDLE_LOOK_NS

    async def _look_after(self) -> None:
        log = await self._watch.current()
        self._looked_ns = time.monotonic_ns()
        if log != self.log:
            raise LogChanged(log, was=self.log)

    def _rewind(self, fetched: Mapping[Any, Sequence[RawMessage]]) -> None:
        mine = self._open.assignment()
        for partition, messages in fetched.items():
            if partition in mine:
                self._open.seek(partition, messages[0].offset)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Counts generations, and hands rebalances on in our own types."""

    def __init__(self, consumer: LogConsumer, rebalanced: Rebalanced | None) -> None:
        self._consumer = consumer
        self._rebalanced = rebalanced

    async def on_partitions_revoked(self, revoked: Iterable[tuple[str, int]]) -> None:
        self._consumer.generation += 1
        if self._rebalanced is not None:
            await self._rebalanced.on_revoked(frozenset(Partition(*p) for p in revoked))

    async def on_partitions_assigned(self, assigned: Iterable[tuple[str, int]]) -> None:
        if self._rebalanced is not None:
            await self._rebalanced.on_assigned(frozenset(Partition(*p) for p in assigned))
        self._consumer.generation += 1


def _native(partition: Partition) -> Any:
    return TopicPartition(*partition)


async def _stop(consumer: AIOKafkaConsumer) -> None:
    """Stop, within seconds and to the end.

    aiokafka's own stop() waits for a silent broker as long as any request, and lets the
    cancellation of its inner tasks out (of one that never ran, of one that backs off), which would
    look like ours and leave its connections open.
    """
    stopping = asyncio.create_task(consumer.stop())
    await asyncio.wait([stopping], timeout=_STOP_S)
    if not stopping.done() or stopping.cancelled():
        await consumer._client.close()
        await asyncio.wait([stopping])
    if not stopping.cancelled() and (error := stopping.exception()) is not None:
        logger.info("closing: %r", error)
