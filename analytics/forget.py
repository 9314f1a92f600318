"""Forgetting a tenant or a session: their rows removed from the history, and counted to prove it.

Rows are deleted, rollups that name the tenant too; sums that name nobody stay (0025). Of a log's
partition the newest row stays where it is theirs, emptied: the recorder finds the end of what it
stored by that row, and would otherwise read the forgotten ones from the log once more.

What was stored a moment ago may just now be counted by the recorder that stored it, so forgetting
waits before it deletes. Records that are still on the log are stored after that: whoever goes on
asking is not forgotten, which the last count says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from msgspec import Struct

from analytics.store import Params, Store, Value

#: Longer than an append takes from its insert to its count, with a store that is busy.
WAIT_S: Final = 15.0
_EMPTY_DECISION: Final = (
    "decision_id = '', tenant = '', task = '', sla_class = '', session = '', sla = '',"
    " features = [], candidates = [], ranked = [], incumbent = '', winner = '',"
    " delivered_offer = '', seed = 0, cached_from = '', verdicts = []"
)


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
_BY_TENANT: Final = "tenant = {tenant:String}"
_BY_CLASS: Final = "startsWith(sla_class, concat({tenant:String}, '|'))"
_BY_SESSION: Final = (
    "decision_id IN (SELECT decision_id FROM {raw:Identifier}.decisions"
    " WHERE session = {session:String})"
)
_BLANK: Final = {
    "attempts": "attempt_id = '', decision_id = '', tenant = '', task = '', sla_class = '',"
    " reason = ''",
    "feedback": "feedback_id = '', decision_id = '', tenant = '', task = '', sla_class = '',"
    " features = []",
    "prompts": "decision_id = '', tenant = '', session = '', body = ''",
    "decisions": _EMPTY_DECISION,
    "dead": "payload = '', reason = ''",
}


def places(*, tenant: str = "", session: str = "") -> list[Place]:
    """Where a tenant's or a session's rows are, in the order in which they must go.

    A session's attempts and scores are found by its decisions, so those go last.
    """
    if bool(tenant) == bool(session):
        raise ValueError("a tenant or a session")
    dead = "position(tryBase64Decode(payload), {quoted:String}) > 0"
    if session:
        conditions = {
            "attempts": _BY_SESSION,
            "feedback": _BY_SESSION,
            "prompts": "session = {session:String}",
            "dead": dead,
            "decisions": "session = {session:String}",
        }
        return [Place(table=t, mine=c, emptied=_BLANK[t]) for t, c in conditions.items()]
    raw = [
        Place(table=t, mine=dead if t == "dead" else _BY_TENANT, emptied=_BLANK[t]) for t in _BLANK
    ]
    return [
        *raw,
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


async def counts(store: Store, *, tenant: str = "", session: str = "") -> dict[str, int]:
    """How many rows of theirs each table holds now."""
    params = _params(tenant, session)
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
    params = _params(tenant, session)
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


def _params(tenant: str, session: str) -> dict[str, object]:
    name, value = ("tenant", tenant) if tenant else ("session", session)
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return {"tenant": tenant, "session": session, "quoted": f'"{name}":"{escaped}"'}


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
    await store.command(f"{_NOTE} WHERE {mine} GROUP BY gateway, boot", {**table, "scope": scope})
    await _mutate(store, f"DELETE WHERE {mine}", table)


async def _mutate(store: Store, what: str, params: Params) -> None:
    """Change a table and wait until every part, on every replica, is changed."""
    cluster = f" ON CLUSTER '{store.settings.cluster}'" if store.settings.cluster else ""
    settings: dict[str, Value] = {"mutations_sync": 2, "allow_nondeterministic_mutations": 1}
    sql = f"ALTER TABLE {{raw:Identifier}}.{{table:Identifier}}{cluster} {what}"
    await store.command(sql, params, settings)
