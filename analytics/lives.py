"""The log's incarnations as the store met them, and the last batches of those that are over.

Offsets of two incarnations cannot be compared, and a clock may not order them, so each gets a
number when its first recorder starts. When the log comes back as a new one, the old one's newest
batches may be in the store but not yet in every rollup (all was killed at once); nobody will be
assigned its partitions again, so the first recorder of the new life settles them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from analytics.chain import Chain, ChainStats
from analytics.store import Store
from feeds.topics import TOPICS

# One statement, so that two recorders that meet a log at once agree on its number.
_NOTE: Final = """
INSERT INTO {raw:Identifier}.lives (log, life)
SELECT {log:String}, toUInt32((SELECT max(life) FROM {raw:Identifier}.lives) + 1)
WHERE {log:String} NOT IN (SELECT log FROM {raw:Identifier}.lives)
"""
_LIFE: Final = "SELECT min(life) FROM {raw:Identifier}.lives WHERE log = {log:String}"
_UNSETTLED: Final = """
SELECT log, min(life) AS number FROM {raw:Identifier}.lives
GROUP BY log HAVING max(settled) = 0 AND number < {life:UInt32} ORDER BY number
"""
_SETTLE: Final = """
INSERT INTO {raw:Identifier}.lives (log, life, settled) SELECT {log:String}, {life:UInt32}, 1
"""


async def life_of(store: Store, log: str) -> int:
    """The number of an incarnation among those the store has met, from 1; notes a new one.

    Raises
    ------
    StoreUnavailable, StoreRejected
    """
    await store.command(_NOTE, {"log": log})
    answer = await store.query(_LIFE, {"log": log})
    return int(answer.rows[0][0])


async def settle_earlier(
    store: Store, life: int, *, today: Callable[[], str], stats: ChainStats
) -> list[str]:
    """Make sure that what earlier incarnations appended last is in all rollups.

    Returns
    -------
    list of str
        The logs settled now. Harmless to repeat, or to be cut off.

    Raises
    ------
    StoreUnavailable, StoreRejected
    """
    answer = await store.query(_UNSETTLED, {"life": life})
    for log, number in answer.rows:
        for topic in TOPICS:
            for partition in range(topic.partitions):
                chain = Chain(store, topic, log, number, partition, today=today, stats=stats)
                await chain.resume()
        await store.command(_SETTLE, {"log": log, "life": number})
    return [log for log, _ in answer.rows]
