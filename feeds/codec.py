"""One encoder and one decoder for every record on the log.

Decoding is strict about types and tolerant of fields it does not know. What cannot be read
raises `BadRecord` with a reason fit for a dead letter; it never raises anything else, whatever
the bytes (msgspec raises `RecursionError` for deep nesting, which is caught here).
"""

from __future__ import annotations

import msgspec

from feeds.control_records import CatalogueRecord, KeyRecord, ParamsRecord
from feeds.errors import BadRecord, UnknownVersion
from feeds.market_records import (
    AskRecord,
    CalibrationRecord,
    FeedRecord,
    NoticeRecord,
    PriceRecord,
    QuoteRecord,
    SeasonRecord,
    SkillRecord,
    SourceRecord,
    StatusRecord,
    ViewRecord,
)
from feeds.records import (
    AttemptRecord,
    DeadRecord,
    DecisionRecord,
    FeedbackRecord,
    PromptRecord,
    Written,
)

Record = (
    AttemptRecord
    | DecisionRecord
    | FeedbackRecord
    | QuoteRecord
    | CalibrationRecord
    | SkillRecord
    | PriceRecord
    | StatusRecord
    | AskRecord
    | NoticeRecord
    | SourceRecord
    | SeasonRecord
    | FeedRecord
    | ViewRecord
    | PromptRecord
    | ParamsRecord
    | KeyRecord
    | CatalogueRecord
    | DeadRecord
)

MAX_RECORD_BYTES = 4 * 1024 * 1024

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)


class _Kind(msgspec.Struct):
    kind: str = ""


_kind_decoder = msgspec.json.Decoder(_Kind)
_kinds = {str(t.__struct_config__.tag) for t in Record.__args__}


def encode(record: Written) -> bytes:
    """The record as JSON."""
    return _encoder.encode(record)


def decode(payload: bytes) -> Record:
    """The record in `payload`.

    Raises
    ------
    BadRecord
        Malformed, too large or nested too deeply.
    UnknownVersion
        Well-formed JSON of a kind this build does not know.
    """
    if len(payload) > MAX_RECORD_BYTES:
        raise BadRecord(f"{len(payload)} bytes, more than {MAX_RECORD_BYTES}")
    try:
        return _decoder.decode(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise _reason(payload, error) from error


def _reason(payload: bytes, error: Exception) -> BadRecord:
    try:
        kind = _kind_decoder.decode(payload).kind
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return BadRecord(f"not a record: {error}")
    if kind not in _kinds:
        return UnknownVersion(f"unknown kind {kind!r}")
    return BadRecord(f"{kind}: {error}")
