"""One partition on its way through the pipeline: what waits, what is begun, what is done.

A lane's task gives batches to the step one at a time and in order. To be released it has one rule:
what has begun is finished, what has not is dropped, for it can be read again. A call that waits to
be tried again counts as not begun: whoever gets the partition repeats it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from msgspec import Struct

from feeds.batch import Batch, Batcher
from feeds.kafka import Partition
from feeds.records import DeadRecord
from feeds.repeats import Repeats

_FIRST_BACKOFF_S = 0.05

T = TypeVar("T")
Take = Callable[[Batch], Awaitable[None]]
Bury = Callable[[Sequence[DeadRecord]], Awaitable[object]]
Sleep = Callable[[float], Awaitable[None]]


class PipelineStats(Struct):
    """Plain counters for metrics. `n_retrying` counts calls that wait to be tried again."""

    n_messages: int = 0
    n_records: int = 0
    n_bytes: int = 0
    n_batches: int = 0
    n_dead: int = 0
    n_repeated: int = 0
    n_retries: int = 0
    n_retrying: int = 0
    n_paused: int = 0
    n_rebalances: int = 0
    n_log_changes: int = 0
    n_commit_failures: int = 0


class Retry:
    """Calls again after recoverable errors, waiting twice as long each time up to a bound."""

    def __init__(
        self,
        recoverable: tuple[type[Exception], ...],
        max_backoff_s: float,
        sleep: Sleep,
        stats: PipelineStats,
        warn: Callable[[Exception], None],
    ) -> None:
        self._recoverable = recoverable
        self._max_backoff_s = max_backoff_s
        self._sleep = sleep
        self._stats = stats
        self._warn = warn

    async def call(
        self,
        function: Callable[[], Awaitable[T]],
        *,
        waiting: Callable[[bool], None] = lambda _: None,
    ) -> T:
        """The result of `function`; `waiting` is told when a pause begins and ends."""
        n_failures = 0
        while True:
            try:
                return await function()
            except self._recoverable as error:
                self._warn(error)
            self._stats.n_retries += 1
            self._stats.n_retrying += 1
            waiting(True)
            try:
                await self.pause(n_failures)
            finally:
                self._stats.n_retrying -= 1
                waiting(False)
            n_failures += 1

    async def pause(self, n_failures: int) -> None:
        """Wait as long as befits so many failures in a row."""
        await self._sleep(min(_FIRST_BACKOFF_S * 2 ** min(n_failures, 16), self._max_backoff_s))


class Lane:
    """A partition's batches, and the task that hands them on.

    Parameters
    ----------
    partition, batcher : what to gather
    start, look_from : the first offset of the step's; what is fed from before it only shows repeats
    repeats : what tells a repeated record
    take, bury : the step's call, and the writer of dead letters
    may_begin : awaited before a batch is begun
    retry : Retry
    stats : PipelineStats

    Attributes
    ----------
    expected : next offset to be read; lower ones were read already
    next_offset : all offsets below are done
    committed : what the group was last told
    """

    def __init__(
        self,
        partition: Partition,
        batcher: Batcher,
        start: int,
        *,
        look_from: int,
        repeats: Repeats,
        take: Take,
        bury: Bury,
        may_begin: Callable[[], Awaitable[None]],
        retry: Retry,
        stats: PipelineStats,
    ) -> None:
        self.partition = partition
        self.batcher = batcher
        self.start = start
        self.expected = look_from
        self.repeats = repeats
        self.next_offset = start
        self.committed = start
        self.paused = False
        self._take = take
        self._bury = bury
        self._may_begin = may_begin
        self._retry = retry
        self._stats = stats
        self._waiting: deque[Batch] = deque()
        self._arrived = asyncio.Event()
        self._n_waiting_bytes = 0
        self._begun = False
        self._ending = False
        self._task = asyncio.create_task(self._work())

    @property
    def n_bytes(self) -> int:
        """Payload bytes held."""
        return self._n_waiting_bytes + self.batcher.n_bytes

    @property
    def is_idle(self) -> bool:
        """Whether no closed batch is waiting or being worked on."""
        return not self._waiting

    def push(self, batches: Sequence[Batch]) -> None:
        """Queue closed batches for the step."""
        for batch in batches:
            self._waiting.append(batch)
            self._n_waiting_bytes += batch.n_bytes
            self._arrived.set()

    def check(self) -> None:
        """Raise what the step raised, if it did."""
        if self._task.done() and not self._task.cancelled():
            self._task.result()

    async def finish(self, *, everything: bool, within_s: float | None) -> BaseException | None:
        """End the lane: what has begun, or everything it holds, is finished; the rest dropped.

        Returns
        -------
        BaseException or None
            What the step raised, if that ended it.
        """
        self._ending = True
        self._arrived.set()
        if everything:
            self.push(self.batcher.close())
        else:
            self._waiting.clear()
            if not self._begun:
                self._task.cancel()
        await asyncio.wait([self._task], timeout=within_s)
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])
        return None if self._task.cancelled() else self._task.exception()

    async def _work(self) -> None:
        while True:
            while not self._waiting:
                if self._ending:
                    return
                self._arrived.clear()
                await self._arrived.wait()
            await self._may_begin()
            batch = self._waiting[0]
            self._begun = True
            if batch.dead:
                await self._retry.call(partial(self._bury, batch.dead), waiting=self._pausing)
            if batch.records:
                await self._retry.call(partial(self._take, batch), waiting=self._pausing)
            self._begun = False
            self.next_offset = batch.last_offset + 1
            self._stats.n_batches += 1
            self._n_waiting_bytes -= batch.n_bytes
            if self._waiting:  # not emptied by `finish` meanwhile
                self._waiting.popleft()

    def _pausing(self, paused: bool) -> None:
        self._begun = not paused
        if paused and self._ending and not self._waiting:
            self._task.cancel()
