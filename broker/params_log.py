"""The params' topic under one hand: read to its end, written to, and read back.

A change is made on what the log holds now; after writing, what the log holds is read again, so
that of two changes made at once by two processes one is told that it lost.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final, Literal

import msgspec

from bidding.params import Params
from broker.errors import ParamsConflict, ParamsNotRecorded
from feeds.clock import Clock
from feeds.compacted import latest
from feeds.control_records import ParamsRecord
from feeds.errors import FeedError
from feeds.kafka import KafkaSettings
from feeds.live_params import GLOBAL_SCOPE, ParamsInForce
from feeds.producer import LogProducer
from feeds.topics import PARAMS

logger = logging.getLogger(__name__)

_LOG_S: Final = 20.0
_HELD_S: Final = 40.0
_MOST_KNOWN: Final = 200
Event = Literal["set", "shadow", "canary", "promote", "rollback", "end"]


class ParamsLog:
    """What the topic says, and the way to add to it. Hold `lock` from reading to writing.

    Attributes
    ----------
    in_force : what gateways make of it
    versions : the records of versions in force, by version
    events : the records of trials, by revision
    """

    def __init__(self, kafka: KafkaSettings, clock: Clock) -> None:
        self._kafka = kafka
        self._clock = clock
        self._producer = LogProducer(kafka)
        self.lock = asyncio.Lock()
        self.in_force = ParamsInForce()
        self.versions: dict[int, ParamsRecord] = {}
        self.events: dict[int, ParamsRecord] = {}
        self._n_versions = 0
        self._n_revisions = 0

    async def close(self) -> None:
        """End within seconds."""
        await self._producer.close()

    def take(self, record: ParamsRecord) -> None:
        """Take in what the topic says, as gateways do."""
        self._n_versions = max(self._n_versions, record.version)
        self._n_revisions = max(self._n_revisions, record.revision)
        changed = self.in_force.take(record)
        if record.scope != GLOBAL_SCOPE:
            _keep(self.events, record.revision, record)
        elif changed:
            _keep(self.versions, record.version, record)

    def next_version(self) -> int:
        """A number that no version has had, in force or tried."""
        return self._n_versions + 1

    def made(
        self,
        event: Event,
        params: Params,
        *,
        by: str,
        why: str,
        scope: str = GLOBAL_SCOPE,
        **more: Any,
    ) -> ParamsRecord:
        """A record of a change made now."""
        self._n_revisions += 1
        return ParamsRecord(
            scope=scope,
            version=params.version,
            at_us=self._clock.now_us(),
            by=by,
            why=why,
            params=msgspec.json.encode(params).decode(),
            revision=self._n_revisions,
            event=event,
            **more,
        )

    async def refresh(self, otherwise: str) -> dict[str, ParamsRecord]:
        """Read the log itself: what it holds now by scope, taken in.

        Raises
        ------
        ParamsNotRecorded
            The log is silent; the message says `otherwise`.
        """
        try:
            async with asyncio.timeout(_LOG_S):
                found = await latest(self._kafka, PARAMS)
        except (FeedError, TimeoutError) as error:
            raise ParamsNotRecorded(f"{otherwise}: {error or 'the log is silent'}") from error
        held = {k: r for k, (r, _) in found.items() if isinstance(r, ParamsRecord)}
        for record in held.values():
            self.take(record)
        return held

    async def write(self, *records: ParamsRecord) -> None:
        """Put records on the log, one a scope, and see that it holds them.

        Raises
        ------
        ParamsNotRecorded
            The log did not take them, or did not say so.
        ParamsConflict
            Another process wrote at the same time.
        """
        unsure = f"version {records[-1].version} may or may not be in force"
        try:
            async with asyncio.timeout(_HELD_S + _LOG_S):
                await self._producer.publish(PARAMS, list(records))
        except (FeedError, TimeoutError) as error:
            raise ParamsNotRecorded(f"{unsure}: {error or 'the log is silent'}") from error
        held = await self.refresh(unsure)
        for record in records:
            if _same(held.get(record.scope), record):
                logger.info(
                    "params version %d, %s by %s: %s",
                    *(record.version, record.event, record.by, record.why),
                )
                continue
            raise ParamsConflict(
                f"another change took the place of version {record.version}",
                self.in_force.params.version,
            )


def _same(held: ParamsRecord | None, record: ParamsRecord) -> bool:
    return held is not None and (
        (held.version, held.revision, held.at_us, held.by, held.event, held.params)
        == (record.version, record.revision, record.at_us, record.by, record.event, record.params)
    )


def _keep(known: dict[int, ParamsRecord], number: int, record: ParamsRecord) -> None:
    known[number] = record
    while len(known) > _MOST_KNOWN:
        del known[min(known)]
