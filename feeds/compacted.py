"""Compacted topics read whole, then followed: how quotes, skills, params and keys reach a gateway.

There is no group: every reader reads every partition from the beginning and keeps the newest
record of each key, so it can be killed, and the log replaced, without anything to restore. When
the log changes, reading starts over and what was known stays until it is replaced.

A log that does not compact (the embedded one) holds each key many times over; within a poll only
the last message of a key is decoded.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

from msgspec import Struct

from bidding.quote import Position
from feeds.codec import Record, decode
from feeds.consumer import LogConsumer, RawMessage
from feeds.errors import BadRecord, LogUnavailable
from feeds.kafka import KafkaSettings, Partition
from feeds.topics import Topic

_POLL_MS = 250
_BACKOFF_S = (0.05, 0.1, 0.25, 0.5, 1.0)

logger = logging.getLogger(__name__)

OnRecord = Callable[[str, "Record | None", Position], None]


class FollowerStats(Struct):
    """Plain counters for metrics. `connected` is 1 while the log answers."""

    n_records: int = 0
    n_superseded: int = 0
    n_bad: int = 0
    n_restarts: int = 0
    connected: int = 0


class Follower:
    """Follows topics from their beginning until cancelled.

    Parameters
    ----------
    settings : KafkaSettings
    topics : topics to follow together
    on_record : called in order per partition with key, record (None: the key was deleted) and
        position. Synchronous and quick; what it raises ends the follower
    on_start : called with the log's incarnation whenever reading begins at the beginning

    Attributes
    ----------
    caught_up : set once everything that was on the log at the start has been handed over
    stats : FollowerStats
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topics: Sequence[Topic],
        on_record: OnRecord,
        *,
        on_start: Callable[[str], None] | None = None,
    ) -> None:
        self._settings = settings
        self._topics = list(topics)
        self._on_record = on_record
        self._on_start = on_start
        self.caught_up = asyncio.Event()
        self.stats = FollowerStats()

    async def run(self) -> None:
        """Follow until cancelled; an absent log is waited for.

        Raises
        ------
        LogRefused
            Wrong rights or settings.
        """
        n_failures = 0
        while True:
            consumer = LogConsumer(self._settings, self._topics)
            try:
                await consumer.start()
                n_failures = 0
                self.stats.connected = 1
                if self._on_start is not None:
                    self._on_start(consumer.log)
                await self.read(consumer)
            except LogUnavailable as error:
                logger.warning("reading again from the beginning: %s", error)
            finally:
                self.stats.connected = 0
                with suppress(LogUnavailable):
                    await consumer.close()
            self.stats.n_restarts += 1
            await asyncio.sleep(_BACKOFF_S[min(n_failures, len(_BACKOFF_S) - 1)])
            n_failures += 1

    async def read(self, consumer: LogConsumer, *, to_end: bool = False) -> None:
        """Hand over what a started consumer reads: up to what is there now, or for ever."""
        spans = await consumer.spans(consumer.assignment)
        behind = {p: end for p, (begin, end) in spans.items() if begin < end}
        while True:
            if not behind:
                self.caught_up.set()
                if to_end:
                    return
            for partition, messages in (await consumer.poll(timeout_ms=_POLL_MS)).items():
                self._hand_over(consumer.log, partition, messages)
                if messages[-1].offset + 1 >= behind.get(partition, 0):
                    behind.pop(partition, None)

    def _hand_over(self, log: str, partition: Partition, messages: list[RawMessage]) -> None:
        newest = {m.key: m for m in messages}
        self.stats.n_superseded += len(messages) - len(newest)
        for message in sorted(newest.values(), key=lambda m: m.offset):
            try:
                record = None if message.value is None else decode(message.value)
            except BadRecord as error:
                # The recorder reads this topic too and writes the dead letter.
                self.stats.n_bad += 1
                logger.warning("%s/%d at %d: %s", *partition, message.offset, error)
                continue
            self.stats.n_records += 1
            key = (message.key or b"").decode(errors="replace")
            self._on_record(key, record, Position(log, *partition, message.offset))


async def latest(settings: KafkaSettings, topic: Topic) -> dict[str, tuple[Record, Position]]:
    """The newest record of every key of `topic`, as of now.

    Raises
    ------
    LogUnavailable
        The log does not answer, or was replaced meanwhile.
    """
    found: dict[str, tuple[Record, Position]] = {}

    def take(key: str, record: Record | None, position: Position) -> None:
        if record is None:
            found.pop(key, None)
        else:
            found[key] = (record, position)

    async with LogConsumer(settings, [topic]) as consumer:
        await Follower(settings, [topic], take).read(consumer, to_end=True)
    return found
