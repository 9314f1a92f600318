"""Replacing the embedded log before it has eaten the machine's memory, losing nothing.

Tansu neither compacts nor expires, so past a bound it is started anew. Writers hold back what
they owe, the recorder takes what is left of the old log into ClickHouse, the log is replaced,
compacted topics get the newest record of every key back, and writers go on. Requests notice
nothing: what they owe to the log waits in the spool.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

from analytics.restore import restore
from analytics.rows import table_of
from analytics.store import Store, StoreSettings
from bidding.errors import MarketError
from broker.children import ServiceProcess
from broker.embedded.tansu import Tansu
from feeds.consumer import LogConsumer
from feeds.kafka import KafkaSettings, ensure_topics
from feeds.topics import TOPICS

logger = logging.getLogger(__name__)

_QUIET_S = 0.5
_DRAIN_S = 30.0
_STORED = """
SELECT _partition, max(_offset) FROM {raw:Identifier}.{table:Identifier} WHERE _log = {log:String}
GROUP BY _partition
"""


class NotDrained(MarketError):
    """The recorder did not take everything in time; the log stays as it is."""


async def recycle(
    log: Tansu, kafka: KafkaSettings, store: StoreSettings, writers: Sequence[ServiceProcess]
) -> None:
    """Replace the log.

    Raises
    ------
    NotDrained
        Writers go on with the old log; try again later.
    """
    async with await Store.open(store) as history:
        for writer in writers:
            writer.signal(signal.SIGUSR1)
        try:
            await asyncio.sleep(_QUIET_S)
            await _drained(kafka, history)
            await log.restart()
            await ensure_topics(kafka, TOPICS)
            restored = await restore(history, kafka, today=today)
        finally:
            for writer in writers:
                writer.signal(signal.SIGUSR2)
    logger.warning("log replaced; records restored: %s", restored)


async def _drained(kafka: KafkaSettings, store: Store) -> None:
    """Wait until everything on the log is stored: facts, and the quotes that decisions read."""
    deadline_s = time.monotonic() + _DRAIN_S
    while True:
        async with LogConsumer(kafka, TOPICS) as consumer:
            spans = await consumer.spans(consumer.assignment)
            log = consumer.log
        behind = []
        for topic in TOPICS:
            table = table_of(topic.name)
            answer = await store.query(_STORED, {"table": table, "log": log})
            stored = {int(partition): int(last) + 1 for partition, last in answer.rows}
            behind += [
                f"{topic.name}/{p.partition}"
                for p, (_, end) in spans.items()
                if p.topic == topic.name and stored.get(p.partition, 0) < end
            ]
        if not behind:
            return
        if time.monotonic() > deadline_s:
            raise NotDrained(f"not stored within {_DRAIN_S:g} s: {', '.join(behind)}")
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
