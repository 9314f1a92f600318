"""The newest record of every key, written back to compacted topics that are found empty.

A log in memory is empty after every start, a real one after a disaster; estimators, gateways and
keys live on its compacted topics. The store has every record of them as it was, so it is the
backup. Only an empty topic is restored, and before its writers start: an old record must never
land behind a newer one of the same key.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from analytics.chain import ChainStats
from analytics.lives import life_of, settle_earlier
from analytics.store import Store
from feeds.consumer import LogConsumer
from feeds.kafka import KafkaSettings, Message
from feeds.producer import LogProducer
from feeds.topics import TOPICS, Topic

logger = logging.getLogger(__name__)

COMPACTED: Final[tuple[Topic, ...]] = tuple(t for t in TOPICS if t.compacted)
_LATEST: Final = """
SELECT key, record FROM {raw:Identifier}.latest FINAL WHERE topic = {topic:String}
    AND record != ''  -- emptied by `broker forget`
ORDER BY version
"""


async def restore(
    store: Store,
    kafka: KafkaSettings,
    topics: Sequence[Topic] = COMPACTED,
    *,
    today: Callable[[], str],
) -> dict[str, int]:
    """Fill those of `topics` that are empty with the newest record of each of their keys.

    Parameters
    ----------
    store : Store, with the writer's account
    kafka : KafkaSettings
    topics : compacted topics
    today : YYYY-MM-DD

    Returns
    -------
    dict of str to int
        Records written, by topic; topics that held anything are left out.

    Raises
    ------
    LogUnavailable, LogRefused
        The log stopped answering half-way: empty the topics again (a new incarnation) and repeat.
    StoreUnavailable, StoreRejected
    """
    async with LogConsumer(kafka, topics) as consumer:
        log = consumer.log
        spans = await consumer.spans(consumer.assignment)
    filled = {p.topic for p, (begin, end) in spans.items() if end > begin}
    empty = [t for t in topics if t.name not in filled]
    # The last batches of the old log may be in the tables but not yet among the newest records.
    life = await life_of(store, log)
    await settle_earlier(store, life, today=today, stats=ChainStats())
    restored = {}
    async with LogProducer(kafka) as producer:
        for topic in empty:
            answer = await store.query(_LATEST, {"topic": topic.name})
            messages = [Message(topic.name, k.encode(), r.encode()) for k, r in answer.rows]
            delivery = await producer.deliver(messages)
            if delivery.error is not None:
                raise delivery.error
            restored[topic.name] = len(messages)
            logger.info("restored %d records of %s", len(messages), topic.name)
    return restored
