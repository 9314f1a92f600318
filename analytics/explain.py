"""Everything recorded about one decision, as the records it was written as.

The gateway answers `/v1/decisions/{id}` from memory while it remembers the decision and from here
afterwards; the autopsy in words and the exact replay build on the same struct.
"""

from __future__ import annotations

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


async def _records(store: Store, sql: str, decision_id: str, record: type[T]) -> list[T]:
    body = await store.export(sql, {"id": decision_id}, fmt="JSONEachRow", settings=_EXACT)
    return [_record(msgspec.json.decode(line), record) for line in body.splitlines()]


def _record(row: dict[str, Any], record: type[T]) -> T:
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
