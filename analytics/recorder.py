"""The recorder's process: every topic into ClickHouse, exactly once.

A `Step` of the pipeline, thin: which partitions are ours, and a `Chain` for each. The chains know
where they end, so the store and not the log's committed offset says where to begin. Facts are
stored within a second or so; the changelogs of estimators, which come every 100 ms, wait longer and
go in fewer, larger inserts (ClickHouse pays per insert).

A store that is away is waited for, which holds back reading, and the log keeps what is owed. A
store that refuses, or holds other rows than we wrote, ends the recorder with an error: it never
skips.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Final

from msgspec import Meta, Struct, field
from msgspec.structs import replace

from analytics.chain import Chain, ChainStats, lacking
from analytics.errors import StoreDiffers, StoreUnavailable
from analytics.lives import life_of, settle_earlier
from analytics.migrate import is_behind
from analytics.rows import unstorable
from analytics.store import Store, StoreSettings
from feeds.batch import Batch, BatchSettings
from feeds.clock import Clock, SystemClock
from feeds.dead_letter import DeadLetters, DeadLetterSettings
from feeds.kafka import KafkaSettings, Partition
from feeds.lane import Bury, PipelineStats
from feeds.pipeline import Pipeline, PipelineSettings, Span, Start
from feeds.producer import LogProducer
from feeds.records import DeadRecord
from feeds.topics import ATTEMPTS, BY_NAME, DEAD, DECISIONS, FEEDBACK, TOPICS, Topic

logger = logging.getLogger(__name__)

FACTS: Final[tuple[Topic, ...]] = (ATTEMPTS, DECISIONS, FEEDBACK)
_CONNECT_AGAIN_S: Final = 0.5
_TELL_AGAIN_S: Final = 10.0
CHANGES: Final[tuple[Topic, ...]] = tuple(t for t in TOPICS if t not in FACTS)


def _facts() -> PipelineSettings:
    return PipelineSettings(
        batch=BatchSettings(max_records=50_000, max_bytes=32 * 1024 * 1024, max_wait_ms=1_000),
        max_lane_bytes=64 * 1024 * 1024,
    )


def _changes() -> PipelineSettings:
    return PipelineSettings(
        batch=BatchSettings(max_records=20_000, max_bytes=32 * 1024 * 1024, max_wait_ms=3_000),
        max_lane_bytes=64 * 1024 * 1024,
    )


class RecorderSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How facts are gathered before they are stored. `group` is the consumer groups' common name.

    `n_inserts` bounds the inserts under way at once.
    """

    group: str = "recorder"
    facts: PipelineSettings = field(default_factory=_facts)
    changes: PipelineSettings = field(default_factory=_changes)
    dead_letters: DeadLetterSettings = field(default_factory=DeadLetterSettings)
    n_inserts: Annotated[int, Meta(ge=1)] = 4

    @property
    def groups(self) -> dict[str, tuple[Topic, ...]]:
        """The consumer groups and what each reads; together they read every topic."""
        return {f"{self.group}-facts": FACTS, f"{self.group}-changes": CHANGES}


class RecorderStats(Struct):
    """What a recorder counts: its chains, and its two pipelines once they run."""

    chains: ChainStats = field(default_factory=ChainStats)
    pipelines: dict[str, PipelineStats] = field(default_factory=dict)


class Recorder:
    """The pipeline's step: batches into chains.

    Parameters
    ----------
    store : Store
    clock : says which day a batch is stored on, and stamps dead letters
    bury : writes the records the store cannot hold to the dead letters
    dead_letters : judges whether they are too many
    stats : ChainStats
    n_inserts : inserts under way at once
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock,
        bury: Bury,
        dead_letters: DeadLetters,
        stats: ChainStats,
        n_inserts: int = 4,
    ) -> None:
        self._store = store
        self._clock = clock
        self._bury = bury
        self._dead_letters = dead_letters
        self._stats = stats
        self._slots = asyncio.Semaphore(n_inserts)
        self._chains: dict[Partition, Chain] = {}

    async def assign(self, log: str, spans: Mapping[Partition, Span]) -> dict[Partition, Start]:
        """Find every chain's end, newest batches repaired.

        Raises
        ------
        StoreDiffers
            The log ends before what we stored of it: it lost acknowledged records, and new ones
            will carry offsets that are taken.
        StoreUnavailable, StoreRejected
        """
        life = await life_of(self._store, log)
        settled = await settle_earlier(self._store, life, today=self._today, stats=self._stats)
        if settled:
            logger.info("the log is a new one, %s; settled %s", log, ", ".join(settled))
        chains = {
            p: Chain(
                self._store,
                BY_NAME[p.topic],
                log,
                life,
                p.partition,
                today=self._today,
                stats=self._stats,
            )
            for p in spans
        }
        starts = dict(
            await asyncio.gather(*(self._resume(p, c, spans[p]) for p, c in chains.items()))
        )
        self._chains |= chains
        return starts

    async def take(self, batch: Batch) -> None:
        """Store a batch; returns once it and its part of every rollup is there."""
        await self._set_aside(batch)
        async with self._slots:
            await self._chains[batch.partition].append(batch)

    async def revoke(self, partitions: frozenset[Partition]) -> None:
        for partition in partitions:
            self._chains.pop(partition, None)

    async def _resume(
        self, partition: Partition, chain: Chain, span: Span
    ) -> tuple[Partition, Start]:
        async with self._slots:
            next_offset = await chain.resume()
        if span.end < next_offset:
            raise StoreDiffers(
                f"{partition.topic}/{partition.partition} ends at {span.end}, but the store has it"
                f" up to {next_offset}: the log lost records it had acknowledged"
            )
        if 0 < next_offset < span.begin:
            logger.error(
                "%s/%d: offsets %d to %d are gone from the log unrecorded",
                *partition,
                next_offset,
                span.begin - 1,
            )
        return partition, Start(max(next_offset, span.begin))

    async def _set_aside(self, batch: Batch) -> None:
        """Take out of the batch what no table can hold, and bury it."""
        topic = batch.partition.topic
        reasons = [unstorable(topic, r) for r in batch.records]
        if not any(reasons):
            return
        dead: list[DeadRecord] = []
        good: list[int] = []
        for i, reason in enumerate(reasons):
            if not reason:
                good.append(i)
                continue
            dead.append(
                self._dead_letters.bad(batch.partition, batch.offsets[i], batch.payloads[i], reason)
            )
        await self._bury(dead)
        batch.dead += dead
        batch.records = [batch.records[i] for i in good]
        batch.offsets = [batch.offsets[i] for i in good]
        batch.payloads = [batch.payloads[i] for i in good]

    def _today(self) -> str:
        return datetime.fromtimestamp(self._clock.now_us() / 1e6, UTC).date().isoformat()


class Recording:
    """The recorder's process: `await run()`; `stop()` ends it in order.

    Parameters
    ----------
    kafka, store : where the log and ClickHouse are
    settings : RecorderSettings
    clock : Clock

    Attributes
    ----------
    stats : RecorderStats
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        store: StoreSettings,
        settings: RecorderSettings | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        self._kafka = kafka
        self._store_settings = store
        self._settings = settings or RecorderSettings()
        self._clock = clock or SystemClock()
        self._pipelines: list[Pipeline] = []
        self._stopping = False
        self.stats = RecorderStats()

    async def run(self) -> None:
        """Record until `stop`. Migrations are not run here (see `analytics.migrate`) but waited
        for: until the store has every table and column that this build writes.

        Raises
        ------
        StoreRejected, StoreDiffers
            The store refuses, or is not what it should be. Nothing was skipped.
        TooManyBad
            More is unreadable than can be the writers' fault.
        LogRefused
            Wrong rights or settings.
        """
        # Its dead letters are part of what must be stored before the log may be replaced.
        producer = LogProducer(replace(self._kafka, hold_file=""))

        async def bury(dead: Sequence[DeadRecord]) -> None:
            await producer.publish(DEAD, dead)

        store = await self._open_store()
        try:
            await self._await_schema(store)
            recorder = Recorder(
                store,
                clock=self._clock,
                bury=bury,
                dead_letters=DeadLetters(self._settings.dead_letters, self._clock),
                stats=self.stats.chains,
                n_inserts=self._settings.n_inserts,
            )
            settings = (self._settings.facts, self._settings.changes)
            self._pipelines = [
                self._pipeline(group, topics, gathering, recorder, bury)
                for (group, topics), gathering in zip(
                    self._settings.groups.items(), settings, strict=True
                )
            ]
            if not self._stopping:
                await self._run_all()
        finally:
            await producer.close()
            await store.close()

    def stop(self) -> None:
        """Store what has begun, commit, and end; `run` then returns."""
        self._stopping = True
        for pipeline in self._pipelines:
            pipeline.stop()

    async def _run_all(self) -> None:
        """Run the pipelines side by side; when one ends, so does the other, in order."""
        running = [asyncio.create_task(p.run()) for p in self._pipelines]
        try:
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            self.stop()
            await asyncio.wait(running)
        finally:
            for task in running:
                task.cancel()
        for task in running:
            task.result()

    def _pipeline(
        self,
        group: str,
        topics: Sequence[Topic],
        settings: PipelineSettings,
        recorder: Recorder,
        bury: Bury,
    ) -> Pipeline:
        pipeline = Pipeline(
            self._kafka,
            topics,
            recorder,
            dead_letters=DeadLetters(self._settings.dead_letters, self._clock),
            bury=bury,
            group=group,
            recoverable=(StoreUnavailable,),
            settings=settings,
        )
        self.stats.pipelines[group.rpartition("-")[2]] = pipeline.stats
        return pipeline

    async def _open_store(self) -> Store:
        """Connect, waiting for a store that is not there yet."""
        while True:
            try:
                return await Store.open(self._store_settings)
            except StoreUnavailable as error:
                logger.warning("waiting for the store: %s", error)
                await asyncio.sleep(_CONNECT_AGAIN_S)

    async def _await_schema(self, store: Store) -> None:
        """Wait for migrations that are still to be run, or are running now."""
        told_s = -math.inf
        while not self._stopping:
            try:
                missing = await lacking(store, (*FACTS, *CHANGES))
                if missing and not await is_behind(store):
                    return  # what is gone though it was migrated is told by what fails
            except StoreUnavailable as error:
                missing = [str(error)]
            if not missing:
                return
            if time.monotonic() - told_s >= _TELL_AGAIN_S:
                told_s = time.monotonic()
                logger.warning("waiting for migrations: the store lacks %s …", missing[0])
            await asyncio.sleep(_CONNECT_AGAIN_S)


async def record(
    kafka: KafkaSettings,
    store: StoreSettings,
    settings: RecorderSettings | None = None,
    *,
    clock: Clock | None = None,
) -> None:
    """Record every topic until cancelled or failed: `Recording(...).run()` as one call.

    A caller that wants an orderly end or the counters makes the `Recording` itself.
    """
    await Recording(kafka, store, settings, clock=clock).run()
