"""Views of gateways, made again from what is stored: the book's records and the overlay.

A view's record says by which offsets the book had moved, as changes on an earlier record; the
records themselves are in the raw tables. Views of one gateway are made in order, each from
the one before, so a thousand of them cost little more than reading their records once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from analytics.errors import NotStored
from analytics.rows import table_of
from analytics.store import Store
from bidding.market import Catalogue
from bidding.params import Params
from feeds.codec import Record, decode
from feeds.control_records import CatalogueRecord
from feeds.errors import BadRecord
from feeds.market_records import ViewRecord
from feeds.view_maker import Place, Remade, ViewMaker, place_of
from feeds.views import positions_of

_CHUNK: Final = 64
_MOST_OFFSETS: Final = 20_000
_EXACT: Final = {
    "output_format_json_quote_64bit_integers": 0,
    "output_format_json_named_tuples_as_objects": 0,
}
_VIEWS: Final = """
SELECT view_number, toUnixTimestamp64Micro(at) AS at_us, base, applied, overlay, catalogue, defaults
FROM {raw:Identifier}.views
WHERE gateway = {gateway:String} AND boot = {boot:String}
  AND view_number >= {first:Int64} AND view_number <= {last:Int64}
ORDER BY view_number LIMIT 1 BY view_number
"""
_WHOLE: Final = """
SELECT max(view_number) FROM {raw:Identifier}.views
WHERE gateway = {gateway:String} AND boot = {boot:String} AND base = 0
  AND view_number <= {first:Int64}
"""
_RECORDS: Final = """
SELECT _offset, record FROM {raw:Identifier}.{table:Identifier}
WHERE _log = {log:String} AND _partition = {partition:Int32}
  AND _offset >= {low:Int64} AND _offset <= {high:Int64} AND _offset IN (%s)
"""
_CATALOGUE: Final = """
SELECT record FROM {raw:Identifier}.catalogue WHERE digest = {digest:String} LIMIT 1
"""
_PARAMS: Final = """
SELECT version, argMin(params, _stored_at) FROM {raw:Identifier}.params
WHERE scope IN ('global', 'shadow', 'canary') GROUP BY version
"""


class Rebuilder:
    """Makes views again. Keeps catalogues and params it has read; not for concurrent use."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._catalogues: dict[str, Catalogue] = {}
        self._params: dict[int, Params] = {}

    async def params(self, version: int, defaults: Params) -> Params:
        """A version of the params.

        Raises
        ------
        NotStored
        """
        if version == 0:
            return defaults
        if version not in self._params:
            answer = await self._store.query(_PARAMS)
            for number, text in answer.rows:
                known = msgspec.json.decode(text, type=Params)
                self._params[int(number)] = msgspec.structs.replace(known, version=int(number))
        if version not in self._params:
            raise NotStored(f"version {version} of the params is not in the store")
        return self._params[version]

    async def view(self, gateway: str, boot: str, number: int) -> Remade:
        """One view of a gateway, as a decision read it.

        Raises
        ------
        NotStored
            Something it was made of is not in the store (yet, or any more).
        """
        async for _, remade in self.views(gateway, boot, [number]):
            return remade
        raise NotStored(f"view {number} of {gateway} is not in the store")

    async def views(
        self, gateway: str, boot: str, numbers: Sequence[int]
    ) -> AsyncIterator[tuple[int, Remade]]:
        """Views of one gateway's start, in the order of their numbers; those not stored left out.

        Raises
        ------
        NotStored
            A record that moved the book is missing.
        StoreUnavailable, StoreRejected
        """
        wanted = sorted(set(numbers))
        if not wanted:
            return
        where: dict[str, object] = {"gateway": gateway, "boot": boot}
        found = await self._store.query(_WHOLE, {**where, "first": wanted[0]})
        first = int(found.rows[0][0])
        rest = set(wanted)
        making = ViewMaker(self._catalogues)
        while rest:
            last = first + _CHUNK * 16
            records = await self._records(where, first, last)
            for start in range(0, len(records), _CHUNK):
                some = records[start : start + _CHUNK]
                if not await self._moved(making, some):
                    return
                for record in some:
                    making.step(record)
                    if record.view_number in rest:
                        rest.discard(record.view_number)
                        yield record.view_number, making.remade(record)
                    if not rest:
                        return
            if last >= wanted[-1]:
                return
            first = last + 1

    async def _records(
        self, where: Mapping[str, object], first: int, last: int
    ) -> list[ViewRecord]:
        body = await self._store.export(
            _VIEWS, {**where, "first": first, "last": last}, fmt="JSONEachRow", settings=_EXACT
        )
        return [msgspec.json.decode(line, type=_StoredView).record() for line in body.splitlines()]

    async def _moved(self, making: ViewMaker, records: Sequence[ViewRecord]) -> bool:
        """Read what the next views are made of; False when no whole one is there to begin with."""
        begun = making.book is not None
        if not begun and (not records or records[0].base != 0):
            return False
        for record in records:
            if record.base == 0 and record.catalogue not in self._catalogues:
                self._catalogues[record.catalogue] = await self._catalogue(record.catalogue)
        needed = {place_of(p) for r in records for p in positions_of(r)}
        await self.fetch(needed - making.taken, making.records)
        return True

    async def fetch(self, needed: set[Place], into: dict[Place, Record]) -> None:
        """Read records by their places on the log."""
        groups: dict[tuple[str, str, int], list[int]] = {}
        for log, topic, partition, offset in needed - into.keys():
            groups.setdefault((log, topic, partition), []).append(offset)
        for (log, topic, partition), all_offsets in groups.items():
            all_offsets.sort()
            for start in range(0, len(all_offsets), _MOST_OFFSETS):
                offsets = all_offsets[start : start + _MOST_OFFSETS]
                answer = await self._store.query(
                    _RECORDS % ",".join(map(str, offsets)),
                    {
                        "table": table_of(topic),
                        "log": log,
                        "partition": partition,
                        "low": offsets[0],
                        "high": offsets[-1],
                    },
                    {"max_query_size": 16_000_000},
                )
                for offset, text in answer.rows:
                    try:
                        into[Place(log, topic, partition, int(offset))] = decode(text.encode())
                    except BadRecord as error:
                        raise NotStored(f"{topic} at {offset}: {error}") from error

    async def _catalogue(self, digest: str) -> Catalogue:
        answer = await self._store.query(_CATALOGUE, {"digest": digest})
        if not answer.rows:
            raise NotStored(f"catalogue {digest} is not in the store")
        record = decode(answer.rows[0][0].encode())
        assert isinstance(record, CatalogueRecord)
        return record.catalogue


class _StoredView(Struct):
    view_number: int
    at_us: int
    base: int
    applied: dict[str, list[int]]
    overlay: dict[str, list[float]]
    catalogue: str
    defaults: str

    def record(self) -> ViewRecord:
        return ViewRecord(**msgspec.structs.asdict(self))
