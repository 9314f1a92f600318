"""Everything recorded about one decision, as the records it was written as.

The gateway answers `/v1/decisions/{id}` from memory while it remembers the decision and from here
afterwards; the autopsy in words and the exact replay (`analytics.remake`) build on the same struct.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from analytics.store import Store
from feeds.records import AttemptRecord, DecisionRecord, FeedbackRecord, Written

T = TypeVar("T", bound=Written)

_DECISION: Final = """
SELECT * REPLACE (toUnixTimestamp64Micro(at) AS at) FROM {raw:Identifier}.decisions
WHERE decision_id = {id:String} ORDER BY _life DESC, _offset DESC LIMIT 1
"""
_DECISIONS: Final = """
SELECT * REPLACE (toUnixTimestamp64Micro(at) AS at) FROM {raw:Identifier}.decisions
WHERE decision_id IN {ids:Array(String)} ORDER BY _life DESC, _offset DESC LIMIT 1 BY decision_id
"""
_SAMPLE: Final = """
SELECT decision_id FROM {raw:Identifier}.decisions WHERE at >= {since:DateTime64(6, 'UTC')}
ORDER BY cityHash64(decision_id) LIMIT {n:UInt64}
"""
_AT_ONCE: Final = 1_000
_ATTEMPTS: Final = """
SELECT * REPLACE (toUnixTimestamp64Micro(at) AS at,
    toUnixTimestamp64Micro(started_at) AS started_at)
FROM {raw:Identifier}.attempts WHERE decision_id = {id:String} ORDER BY n, at
"""
_FEEDBACK: Final = """
SELECT * REPLACE (toUnixTimestamp64Micro(at) AS at) FROM {raw:Identifier}.feedback
WHERE decision_id = {id:String} ORDER BY at
"""
_EXACT: Final = {
    "output_format_json_quote_64bit_integers": 0,
    "output_format_json_named_tuples_as_objects": 0,
}


class DecisionLine(Struct, frozen=True, kw_only=True):
    """A decision, its attempts in order, and the scores of its answer."""

    decision: DecisionRecord
    attempts: list[AttemptRecord]
    feedback: list[FeedbackRecord]


async def decision_line(store: Store, decision_id: str) -> DecisionLine | None:
    """All that is stored about a decision; None if there is no such decision (yet).

    A record written moments ago may still be on its way. Whether the asker may see it is for
    the caller to judge by `decision.tenant`.

    Raises
    ------
    StoreUnavailable, StoreRejected
    """
    decisions = await _records(store, _DECISION, decision_id, DecisionRecord)
    if not decisions:
        return None
    return DecisionLine(
        decision=decisions[0],
        attempts=await _records(store, _ATTEMPTS, decision_id, AttemptRecord),
        feedback=await _records(store, _FEEDBACK, decision_id, FeedbackRecord),
    )


async def sample(store: Store, n: int, *, since: str = "") -> list[str]:
    """Ids of up to `n` stored decisions, drawn evenly by a hash of their ids.

    Parameters
    ----------
    since : a moment as ClickHouse reads one, UTC; empty for all

    Raises
    ------
    StoreUnavailable, StoreRejected
    """
    moment = since or "1970-01-01 00:00:00"
    answer = await store.query(_SAMPLE, {"n": n, "since": moment})
    return [str(row[0]) for row in answer.rows]


async def decisions(store: Store, ids: Sequence[str]) -> list[DecisionRecord]:
    """Stored decisions by their ids, those not stored left out, in no order.

    Raises
    ------
    StoreUnavailable, StoreRejected
    """
    found: list[DecisionRecord] = []
    for start in range(0, len(ids), _AT_ONCE):
        params = {"ids": list(ids[start : start + _AT_ONCE])}
        body = await store.export(_DECISIONS, params, fmt="JSONEachRow", settings=_EXACT)
        rows = map(msgspec.json.decode, body.splitlines())
        found += [record_of(row, DecisionRecord) for row in rows]
    return found


async def _records(store: Store, sql: str, decision_id: str, record: type[T]) -> list[T]:
    body = await store.export(sql, {"id": decision_id}, fmt="JSONEachRow", settings=_EXACT)
    return [record_of(msgspec.json.decode(line), record) for line in body.splitlines()]


def record_of(row: dict[str, Any], record: type[T]) -> T:
    """The record a row was spliced from. The tables write "none" as an empty text or list."""
    values: dict[str, Any] = {"kind": record.__struct_config__.tag}
    for field in msgspec.structs.fields(record):
        name = field.name
        value = row[name.removesuffix("_us") if name in ("at_us", "started_at_us") else name]
        if value in ("", []) and _may_be_none(field.type):
            value = None
        values[name] = value
    return msgspec.convert(values, record)


def _may_be_none(kind: Any) -> bool:
    return type(None) in getattr(kind, "__args__", ())
