"""Records into rows: the bytes that came off the log, with their place spliced in. Pure.

ClickHouse reads JSON faster than Python can transpose it, and the pipeline has validated the
record anyway, so a row is `{"_log":…,"_offset":17,` followed by the record's own JSON without its
first brace: some 0.5 µs. Columns take their fields by name; what a table has no column for is
passed over. Topics that `restore` writes back keep the record whole, as text.

What ClickHouse reads differently from us (a key given twice, a key named like a column of ours)
makes it refuse the batch; `canonical` then writes the same rows from the decoded records.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct

from feeds.codec import Record, encode
from feeds.market_records import AskRecord, CalibrationRecord
from feeds.records import Written
from feeds.topics import BY_NAME, DECISIONS, PRICES, QUOTES, Topic, key_of

_PLACE: Final = ("_log", "_life", "_partition", "_offset", "_batch_first", "_batch_last", "_day")
#: Records that travel on another kind's topic.
_GUESTS: Final = frozenset({(QUOTES.name, CalibrationRecord), (PRICES.name, AskRecord)})
_encode = msgspec.json.encode


class Place(Struct, frozen=True, kw_only=True):
    """Where a batch stands: the columns all its rows share.

    `life` numbers the log's incarnations as the store met them; `first` and `last` are the range
    of offsets appended with the batch; `day` (YYYY-MM-DD) is the table partition it goes to.
    """

    log: str
    life: int
    partition: int
    first: int
    last: int
    day: str


def table_of(topic: str) -> str:
    """The raw table of a topic.

    Examples
    --------
    >>> table_of("market.attempts")
    'attempts'
    """
    return topic.rsplit(".", 1)[-1]


def kept_whole(topic: Topic) -> bool:
    """Whether the table keeps the record as text, to be written back to an empty log."""
    return topic.compacted


def columns(topic: Topic) -> tuple[str, ...]:
    """The columns an insert into the topic's table names; the others have defaults."""
    if kept_whole(topic):
        return (*_PLACE, "_key", "record")
    return (*_PLACE, *(f.encode_name for f in msgspec.structs.fields(topic.record)))


def unstorable(topic: str, record: Written) -> str:
    """Why the store cannot hold this record, or "": it came in on a topic of another kind, or
    holds a number no column can.
    """
    expected = BY_NAME[topic].record
    if type(record) is not expected and (topic, type(record)) not in _GUESTS:
        return f"a {type(record).__name__} on {topic}, which holds {expected.__name__}s"
    if topic == DECISIONS.name:
        seed: int = getattr(record, "seed", 0)
        if not 0 <= seed < 1 << 64:
            return f"seed {seed} is not an unsigned 64-bit number"
    return ""


def splice(place: Place, offsets: Sequence[int], payloads: Sequence[bytes]) -> bytes:
    """Rows of a table that takes the record's fields as columns, as JSON objects, one a line.

    Parameters
    ----------
    place : Place
    offsets : of each record
    payloads : each record's JSON object as it came, validated; white space around it is allowed

    Examples
    --------
    >>> place = Place(log="L", life=1, partition=0, first=7, last=7, day="2026-11-24")
    >>> splice(place, [7], [b'{"kind":"attempt/1"}'])[-36:]
    b'"_offset":7,"kind":"attempt/1"}\\n'
    """
    head = _head(place)
    return b"".join(
        [
            b"%b%d,%b\n" % (head, o, p[1:] if p[0] == 123 else p.lstrip()[1:])
            for o, p in zip(offsets, payloads, strict=True)
        ]
    )


def canonical(place: Place, offsets: Sequence[int], records: Sequence[Record]) -> bytes:
    """The same rows written anew from the records: no key twice, none that we do not know."""
    return splice(place, offsets, [encode(r) for r in records])


def whole(
    topic: Topic,
    place: Place,
    offsets: Sequence[int],
    payloads: Sequence[bytes],
    records: Sequence[Record],
) -> bytes:
    """Rows of a table that keeps the record as text, beside its key on the log."""
    head = _head(place)
    return b"".join(
        [
            b'%b%d,"_key":%b,"record":%b}\n'
            % (head, o, _encode(key_of(topic, r).decode()), _encode(p.decode()))
            for o, p, r in zip(offsets, payloads, records, strict=True)
        ]
    )


def _head(place: Place) -> bytes:
    fixed = {
        "_log": place.log,
        "_life": place.life,
        "_partition": place.partition,
        "_batch_first": place.first,
        "_batch_last": place.last,
        "_day": place.day,
    }
    return _encode(fixed)[:-1] + b',"_offset":'
