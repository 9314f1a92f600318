"""Forgetting a tenant or a session: their rows removed from the history, and counted to prove it.

Rows are deleted, rollups that name the tenant too; sums that name nobody stay (0025). Of a log's
partition the newest row stays where it is theirs, emptied: the recorder finds the end of what it
stored by that row, and would otherwise read the forgotten ones from the log once more.

What was stored a moment ago may just now be counted by the recorder that stored it, so forgetting
waits before it deletes. Records that are still on the log are stored after that: whoever goes on
asking is not forgotten, which the last count says.

A tenant may also sell (asks and notices) and push telemetry, under the names its keys give it
there unless others push under the same. Its newest records on compacted topics are removed from
what an empty log is filled with; the log itself is the caller's (`keys_of`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from analytics.store import Params, Store, Value
from feeds.topics import PRICES, SOURCES

#: Longer than an append takes from its insert to its count, with a store that is busy.
WAIT_S: Final = 15.0
_EMPTY_DECISION: Final = (
    "decision_id = '', tenant = '', task = '', sla_class = '', session = '', sla = '',"
    " features = [], candidates = [], ranked = [], incumbent = '', winner = '',"
    " delivered_offer = '', seed = 0, cached_from = '', verdicts = [], budget = ''"
)
_SELLS: Final = "JSONExtractString(record, 'seller') = {tenant:String}"
_ASKS: Final = f"startsWith(_key, 'ask:') AND {_SELLS}"
_KEPT: Final = (
    f"topic = '{PRICES.name}' AND startsWith(key, 'ask:') AND {_SELLS}"
    f" OR topic = '{SOURCES.name}' AND key IN {{sources:Array(String)}}"
)
_NO_PRICES: Final = "(0, 0, NULL, NULL, 0)"


class Place(Struct, frozen=True, kw_only=True):
    """A table that holds something of theirs.

    `mine` is the condition on its rows; `emptied` the assignments that leave nothing of theirs in a
    row that must stay, "" for a rollup, whose rows may all go.
    """

    table: str
    mine: str
    emptied: str = ""


class Counted(Struct, frozen=True):
    """A table's rows of theirs: before, removed, and left."""

    table: str
    before: int
    removed: int
    left: int


# What is put behind these, and into mutations, is one of the conditions below; values are bound.
_COUNT: Final = "SELECT count() FROM {raw:Identifier}.{table:Identifier}"
_KEYS: Final = "SELECT topic, key FROM {raw:Identifier}.{table:Identifier} FINAL"
_NEWEST: Final = """
SELECT _log, _partition, _offset FROM {raw:Identifier}.{table:Identifier}
WHERE (_log, _partition, _offset) IN
    (SELECT _log, _partition, max(_offset) FROM {raw:Identifier}.{table:Identifier}
     GROUP BY _log, _partition)
"""
_NOTE: Final = """
INSERT INTO {raw:Identifier}.forgettings (scope, topic, gateway, boot, n)
SELECT {scope:String}, {table:String}, gateway, boot, count()
FROM {raw:Identifier}.{table:Identifier}
"""
_SOURCES: Final = """
WITH named AS
(
    SELECT DISTINCT
        JSONExtractString(record, 'tenant') AS tenant,
        if(JSONExtractString(record, 'policy', 'source') = '', tenant,
            JSONExtractString(record, 'policy', 'source')) AS source
    FROM {raw:Identifier}.keys
)
SELECT DISTINCT source FROM
    (SELECT source FROM named WHERE tenant = {tenant:String} UNION ALL SELECT {tenant:String})
WHERE source NOT IN (SELECT source FROM named WHERE tenant != {tenant:String} AND tenant != '')
"""
_BY_TENANT: Final = "tenant = {tenant:String}"
_TOLD: Final = "source = 'pushed' AND pusher IN {sources:Array(String)}"
_BY_CLASS: Final = "startsWith(sla_class, concat({tenant:String}, '|'))"
_BY_SESSION: Final = (
    "decision_id IN (SELECT decision_id FROM {raw:Identifier}.decisions"
    " WHERE session = {session:String})"
)
_BLANK: Final = {
    "attempts": "attempt_id = '', decision_id = '', tenant = '', task = '', sla_class = '',"
    " reason = '', pusher = ''",
    "feedback": "feedback_id = '', decision_id = '', tenant = '', task = '', sla_class = '',"
    " features = []",
    "prompts": "decision_id = '', tenant = '', session = '', body = ''",
    "decisions": _EMPTY_DECISION,
    "dead": "payload = '', reason = ''",
}
_BLANK_SOLD: Final = {
    "notices": "ask_id = '', offer = '', seller = '', result = '', reason = ''",
    "prices": f"_key = '', record = '', offer = '', source = '', prices = {_NO_PRICES}",
    "sources": "_key = '', record = '', source = '', offer = ''",
}


def places(*, tenant: str = "", session: str = "") -> list[Place]:
    """Where a tenant's or a session's rows are, in the order in which they must go.

    A session's attempts and scores are found by its decisions, so those go last.
    """
    if bool(tenant) == bool(session):
        raise ValueError("a tenant or a session")
    dead = "multiSearchAny(tryBase64Decode(payload), {quoted:Array(String)})"
    if session:
        conditions = {
            "attempts": _BY_SESSION,
            "feedback": _BY_SESSION,
            "prompts": "session = {session:String}",
            "dead": dead,
            "decisions": "session = {session:String}",
        }
        return [Place(table=t, mine=c, emptied=_BLANK[t]) for t, c in conditions.items()]
    mine = dict.fromkeys(_BLANK, _BY_TENANT)
    mine |= {
        "attempts": f"({_BY_TENANT} OR {_TOLD})",
        "dead": dead,
        "notices": "seller = {tenant:String}",
        "prices": _ASKS,
        "sources": "source IN {sources:Array(String)}",
    }
    blank = _BLANK | _BLANK_SOLD
    return [
        *(Place(table=t, mine=mine[t], emptied=blank[t]) for t in blank),
        Place(table="latest", mine=f"({_KEPT})"),
        Place(table="tenant_hours", mine=_BY_TENANT),
        Place(table="delivery_hours", mine=_BY_CLASS),
        Place(table="score_hours", mine=_BY_CLASS),
    ]


async def sessions_of(store: Store, tenant: str) -> list[str]:
    """Every session that the tenant's decisions name."""
    answer = await store.query(
        "SELECT DISTINCT session FROM {raw:Identifier}.decisions"
        " WHERE tenant = {tenant:String} AND session != ''",
        {"tenant": tenant},
    )
    return [session for (session,) in answer.rows]


async def keys_of(store: Store, tenant: str) -> dict[str, list[str]]:
    """The newest records of theirs on compacted topics: topic to keys."""
    latest = {**await _params(store, tenant, ""), "table": "latest"}
    answer = await store.query(f"{_KEYS} WHERE {_KEPT} ORDER BY key", latest)
    found: dict[str, list[str]] = {}
    for topic, key in answer.rows:
        found.setdefault(topic, []).append(key)
    return found


async def counts(store: Store, *, tenant: str = "", session: str = "") -> dict[str, int]:
    """How many rows of theirs each table holds now."""
    params = await _params(store, tenant, session)
    return {
        place.table: await _count(store, place, params)
        for place in places(tenant=tenant, session=session)
    }


async def forget(
    store: Store,
    *,
    tenant: str = "",
    session: str = "",
    wait_s: float = WAIT_S,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> list[Counted]:
    """Remove what is theirs; rows stored after this began may be left, and are counted.

    Parameters
    ----------
    store : with the writer's account
    tenant, session : one of them; a session by its id (`s_…`)
    wait_s : until rows that are there are certainly counted by whoever stored them

    Raises
    ------
    StoreUnavailable, StoreRejected
        Some may be gone: run it again.
    """
    wanted = places(tenant=tenant, session=session)
    params = await _params(store, tenant, session)
    before = await counts(store, tenant=tenant, session=session)
    (begun,) = (await store.query("SELECT toString(now64(3, 'UTC'))")).rows
    await sleep(wait_s)
    params["before"] = begun[0]
    for place in wanted:
        if before[place.table]:
            await _remove(store, place, params, "tenant" if tenant else "session")
    found = []
    after = await counts(store, tenant=tenant, session=session)
    for place in wanted:
        n, left = before[place.table], after[place.table]
        found.append(Counted(place.table, n, max(n - left, 0), left))
    return found


async def _params(store: Store, tenant: str, session: str) -> dict[str, object]:
    if session:
        return {"session": session, "quoted": _quoted(["session"], [session])}
    answer = await store.query(_SOURCES, {"tenant": tenant})
    sources = [source for (source,) in answer.rows]
    quoted = _quoted(["tenant", "seller"], [tenant]) + _quoted(["pusher", "source"], sources)
    return {"tenant": tenant, "sources": sources, "quoted": quoted}


def _quoted(fields: Sequence[str], values: Sequence[str]) -> list[str]:
    """How a record's JSON says so."""
    return [f'"{name}":{msgspec.json.encode(v).decode()}' for name in fields for v in values]


async def _count(store: Store, place: Place, params: Params) -> int:
    answer = await store.query(f"{_COUNT} WHERE {place.mine}", {**params, "table": place.table})
    return int(answer.rows[0][0])


async def _remove(store: Store, place: Place, params: Params, scope: str) -> None:
    table = {**params, "table": place.table}
    if not place.emptied:
        await _mutate(store, f"DELETE WHERE {place.mine}", table)
        return
    mine = f"{place.mine} AND _stored_at <= {{before:DateTime64(3, 'UTC')}}"
    last = (await store.query(f"{_NEWEST} AND {mine}", table)).rows
    for log, partition, offset in last:
        await _mutate(
            store,
            f"UPDATE {place.emptied} WHERE _log = {{log:String}}"
            " AND _partition = {partition:Int32} AND _offset = {offset:Int64}",
            {**table, "log": log, "partition": partition, "offset": offset},
        )
    if place.table in _BLANK:
        note = f"{_NOTE} WHERE {mine} GROUP BY gateway, boot"
        await store.command(note, {**table, "scope": scope})
    await _mutate(store, f"DELETE WHERE {mine}", table)


async def _mutate(store: Store, what: str, params: Params) -> None:
    """Change a table and wait until every part, on every replica, is changed."""
    cluster = f" ON CLUSTER '{store.settings.cluster}'" if store.settings.cluster else ""
    settings: dict[str, Value] = {"mutations_sync": 2, "allow_nondeterministic_mutations": 1}
    sql = f"ALTER TABLE {{raw:Identifier}}.{{table:Identifier}}{cluster} {what}"
    await store.command(sql, params, settings)
