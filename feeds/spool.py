"""The bounded queue between the request's path and the log: no request ever waits for Kafka.

`put` stamps a record and appends it to a deque; everything else happens in three tasks. *Gather*
encodes what came within `flush_ms` into a chunk. *Send* delivers the oldest chunk, again and again
until it is acknowledged, and only then the next: records of a partition keep their order. *Save*
writes to disk what is still unacknowledged `flush_ms` after it was gathered; what is on disk leaves
memory, and is read back when its turn comes.

So a healthy log costs no disk write at all, a killed process loses at most the last two flush
windows (40 ms), and an absent log costs bounded memory. Writing everything through SQLite first
would lose 20 ms less and cost a transaction per window for ever (figures in
`docs/decisions/0003-log-and-spool.md`).

At the bound the oldest go first, counted and alarmed. A chunk may be sent twice (its
acknowledgement was lost, or the process died before noting it): its records then carry the same
`gateway`, `boot` and `seq`, which rises by one per record within a topic; readers drop them by it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Final, Protocol, TypeVar

from msgspec import Meta, Struct

from feeds.codec import encode
from feeds.errors import FeedError, LogRefused, SpoolBroken, SpoolFull
from feeds.kafka import Message
from feeds.producer import Delivery
from feeds.records import Written
from feeds.spool_file import SpoolFile
from feeds.topics import TOPICS, Topic, key_of

logger = logging.getLogger(__name__)
T = TypeVar("T")

_ENCODE_SLICE: Final = 64  # records encoded before other tasks get the loop: about half a ms
_SEND_BYTES: Final = 256 * 1024  # a chunk that costs the loop some 2 ms to batch
_SILENT_MS: Final = 1_000
_SLOW_ACK_S: Final = 0.25  # from here on, fewer and larger sends
_MAX_BACKOFF_S: Final = 1.0
_DISK_RETRY_S: Final = 0.5


class SpoolSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of the spool. `path` is one file per process."""

    path: str
    flush_ms: Annotated[int, Meta(ge=1, le=1_000)] = 20
    max_memory_records: Annotated[int, Meta(ge=1)] = 50_000
    max_memory_bytes: Annotated[int, Meta(ge=1)] = 16 * 1024 * 1024
    max_disk_bytes: Annotated[int, Meta(ge=1)] = 256 * 1024 * 1024
    max_send_bytes: Annotated[int, Meta(ge=1)] = 4 * 1024 * 1024


class SpoolStats(Struct):
    """Plain counters and levels for metrics, in records unless named otherwise.

    `n_put` = `n_delivered` + `n_dropped` + `n_refused` + what is held, less `n_restored`.
    `send_age_ms` is how long the log has not answered; past a second `connected` is 0.
    """

    n_put: int = 0
    n_delivered: int = 0
    n_dropped: int = 0
    n_refused: int = 0
    n_restored: int = 0
    n_saved: int = 0
    n_memory: int = 0
    n_disk: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    n_send_failures: int = 0
    n_disk_failures: int = 0
    send_age_ms: int = 0
    connected: int = 0


class Deliverer(Protocol):
    """What the spool needs of `LogProducer`."""

    async def deliver(self, messages: Sequence[Message]) -> Delivery: ...


class _Chunk:
    """Messages on their way together, and since when.

    `row` is the id of their last chunk on disk, 0 if they are not there.
    """

    __slots__ = ("born_s", "messages", "n_bytes", "row")

    def __init__(self, messages: list[Message], born_s: float, row: int = 0) -> None:
        self.messages = messages
        self.n_bytes = sum(m.n_bytes for m in messages)
        self.born_s = born_s
        self.row = row


class Spool:
    """The queue. `await start()`, `put` from the loop's own thread, `await close()`.

    Parameters
    ----------
    settings : SpoolSettings
    producer : where records go
    gateway : this writer's id, stamped on every record
    boot : a random id of this start; made if not given
    alarm : told of drops (`SpoolFull`), refusals (`LogRefused`) and a failing disk (`SpoolBroken`)

    Attributes
    ----------
    stats : SpoolStats
    boot : what records are stamped with
    """

    def __init__(
        self,
        settings: SpoolSettings,
        producer: Deliverer,
        *,
        gateway: str,
        boot: str = "",
        alarm: Callable[[FeedError], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._producer = producer
        self._gateway = gateway
        self.boot = boot or secrets.token_hex(8)
        self._alarm = alarm
        self._flush_s = settings.flush_ms / 1e3
        self._seqs = dict.fromkeys((t.name for t in TOPICS), 0)
        self._incoming: deque[tuple[Topic, Written]] = deque()
        self._fresh: deque[_Chunk] = deque()
        self._sending: _Chunk | None = None
        self._file = SpoolFile(Path(settings.path), settings.max_disk_bytes)
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._moving = asyncio.Lock()  # held while chunks change place
        self._came = asyncio.Event()
        self._gathered = asyncio.Event()
        self._unsaved = asyncio.Event()
        self._settled = asyncio.Event()
        self._n_unreported = 0
        self._send_began_s = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False
        self.stats = SpoolStats()

    async def start(self) -> None:
        """Open the disk, and send what an earlier process left there, first.

        Raises
        ------
        SpoolBroken
            The file is in use by another process, or its folder cannot be written.
        """
        await self._on_disk(self._file.open)
        self.stats.n_restored = self._file.n_records
        self._refresh_stats()
        self._gathered.set()
        for loop in (self._gather(), self._send(), self._save()):
            task = asyncio.create_task(loop)
            task.add_done_callback(self._ended)
            self._tasks.append(task)

    def put(self, topic: Topic, record: Written) -> None:
        """Take a record to be written to `topic`; it must not be changed afterwards.

        Notes
        -----
        Under 1 µs; never blocks or raises. At the bound the oldest record is dropped.
        """
        seq = self._seqs[topic.name] + 1
        self._seqs[topic.name] = seq
        record.gateway = self._gateway
        record.boot = self.boot
        record.seq = seq
        incoming = self._incoming
        incoming.append((topic, record))
        self.stats.n_put += 1
        if len(incoming) == 1:
            self._came.set()
        elif len(incoming) > self._settings.max_memory_records:
            incoming.popleft()
            self._n_unreported += 1
            self.stats.n_dropped += 1

    async def flush(self, timeout_s: float) -> bool:
        """Wait until everything put so far is acknowledged; False if that took too long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not self._is_empty():
                    self._settled.clear()
                    await self._settled.wait()
        return self._is_empty()

    async def close(self, timeout_s: float = 5.0) -> None:
        """Send what can be sent within the timeout, keep the rest on disk, end."""
        if self._closed:
            return
        self._closed = True
        await self.flush(timeout_s)
        async with self._moving:  # so that nothing is cancelled in the middle of a move
            for task in self._tasks:
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._take_in()
        try:
            await self._save_all()
        except SpoolBroken as error:
            n_lost = self._n_in_memory()
            self.stats.n_dropped += n_lost
            self._alarm(error)
            self._alarm(SpoolFull(n_lost))
        await self._on_disk(self._file.close)
        self._disk.shutdown(wait=False)

    async def _gather(self) -> None:
        while True:
            await self._came.wait()
            self._came.clear()
            await asyncio.sleep(self._flush_s)
            await self._take_in()

    async def _take_in(self) -> None:
        """Encode what has come into chunks."""
        incoming = self._incoming
        while incoming:
            messages = []
            for _ in range(min(len(incoming), _ENCODE_SLICE)):
                topic, record = incoming.popleft()
                try:
                    message = Message(topic.name, key_of(topic, record), encode(record))
                except (TypeError, ValueError, AttributeError, OverflowError) as error:
                    self._refuse(1, f"cannot be written: {type(record).__name__}: {error}")
                else:
                    messages.append(message)
            if messages:
                self._fresh.append(_Chunk(messages, time.monotonic()))
                self._gathered.set()
                self._unsaved.set()
            await asyncio.sleep(0)
        self._report_drops()
        self._refresh_stats()
        self._settled.set()

    async def _send(self) -> None:
        max_bytes = _SEND_BYTES
        while True:
            chunk = await self._next_chunk(max_bytes)
            if chunk is None:
                if self._file.n_records:
                    await asyncio.sleep(_DISK_RETRY_S)  # there is something, but it cannot be read
                    continue
                self._settled.set()
                await self._gathered.wait()
                continue
            began = self._send_began_s = time.monotonic()
            await self._deliver(chunk.messages)
            self._send_began_s = 0.0
            is_slow = time.monotonic() - began > _SLOW_ACK_S
            max_bytes = self._settings.max_send_bytes if is_slow else _SEND_BYTES
            async with self._moving:
                self._sending = None
                if chunk.row:
                    await self._try_disk(partial(self._file.acknowledge, chunk.row))
            self._refresh_stats()

    async def _next_chunk(self, max_bytes: int) -> _Chunk | None:
        """The oldest of what is held: from disk, if there is any there."""
        async with self._moving:
            self._gathered.clear()
            if self._file.n_records:
                found = await self._try_disk(lambda: self._file.oldest(max_bytes))
                if found is not None and found[0]:
                    self._sending = _Chunk(found[1], 0.0, row=found[0][-1])
                    return self._sending
                if self._file.n_records:
                    return None
            messages: list[Message] = []
            born_s, n_bytes = 0.0, 0
            while self._fresh and (not messages or n_bytes + self._fresh[0].n_bytes <= max_bytes):
                chunk = self._fresh.popleft()
                born_s = born_s or chunk.born_s
                messages += chunk.messages
                n_bytes += chunk.n_bytes
            self._sending = _Chunk(messages, born_s) if messages else None
            return self._sending

    async def _deliver(self, messages: list[Message]) -> None:
        """Send until all are acknowledged or refused for good."""
        n_failures = 0
        while messages:
            delivery = await self._producer.deliver(messages)
            n_lost = len(delivery.refused)
            if n_lost:
                self._refuse(n_lost, str(delivery.error))
            self.stats.n_delivered += len(messages) - len(delivery.owed) - n_lost
            self.stats.connected = int(not delivery.owed)
            messages = [messages[i] for i in delivery.owed]
            if messages:
                if n_failures == 0:
                    logger.warning("the log takes nothing, records are kept: %s", delivery.error)
                if isinstance(delivery.error, LogRefused):
                    self._alarm(delivery.error)
                self.stats.n_send_failures += 1
                await asyncio.sleep(min(0.05 * 2 ** min(n_failures, 10), _MAX_BACKOFF_S))
                n_failures += 1

    async def _save(self) -> None:
        while True:
            await self._unsaved.wait()
            unsaved = self._in_memory()
            if not unsaved:
                self._unsaved.clear()
                continue
            wait_s = unsaved[0].born_s + self._flush_s - time.monotonic()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
                continue
            try:
                await self._save_all()
            except SpoolBroken as error:
                self.stats.n_disk_failures += 1
                self._alarm(error)
                self._bound_memory()
                await asyncio.sleep(_DISK_RETRY_S)

    async def _save_all(self) -> None:
        """Write what memory holds to disk, in order; what is being sent stays in memory too."""
        async with self._moving:
            sending, unsaved = self._sending, self._in_memory()
            if not unsaved:
                return
            chunks = [chunk.messages for chunk in unsaved]
            keep = sending.row if sending is not None else 0
            n_dropped = self._file.n_dropped
            is_first_sent = unsaved[0] is sending
            ids = await self._on_disk(
                lambda: self._file.append(chunks, keep=keep, keep_first=is_first_sent)
            )
            for chunk, row in zip(unsaved, ids, strict=True):
                chunk.row = row
            # Gathering may have appended meanwhile; what was saved stands at the front.
            for _ in range(len(unsaved) - is_first_sent):
                self._fresh.popleft()
            self.stats.n_saved += sum(map(len, chunks))
            self._drop(self._file.n_dropped - n_dropped)
            self._gathered.set()
        self._report_drops()
        self._refresh_stats()

    def _bound_memory(self) -> None:
        """With the disk out of order, drop the oldest unsent beyond the bound on memory."""
        n_bytes = sum(chunk.n_bytes for chunk in self._fresh)
        while self._fresh and n_bytes > self._settings.max_memory_bytes:
            chunk = self._fresh.popleft()
            n_bytes -= chunk.n_bytes
            self._drop(len(chunk.messages))
        self._report_drops()

    async def _try_disk(self, call: Callable[[], T]) -> T | None:
        """The call's result on the disk's thread; None, counted and alarmed, if it fails."""
        n_dropped = self._file.n_dropped
        try:
            return await self._on_disk(call)
        except SpoolBroken as error:
            self.stats.n_disk_failures += 1
            self._alarm(error)
            self._drop(self._file.n_dropped - n_dropped)
            return None

    def _on_disk(self, call: Callable[[], T]) -> Awaitable[T]:
        return asyncio.get_running_loop().run_in_executor(self._disk, call)

    def _drop(self, n: int) -> None:
        self.stats.n_dropped += n
        self._n_unreported += n

    def _report_drops(self) -> None:
        n, self._n_unreported = self._n_unreported, 0
        if n:
            logger.error("spool full: dropped the %d oldest records", n)
            self._alarm(SpoolFull(n))

    def _refuse(self, n: int, reason: str) -> None:
        self.stats.n_refused += n
        logger.error("%d records refused for good: %s", n, reason)
        self._alarm(LogRefused(reason))

    def _in_memory(self) -> list[_Chunk]:
        """What would be lost if the process died now, oldest first."""
        sending = self._sending
        return [*([sending] if sending is not None and not sending.row else ()), *self._fresh]

    def _n_in_memory(self) -> int:
        return sum(len(chunk.messages) for chunk in self._in_memory()) + len(self._incoming)

    def _is_empty(self) -> bool:
        held = self._incoming or self._fresh or self._sending or self._file.n_records
        return not held and not self._came.is_set()

    def _refresh_stats(self) -> None:
        stats = self.stats
        stats.n_memory = self._n_in_memory()
        stats.memory_bytes = sum(chunk.n_bytes for chunk in self._fresh)
        if self._sending is not None:
            stats.memory_bytes += self._sending.n_bytes
        stats.n_disk, stats.disk_bytes = self._file.n_records, self._file.n_bytes
        stats.send_age_ms = 0
        if self._send_began_s:
            stats.send_age_ms = round((time.monotonic() - self._send_began_s) * 1e3)
        if stats.send_age_ms > _SILENT_MS:
            stats.connected = 0

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A loop of ours ended: on `close`, or by a fault of ours that must not go unseen."""
        if task.cancelled():
            return
        error = task.exception()
        logger.critical("the spool stopped working: %r", error)
        self._alarm(SpoolBroken(f"the spool stopped working: {error!r}"))
