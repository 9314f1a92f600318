"""Sources of pushed telemetry: who is not heard and why, and the operators' word on it.

A mute is a record on `market.sources`; estimators and gateways follow it. One that has ended when
it is written lifts what was there before: the source is heard again from its next event on, and
judged afresh.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from bidding.errors import BadRequest
from broker.errors import NotFound
from feeds.compacted import latest
from feeds.kafka import KafkaSettings
from feeds.market_records import SourceRecord
from feeds.producer import LogProducer
from feeds.topics import SOURCES

MOST_MUTED_S: Final = 31_536_000.0


async def listing(kafka: KafkaSettings, now_us: int) -> list[dict[str, Any]]:
    """Every source that was ever muted, those that are now first. Raises `FeedError`."""
    found = [r for r, _ in (await latest(kafka, SOURCES)).values() if isinstance(r, SourceRecord)]
    rows = [shown(record, now_us) for record in found]
    return sorted(rows, key=lambda row: (not row["muted"], row["source"]))


async def mute(
    kafka: KafkaSettings, source: str, *, now_us: int, for_s: float, by: str, why: str
) -> dict[str, Any]:
    """Hear a source no longer, for a while; as `listing` shows it, once the log has it.

    Raises
    ------
    BadRequest
        No name, or not between no time and a year.
    FeedError
    """
    if not source or not 0.0 < for_s <= MOST_MUTED_S:
        raise BadRequest(
            f"{source!r} cannot be muted for {for_s:g} s",
            path="for_s",
            remedy=f"name a source and a time up to {MOST_MUTED_S:g} s",
        )
    until_us = now_us + round(for_s * 1e6)
    record = SourceRecord(source=source, at_us=now_us, until_us=until_us, by=by, why=why)
    return await _put(kafka, record, now_us)


async def unmute(
    kafka: KafkaSettings, source: str, *, now_us: int, by: str, why: str
) -> dict[str, Any]:
    """Hear a source again; as `listing` shows it, once the log has it.

    Raises
    ------
    NotFound
        It is not muted.
    FeedError
    """
    muted = [row["source"] for row in await listing(kafka, now_us) if row["muted"]]
    if source not in muted:
        raise NotFound(f"{source!r} is not muted; muted are: {', '.join(muted) or 'none'}")
    record = SourceRecord(source=source, at_us=now_us, until_us=0, by=by, why=why)
    return await _put(kafka, record, now_us)


def shown(record: SourceRecord, now_us: int) -> dict[str, Any]:
    """A source's newest record for people."""
    fields = msgspec.structs.asdict(record)
    for name in ("gateway", "boot", "seq"):
        del fields[name]
    return {"muted": record.at_us <= now_us < record.until_us, **fields}


async def _put(kafka: KafkaSettings, record: SourceRecord, now_us: int) -> dict[str, Any]:
    record.gateway = "ops"
    async with LogProducer(kafka) as producer:
        await producer.publish(SOURCES, [record])
    return shown(record, now_us)
