"""Writing to the log: in order within a partition, acknowledged by all replicas, or told so.

`deliver` is for the spool: many messages, no exception, and what is still owed handed back in
order. `publish` is for everyone else: a few records, their positions, or an error.

aiokafka's `send` costs 35 µs a message, mostly futures; its batches 2.3 µs (measured). So we
partition and batch ourselves, one batch in flight per partition: a later message can never
overtake an earlier one that has to be sent again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Self

from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2
from msgspec import Struct

from bidding.quote import Position
from feeds.codec import encode
from feeds.errors import FeedError, LogChanged, LogRefused
from feeds.hold import LogHold
from feeds.incarnation import LogWatch
from feeds.kafka import (
    CAUGHT,
    MAX_MESSAGE_BYTES,
    REFUSED_MESSAGE,
    KafkaSettings,
    Message,
    Partition,
    ensure_topics,
    log_errors,
    mapped,
)
from feeds.records import Written
from feeds.topics import TOPICS, Topic, key_of

_CLOSE_S = 2.0
_FRESH_LOOK_NS = 100_000_000
_OVERHEAD_BYTES = 256  # batch and record headers, at most


class Delivery(Struct):
    """What became of messages: where they are (None: not there), what to send again, what never.

    `owed` and `refused` index the messages that were given; `error` says why they are not there.
    """

    positions: list[Position | None]
    owed: list[int]
    refused: list[int]
    error: FeedError | None = None


@lru_cache(maxsize=1 << 16)
def key_hash(key: bytes) -> int:
    """Kafka's own hash of a key, as all its clients compute it (10 µs in Python, so remembered)."""
    return int(murmur2(key)) & 0x7FFFFFFF


class LogProducer:
    """A producer that survives the log's restarts; one task at a time may write.

    Parameters
    ----------
    settings : KafkaSettings
    topics : made, where missing, at every connection

    Attributes
    ----------
    log : the incarnation written to; empty before the first connection
    """

    def __init__(self, settings: KafkaSettings, topics: Sequence[Topic] = TOPICS) -> None:
        self._settings = settings
        self._topics = topics
        self._watch = LogWatch(settings)
        self._producer: AIOKafkaProducer | None = None
        self._lock = asyncio.Lock()
        self._hold = LogHold(settings.hold_file)
        self._looked_ns = 0
        self.log = ""

    async def start(self) -> None:
        """Connect, and make the topics that are missing. Optional: writing connects too.

        Raises
        ------
        LogUnavailable, LogRefused
        """
        async with self._lock:
            await self._open()

    async def publish(self, topic: Topic, records: Sequence[Written]) -> list[Position]:
        """Write records to a topic, in order; their positions once all are acknowledged.

        Raises
        ------
        LogUnavailable
            Some may have been written: publishing again may repeat them.
        LogRefused
            A record is too large, or we have no right to the topic.
        """
        messages = [Message(topic.name, key_of(topic, r), encode(r)) for r in records]
        delivery = await self.deliver(messages)
        if delivery.error is not None:
            raise delivery.error
        return [p for p in delivery.positions if p is not None]

    async def delete(self, topic: Topic, keys: Sequence[str]) -> None:
        """Take keys out of a compacted topic: whoever reads it from its beginning never sees them.

        Raises
        ------
        LogUnavailable, LogRefused
            As `publish`.
        """
        delivery = await self.deliver([Message(topic.name, k.encode(), None) for k in keys])
        if delivery.error is not None:
            raise delivery.error

    async def deliver(self, messages: Sequence[Message]) -> Delivery:
        """Write messages in order within each partition; never raises for the log's sake."""
        async with self._lock, self._hold.writing():
            delivery = Delivery([None] * len(messages), [], [])
            try:
                await self._open()
                if time.monotonic_ns() - self._looked_ns > _FRESH_LOOK_NS:
                    await self._look()
                await self._write(messages, delivery)
                await self._look()
            except FeedError as error:
                delivery.error = error
                delivery.positions = [None] * len(messages)
                refused = set(delivery.refused)
                delivery.owed = [i for i in range(len(messages)) if i not in refused]
            if delivery.owed:
                delivery.owed.sort()
                await self._drop_producer()
            return delivery

    async def close(self) -> None:
        """End within seconds, whatever state the log is in. What was not acknowledged is owed."""
        await self._drop_producer()
        await self._watch.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _open(self) -> None:
        if self._producer is not None:
            return
        log = await self._watch.current()
        await ensure_topics(self._settings, self._topics)
        settings = self._settings
        producer = AIOKafkaProducer(
            **settings.client_options(),
            acks="all",
            enable_idempotence=settings.idempotent,
            compression_type=None if settings.compression == "none" else settings.compression,
            max_batch_size=settings.batch_bytes,
            max_request_size=2 * MAX_MESSAGE_BYTES,
        )
        with log_errors(f"connecting to {settings.bootstrap}"):
            try:
                await producer.start()
            except BaseException:
                await producer.stop()
                raise
        self._producer, self.log = producer, log

    async def _look(self) -> None:
        """Raise unless the log is the one we know (see `incarnation`).

        After writing, it vouches for the acknowledgements. Before, it saves repetitions: a new
        log would take the messages and we should have to send them again.
        """
        if not self._settings.volatile:
            return
        log = await self._watch.current()
        if log != self.log:
            raise LogChanged(log, was=self.log)
        self._looked_ns = time.monotonic_ns()

    async def _write(self, messages: Sequence[Message], delivery: Delivery) -> None:
        assert self._producer is not None
        n_partitions: dict[str, int] = {}
        groups: dict[Partition, list[int]] = {}
        with log_errors("topic metadata"):
            for topic in {m.topic for m in messages}:
                n_partitions[topic] = len(await self._producer.partitions_for(topic))
        for i, (topic, key, _) in enumerate(messages):
            partition = Partition(topic, key_hash(key) % n_partitions[topic])
            groups.setdefault(partition, []).append(i)
        writers = (self._write_partition(p, g, messages, delivery) for p, g in groups.items())
        await asyncio.gather(*writers)

    async def _write_partition(
        self, to: Partition, indices: list[int], messages: Sequence[Message], delivery: Delivery
    ) -> None:
        assert self._producer is not None
        done = 0
        while done < len(indices):
            batch, n_taken = self._fill(indices[done:], messages)
            if n_taken == 0:
                i = indices[done]
                n_bytes = messages[i].n_bytes
                _refuse(delivery, [i], LogRefused(f"{to.topic}: {n_bytes} bytes are too many"))
                done += 1
                continue
            chunk = indices[done : done + n_taken]
            try:
                sent = await self._producer.send_batch(batch, to.topic, partition=to.partition)
                first = (await sent).offset
            except REFUSED_MESSAGE as error:
                _refuse(delivery, chunk, mapped(error, f"writing to {to.topic}"))
            except CAUGHT as error:
                delivery.error = mapped(error, f"writing to {to.topic}")
                delivery.owed += indices[done:]
                return
            else:
                for k, i in enumerate(chunk):
                    delivery.positions[i] = Position(self.log, to.topic, to.partition, first + k)
            done += n_taken

    def _fill(self, indices: Sequence[int], messages: Sequence[Message]) -> tuple[Any, int]:
        """A closed batch of as many of the messages as fit; 0 when not even one does."""
        assert self._producer is not None
        batch = self._producer.create_batch()
        n_taken = 0
        first = messages[indices[0]]
        if first.n_bytes > MAX_MESSAGE_BYTES - _OVERHEAD_BYTES:
            return batch, 0  # aiokafka itself takes a first message of any size
        for i in indices:
            if batch.append(key=messages[i].key, value=messages[i].value, timestamp=None) is None:
                break
            n_taken += 1
        batch.close()
        return batch, n_taken

    async def _drop_producer(self) -> None:
        """Close without waiting for a log that may be gone; the next write opens a new one.

        A producer that gave up on a batch cannot go on: its idempotent sequence has a hole.
        """
        producer, self._producer = self._producer, None
        if producer is None:
            return
        try:
            await asyncio.wait_for(producer.stop(), _CLOSE_S)
        except CAUGHT:
            # stop() flushes first and has no deadline; cut the connections, which ends its tasks.
            await producer.client.close()


def _refuse(delivery: Delivery, indices: Sequence[int], error: FeedError) -> None:
    delivery.refused += indices
    delivery.error = delivery.error or error
