"""Replacing the embedded log before it has eaten the machine's memory, losing nothing.

Tansu neither compacts nor expires, so past a bound it is started anew. The recorder takes what
is on the log into ClickHouse; writers are kept out (`feeds.hold`); the recorder takes the rest; the
log is replaced, compacted topics get the newest record of every key back, and writers go on.
Requests notice nothing: what they owe to the log waits in the spool.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import msgspec

from analytics.recorder import RecorderSettings
from analytics.restore import restore
from analytics.store import Store, StoreSettings
from bidding.errors import MarketError
from broker.embedded.tansu import Tansu
from feeds.consumer import LogConsumer
from feeds.groups import done_by
from feeds.hold import LogHold
from feeds.kafka import KafkaSettings, Partition, ensure_topics
from feeds.topics import TOPICS

logger = logging.getLogger(__name__)

_NEARLY = 2_000
_NEARLY_S = 30.0
_ALONE_S = 10.0
_DRAIN_S = 15.0


class NotDrained(MarketError):
    """The recorder did not take everything in time; the log stays as it is."""


async def recycle(log: Tansu, kafka: KafkaSettings, store: StoreSettings) -> None:
    """Replace the log.

    Raises
    ------
    NotDrained
        Writers go on with the old log; try again later.
    """
    # Who replaces the log is the one writer that must not be kept out.
    ours = msgspec.structs.replace(kafka, hold_file="")
    async with await Store.open(store) as history:
        await _drained(ours, at_most=_NEARLY, within_s=_NEARLY_S)
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(LogHold(kafka.hold_file).alone(_ALONE_S))
            except TimeoutError as error:
                raise NotDrained(f"a delivery has not ended within {_ALONE_S:g} s") from error
            await _drained(ours, at_most=0, within_s=_DRAIN_S)
            await log.restart()
            await ensure_topics(ours, TOPICS)
            restored = await restore(history, ours, today=today)
    logger.warning("log replaced; records restored: %s", restored)


async def _drained(kafka: KafkaSettings, *, at_most: int, within_s: float) -> None:
    """Wait until the recorder has dealt with all but `at_most` records on the log.

    What it has committed says so, and not the rows in its tables: a deletion, a repeat or what went
    to the dead letters leaves no row.
    """
    deadline_s = time.monotonic() + within_s
    while True:
        async with LogConsumer(kafka, TOPICS) as consumer:
            ends = {p: end for p, (_, end) in (await consumer.spans(consumer.assignment)).items()}
            log = consumer.log
        behind = dict[Partition, int]()
        for group, topics in RecorderSettings().groups.items():
            names = {topic.name for topic in topics}
            done = await done_by(kafka, group, log, [p for p in ends if p.topic in names])
            behind |= {p: ends[p] - n for p, n in done.items() if n < ends[p]}
        if sum(behind.values()) <= at_most:
            return
        if time.monotonic() > deadline_s:
            owed = ", ".join(f"{n} of {p.topic}/{p.partition}" for p, n in behind.items())
            raise NotDrained(f"not stored within {within_s:g} s: {owed}")
        await asyncio.sleep(0.1)


def today() -> str:
    """The day, UTC, as the store writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%d")


async def keep_small(
    log: Tansu, bound_bytes: int, replace: Callable[[], Awaitable[None]], every_s: float = 2.0
) -> None:
    """Replace the log whenever it has grown past its bound, until cancelled."""
    while True:
        await asyncio.sleep(every_s)
        if log.alive and log.rss_bytes() > bound_bytes:
            try:
                await replace()
            except NotDrained as error:
                logger.error("log not replaced: %s", error)
