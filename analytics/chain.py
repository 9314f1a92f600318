"""One partition of one log in the store: a chain of batches that only ever grows at its end.

Exactly once, whoever writes (docs/decisions/0004-exactly-once.md). Two steps, each of which can be
repeated by anyone at any time:

*Append.* A batch begins where the chain ends, and its token is that place alone, not its length.
So of two writers that append different batches at one place (a process that was stopped and woke,
an insert still running after its sender was killed) the store takes one and drops the other, and
the chain then holds one answer, which both read back and go on from: a compare-and-set.

*Feed.* What was appended is sent from the table to its feed, on which the rollups hang, under a
token of its whole range. Its rows come from the store, so every sender sends the same; a
rollup that has them drops them, one that was cut off takes them.

On taking over a chain its newest batch is fed again. The log is not needed for that, so it works
across incarnations too.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct

from analytics.errors import StoreDiffers, StoreRejected, StoreUnavailable
from analytics.rows import Place, canonical, columns, kept_whole, splice, table_of, whole
from analytics.store import Store, Value
from feeds.batch import Batch
from feeds.topics import DEAD, PROMPTS, VIEWS, Topic

logger = logging.getLogger(__name__)

#: A batch that this many of its table have followed is not fed again: its rollups were made by
#: whoever wrote on, and their tables may have forgotten its token (they remember 20,000 blocks,
#: and a batch makes one block for each month in it).
SETTLED_AFTER: Final = 500
#: How often an acknowledged batch may be missing before we stop. An embedded engine (chDB 26.9)
#: acknowledges a streamed insert that fails as it is committed, for too many parts for example;
#: that passes. A token remembered for rows that are gone does not.
MISSING_AT_MOST: Final = 10

_ONE_BLOCK: Final[dict[str, Value]] = {
    "max_insert_block_size": 1_000_000,
    "min_insert_block_size_rows": 1_000_000,
    "min_insert_block_size_bytes": 0,
    "max_insert_threads": 1,
}
_INSERT: Final[dict[str, Value]] = {
    **_ONE_BLOCK,
    "async_insert": 0,
    "insert_deduplicate": 1,
    "input_format_parallel_parsing": 0,
    "input_format_skip_unknown_fields": 1,
    "input_format_null_as_default": 1,
    "input_format_json_named_tuples_as_objects": 0,
    # What was written as a double is read as that double, to the last bit: replays compare them.
    "precise_float_parsing": 1,
}
_FEED: Final[dict[str, Value]] = {
    **_ONE_BLOCK,
    "insert_deduplicate": 1,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    "max_threads": 1,
    "max_block_size": 1_000_000,
    "preferred_block_size_bytes": 0,
    "group_by_two_level_threshold": 0,
    "group_by_two_level_threshold_bytes": 0,
}
_QUORUM: Final[dict[str, Value]] = {"insert_quorum": "auto", "insert_quorum_parallel": 0}
_SEQUENTIAL: Final[dict[str, Value]] = {"select_sequential_consistency": 1}
_COLUMNS_DIFFER: Final = 20
_NOT_FED: Final = frozenset({VIEWS.name, DEAD.name, PROMPTS.name})

# Values are bound by the server, and so are names of databases and tables.
_NEWEST: Final = """
SELECT _batch_first, _batch_last, toString(_stored_at), toString(_day)
FROM {raw:Identifier}.{table:Identifier}
WHERE _log = {log:String} AND _partition = {partition:Int32}
ORDER BY _offset DESC LIMIT 1
"""
_STORED: Final = """
SELECT max(_batch_last), count() FROM {raw:Identifier}.{table:Identifier}
WHERE _log = {log:String} AND _partition = {partition:Int32}
  AND _offset >= {first:Int64} AND _batch_first = {first:Int64}
"""
_SEND_ON: Final = """
INSERT INTO {raw:Identifier}.{feed:Identifier}
SELECT * FROM {raw:Identifier}.{table:Identifier}
WHERE _log = {log:String} AND _partition = {partition:Int32}
  AND _offset >= {first:Int64} AND _offset <= {last:Int64}
"""
_N_SINCE: Final = """
SELECT uniqExact(_log, _partition, _batch_first) FROM {raw:Identifier}.{table:Identifier}
WHERE _day >= {day:Date} AND _stored_at > {at:DateTime64(3, 'UTC')}
"""


class ChainStats(Struct):
    """Plain counters for metrics, shared by a recorder's chains.

    `n_adopted` counts batches another writer had appended in our place, `n_canonical` those the
    store refused in their original JSON, `n_refed` those fed again on taking over.
    """

    n_rows: int = 0
    n_batches: int = 0
    n_bytes: int = 0
    n_adopted: int = 0
    n_canonical: int = 0
    n_refed: int = 0
    newest_at_us: int = 0


class Chain:
    """The end of one log partition in the store.

    Parameters
    ----------
    store : Store
    topic : Topic
    log : incarnation of the log
    life : its number, from `life_of`
    partition : of the log
    today : the table partition a batch goes to, YYYY-MM-DD
    stats : ChainStats

    Attributes
    ----------
    next_offset : where the chain ends; set by `resume`
    """

    def __init__(
        self,
        store: Store,
        topic: Topic,
        log: str,
        life: int,
        partition: int,
        *,
        today: Callable[[], str],
        stats: ChainStats,
    ) -> None:
        self._store = store
        self._topic = topic
        self._log = log
        self._life = life
        self._partition = partition
        self._today = today
        self._stats = stats
        self._table = f"{store.settings.raw}.{table_of(topic.name)}"
        replicated = store.settings.replicated
        self._insert_settings = _INSERT | (_QUORUM if replicated else {})
        self._feed_settings = _FEED | (_QUORUM | _SEQUENTIAL if replicated else {})
        self._read_settings = _SEQUENTIAL if replicated else {}
        self._n_missing = 0
        self.next_offset = 0

    async def resume(self) -> int:
        """Find the chain's end and make sure that its newest batch is in all rollups.

        Returns
        -------
        int
            The next offset to append; 0 in a log of which nothing is stored.

        Raises
        ------
        StoreUnavailable, StoreRejected
        """
        answer = await self._store.query(_NEWEST, self._where(), self._read_settings)
        if not answer.rows:
            self.next_offset = 0
            return 0
        first, last, stored_at, day = answer.rows[0]
        if await self._n_since(stored_at, day) < SETTLED_AFTER:
            await self._feed(first, last)
            self._stats.n_refed += 1
        self.next_offset = last + 1
        return self.next_offset

    async def append(self, batch: Batch) -> None:
        """Append what of `batch` is not there yet; when this returns all of it is, once.

        Raises
        ------
        StoreUnavailable
            Call again with the same batch.
        StoreRejected
            The store will not take it, not even written anew.
        StoreDiffers
            The store acknowledged rows and does not have them.
        """
        while batch.last_offset >= self.next_offset:
            first = self.next_offset
            at = bisect_left(batch.offsets, first)
            if at == len(batch.offsets):
                return  # nothing but dead letters: the next batch's range will cover them
            await self._insert(batch, at, first)
            last, n_rows = await self._stored(first)
            if last == batch.last_offset and n_rows != len(batch.offsets) - at:
                raise StoreDiffers(
                    f"{self._table}: of offsets {first} to {last} of {self._log}/{self._partition}"
                    f" {n_rows} rows are stored, {len(batch.offsets) - at} were sent"
                )
            if last != batch.last_offset:
                logger.warning("%s: another recorder appended %d to %d", self._table, first, last)
                self._stats.n_adopted += 1
            await self._feed(first, last)
            self.next_offset = last + 1
            self._stats.n_batches += 1
            self._stats.n_rows += n_rows
            self._stats.n_bytes += batch.n_bytes
            self._stats.newest_at_us = max(self._stats.newest_at_us, batch.first_at_us)

    async def _insert(self, batch: Batch, at: int, first: int) -> None:
        place = Place(
            log=self._log,
            life=self._life,
            partition=self._partition,
            first=first,
            last=batch.last_offset,
            day=self._today(),
        )
        offsets, payloads = batch.offsets[at:], batch.payloads[at:]
        token = f"{self._log}/{self._topic.name}/{self._partition}/{first}"
        settings = {**self._insert_settings, "insert_deduplication_token": token}
        names = columns(self._topic)
        if kept_whole(self._topic):
            body = whole(self._topic, place, offsets, payloads, batch.records[at:])
            await self._store.insert_json(self._table, names, body, settings)
            return
        body = splice(place, offsets, payloads)
        try:
            await self._store.insert_json(self._table, names, body, settings)
        except StoreRejected as error:
            logger.warning("%s: sent anew: %s", self._table, error)
            body = canonical(place, offsets, batch.records[at:])
            await self._store.insert_json(self._table, names, body, settings)
            self._stats.n_canonical += 1

    async def _stored(self, first: int) -> tuple[int, int]:
        """Last offset and number of rows of the batch the chain holds at `first`."""
        answer = await self._store.query(
            _STORED, {**self._where(), "first": first}, self._read_settings
        )
        last, n_rows = answer.rows[0]
        self._n_missing = 0 if n_rows else self._n_missing + 1
        if n_rows == 0:
            message = (
                f"{self._table}: the batch at {first} of {self._log}/{self._partition} was"
                " acknowledged and is not there"
            )
            if self._n_missing < MISSING_AT_MOST:
                raise StoreUnavailable(message)
            raise StoreDiffers(f"{message}; was the table emptied while its tokens stayed?")
        return last, n_rows

    async def _feed(self, first: int, last: int) -> None:
        if self._topic.name in _NOT_FED:
            return
        token = f"{self._log}/{self._topic.name}/{self._partition}/{first}-{last}"
        try:
            await self._store.command(
                _SEND_ON,
                {**self._where(), "first": first, "last": last},
                {**self._feed_settings, "insert_deduplication_token": token},
            )
        except StoreRejected as error:
            if error.code != _COLUMNS_DIFFER:
                raise
            # A migration adds a column to the table and then to its feed: between the two, wait.
            raise StoreUnavailable(str(error)) from error

    async def _n_since(self, stored_at: str, day: str) -> int:
        """How many batches the table took after that moment."""
        answer = await self._store.query(
            _N_SINCE, {**self._where(), "day": day, "at": stored_at}, self._read_settings
        )
        return int(answer.rows[0][0])

    def _where(self) -> dict[str, object]:
        name = table_of(self._topic.name)
        return {
            "table": name,
            "feed": f"{name}_feed",
            "log": self._log,
            "partition": self._partition,
        }


async def lacking(store: Store, topics: Sequence[Topic]) -> list[str]:
    """Tables, or columns of tables, that recording `topics` takes and the store has not (yet)."""
    answer = await store.query(
        "SELECT table, name FROM system.columns WHERE database = {raw:String}"
    )
    there: dict[str, set[str]] = {}
    for table, name in answer.rows:
        there.setdefault(table, set()).add(name)
    found = []
    for topic in topics:
        table = table_of(topic.name)
        if table not in there:
            found.append(table)
        else:
            found += [f"{table}.{name}" for name in columns(topic) if name not in there[table]]
    return found
