"""The live params under one hand: one change at a time, on the log before it is acknowledged.

A change is made on what the log holds now, written, and read back; two changes made for the same
version cannot both win. Gateways follow the same topic and need no telling. The log keeps only
the newest version, the store all of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from analytics.errors import StoreError
from analytics.store import Store, StoreSettings
from bidding.errors import BadParams
from bidding.params import Params
from bidding.params_change import differences, with_changes
from bidding.quote import Position
from broker.auth import KeyRing
from broker.errors import NotFound, NotReady, ParamsConflict, ParamsNotRecorded
from feeds.clock import Clock
from feeds.codec import Record
from feeds.compacted import Follower, latest
from feeds.control_records import KeyRecord, ParamsRecord
from feeds.errors import FeedError
from feeds.kafka import KafkaSettings
from feeds.live_params import GLOBAL_SCOPE
from feeds.producer import LogProducer
from feeds.topics import KEYS, PARAMS

logger = logging.getLogger(__name__)

_LOG_S: Final = 20.0
_HELD_S: Final = 40.0
_MOST_SHOWN: Final = 200
_STORED: Final = """
SELECT version, toUnixTimestamp64Micro(at), by, why, params FROM market.params_history
WHERE scope = {scope:String} AND version <= {upto:Int64} ORDER BY version DESC LIMIT {n:UInt32}
"""


class ParamsControl:
    """What is in force, what was, and the only way to change it.

    Attributes
    ----------
    params : the version in force
    keys : who may do what, as the log tells
    """

    def __init__(self, kafka: KafkaSettings, store: StoreSettings, clock: Clock) -> None:
        self._kafka = kafka
        self._store = store
        self._clock = clock
        self._producer = LogProducer(kafka)
        self._lock = asyncio.Lock()
        self._known: dict[int, ParamsRecord] = {}
        self.params = Params()
        self.keys = KeyRing()
        self.follower = Follower(kafka, [PARAMS, KEYS], self.on_record)

    @property
    def ready(self) -> bool:
        """Whether everything that was on the log at the start has been taken in."""
        return self.follower.caught_up.is_set()

    async def close(self) -> None:
        """End within seconds."""
        await self._producer.close()

    def on_record(self, key: str, record: Record | None, position: Position) -> None:
        """Take in what a followed topic says."""
        if isinstance(record, KeyRecord):
            self.keys.apply(record)
        elif isinstance(record, ParamsRecord) and record.scope == GLOBAL_SCOPE:
            self._take(record)

    async def change(
        self, changes: Mapping[str, float], *, if_version: int, by: str, why: str
    ) -> dict[str, Any]:
        """Put a new version in force; what it is, as `history` shows it.

        Raises
        ------
        ParamsConflict
            Another version than `if_version` is in force.
        BadParams
            Unknown, out of bounds, or no change.
        ParamsNotRecorded
            The log did not take it, or did not say so.
        """
        return await self._put(
            lambda now, version: with_changes(now, changes, version=version), if_version, by, why
        )

    async def rollback(
        self, to: int, *, by: str, why: str, if_version: int | None = None
    ) -> dict[str, Any]:
        """Put the numbers of an earlier version in force again, as a new version.

        Raises
        ------
        NotFound
            There was no such version.
        StoreError
            It is no longer in memory, and the store does not answer.
        ParamsConflict, BadParams, ParamsNotRecorded
            As `change`.
        """
        wanted = await self._version(to)

        def again(now: Params, version: int) -> Params:
            if not differences(now, wanted):
                raise BadParams(f"version {to} has the numbers that are in force already")
            return msgspec.structs.replace(wanted, version=version)

        return await self._put(again, if_version, by, f"rollback to {to}: {why}")

    async def history(self, n: int = _MOST_SHOWN) -> dict[str, Any]:
        """The newest versions, newest first: who, why, when, old and new. `complete` is false
        where the store could not be asked.
        """
        found, complete = dict(self._known), True
        try:
            found |= await self._stored(n + 1, self.params.version)
        except StoreError as error:
            logger.warning("history of the params is what memory holds: %s", error)
            complete = False
        versions = sorted(found, reverse=True)[:n]
        shown = [_shown(found[v], self._before(found, v)) for v in versions]
        return {"versions": shown, "complete": complete}

    async def _put(
        self,
        make: Callable[[Params, int], Params],
        if_version: int | None,
        by: str,
        why: str,
    ) -> dict[str, Any]:
        if not self.ready:
            raise NotReady("the log has not been read to its end yet")
        async with self._lock:
            await self._newest("nothing was changed")
            now = self.params
            if if_version is not None and if_version != now.version:
                raise ParamsConflict(
                    f"the params are at version {now.version}, not {if_version}", now.version
                )
            params = make(now, now.version + 1)
            record = ParamsRecord(
                scope=GLOBAL_SCOPE,
                version=params.version,
                at_us=self._clock.now_us(),
                by=by,
                why=why,
                params=msgspec.json.encode(params).decode(),
            )
            await self._write(record)
            logger.info("params version %d by %s: %s", record.version, by, why)
            return _shown(record, now)

    async def _write(self, record: ParamsRecord) -> None:
        unsure = f"version {record.version} may or may not be in force"
        try:
            async with asyncio.timeout(_HELD_S + _LOG_S):
                await self._producer.publish(PARAMS, [record])
        except (FeedError, TimeoutError) as error:
            raise ParamsNotRecorded(f"{unsure}: {error or 'the log is silent'}") from error
        held = await self._newest(unsure)
        if held is None or (held.version, held.at_us, held.by, held.params) != (
            *(record.version, record.at_us, record.by),
            record.params,
        ):
            raise ParamsConflict(
                f"another change took the place of version {record.version}", self.params.version
            )

    async def _newest(self, otherwise: str) -> ParamsRecord | None:
        """Read the log itself: what it holds now, taken in."""
        try:
            async with asyncio.timeout(_LOG_S):
                found = await latest(self._kafka, PARAMS)
        except (FeedError, TimeoutError) as error:
            raise ParamsNotRecorded(f"{otherwise}: {error or 'the log is silent'}") from error
        record, _ = found.get(GLOBAL_SCOPE, (None, None))
        if not isinstance(record, ParamsRecord):
            return None
        self._take(record)
        return record

    def _take(self, record: ParamsRecord) -> None:
        """As gateways do: only a later version is in force."""
        if record.version <= self.params.version:
            return
        try:
            params = _decoded(record)
        except BadParams as error:
            logger.error("%s; the old stay", error)
            return
        self.params = params
        self._known[record.version] = record
        while len(self._known) > _MOST_SHOWN:
            del self._known[min(self._known)]

    async def _version(self, wanted: int) -> Params:
        if wanted == 0:
            return Params()
        record = self._known.get(wanted)
        if record is None:
            record = (await self._stored(1, wanted)).get(wanted)
        if record is None:
            raise NotFound(f"no version {wanted} of the params")
        return _decoded(record)

    async def _stored(self, n: int, upto: int) -> dict[int, ParamsRecord]:
        async with await Store.open(self._store) as store:
            answer = await store.query(_STORED, {"scope": GLOBAL_SCOPE, "upto": upto, "n": n})
        return {
            int(version): ParamsRecord(
                scope=GLOBAL_SCOPE, version=version, at_us=at_us, by=by, why=why, params=params
            )
            for version, at_us, by, why, params in answer.rows
        }

    def _before(self, found: Mapping[int, ParamsRecord], version: int) -> Params | None:
        if version == 1:
            return Params()
        record = found.get(version - 1)
        try:
            return None if record is None else _decoded(record)
        except BadParams:
            return None


def _decoded(record: ParamsRecord) -> Params:
    try:
        params = msgspec.json.decode(record.params, type=Params)
    except msgspec.DecodeError as error:
        raise BadParams(f"params version {record.version} cannot be used: {error}") from error
    return msgspec.structs.replace(params, version=record.version)


def _shown(record: ParamsRecord, before: Params | None) -> dict[str, Any]:
    """A version as people see it; `changes` is null where the one before it is not known."""
    try:
        changes = None if before is None else differences(before, _decoded(record))
    except BadParams:
        changes = None
    return {
        "version": record.version,
        "at_us": record.at_us,
        "by": record.by,
        "why": record.why,
        "changes": changes,
    }
