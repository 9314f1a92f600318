"""Recorded decisions as moments for a what-if: sampled, with their views, in order of time.

Views of a gateway are made again one after another (`analytics.rebuild`), gateways side by side,
and the earliest next decision of all of them is handed out: class prices belong to all gateways
together, so their decisions must come in one order.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Final

import msgspec
from msgspec import Struct

from analytics.errors import NotStored
from analytics.explain import decisions, sample
from analytics.rebuild import Rebuilder
from analytics.store import Store
from analytics.whatif import Drives, Moment
from bidding.params import Params
from feeds.errors import Unmakeable
from feeds.records import DecisionRecord

MOST_DECISIONS: Final = 5_000
_AT_ONCE: Final = 1_000
_BREATHE_EVERY: Final = 8
_N_SINCE: Final = """
SELECT uniq(decision_id) FROM {raw:Identifier}.decisions WHERE at >= {since:DateTime64(6, 'UTC')}
"""
_SCORES: Final = """
SELECT decision_id, sum(quality * weight) / sum(weight) FROM {raw:Identifier}.feedback
WHERE decision_id IN {ids:Array(String)} AND weight > 0 GROUP BY decision_id
"""
_IN_FORCE: Final = """
SELECT version, params FROM {raw:Identifier}.params
WHERE scope = 'global' ORDER BY version DESC LIMIT 1
"""


class Recorded(Struct, kw_only=True):
    """Decisions of a period: a sample, and how many requests each stands for."""

    records: list[DecisionRecord]
    scores: dict[str, float]
    n_each: int


async def recorded(store: Store, since: datetime, most: int = MOST_DECISIONS) -> Recorded:
    """Up to `most` decisions since a moment, with the scores of their answers.

    Raises
    ------
    StoreUnavailable, StoreRejected
    """
    moment = since.strftime("%Y-%m-%d %H:%M:%S")
    answer = await store.query(_N_SINCE, {"since": moment})
    ids = await sample(store, most, since=moment)
    scores: dict[str, float] = {}
    for start in range(0, len(ids), _AT_ONCE):
        found = await store.query(_SCORES, {"ids": ids[start : start + _AT_ONCE]})
        scores |= {str(i): float(score) for i, score in found.rows}
    return Recorded(
        records=await decisions(store, ids),
        scores=scores,
        n_each=max(1, round(int(answer.rows[0][0]) / max(len(ids), 1))),
    )


async def params_in_force(store: Store) -> Params:
    """The newest params of which the store knows; the defaults where it knows none."""
    answer = await store.query(_IN_FORCE)
    if not answer.rows:
        return Params()
    version, text = answer.rows[0]
    params = msgspec.json.decode(text, type=Params)
    return msgspec.structs.replace(params, version=int(version))


async def driven(store: Store, found: Recorded, now: Params, then: Params) -> Drives:
    """The drives themselves, for whoever wants to look further than the report."""
    drives = Drives(now, then, n_each=found.n_each)
    async for moment in moments(store, found):
        drives.take(moment)
        if drives.n_taken % _BREATHE_EVERY == 0:
            await asyncio.sleep(0)
    return drives


async def moments(store: Store, found: Recorded) -> AsyncIterator[Moment]:
    """Decisions with what they read, in order of time; those that cannot be made are left out."""
    groups: dict[tuple[str, str], list[DecisionRecord]] = {}
    for record in found.records:
        groups.setdefault((record.gateway, record.boot), []).append(record)
    rebuilder = Rebuilder(store)
    streams = [_of_gateway(rebuilder, records, found.scores) for records in groups.values()]
    heads: list[Moment | None] = [await anext(stream, None) for stream in streams]
    while True:
        waiting = [(head.record.at_us, i) for i, head in enumerate(heads) if head is not None]
        if not waiting:
            return
        _, first = min(waiting)
        head = heads[first]
        assert head is not None
        yield head
        heads[first] = await anext(streams[first], None)


async def _of_gateway(
    rebuilder: Rebuilder, records: Sequence[DecisionRecord], scores: dict[str, float]
) -> AsyncIterator[Moment]:
    by_view: dict[int, list[DecisionRecord]] = {}
    for record in records:
        by_view.setdefault(record.view_number, []).append(record)
    first = records[0]
    try:
        async for number, remade in rebuilder.views(first.gateway, first.boot, list(by_view)):
            for record in sorted(by_view[number], key=lambda r: r.at_us):
                try:
                    params = await rebuilder.params(record.params_version, remade.defaults)
                except NotStored:
                    continue
                score = scores.get(record.decision_id)
                yield Moment(remade.view, record, params, remade.class_states, score)
    except (NotStored, Unmakeable):
        return
