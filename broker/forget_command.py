"""`broker forget` and `broker prompt`: what an operator may have erased, and what they may read.

Forgetting covers the history in ClickHouse, and the sessions' state that gateways share. What it
leaves, and why, it says each time: see docs/decisions/0025-privacy.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from msgspec import Struct
from rich.table import Table

from analytics.forget import WAIT_S, Counted, counts, forget, keys_of, sessions_of
from analytics.store import Store
from bidding.errors import BadRequest
from bidding.market import PriceList
from broker.config import Settings
from broker.state import open_state
from broker.vault import Vault
from feeds.clock import SystemClock
from feeds.market_records import AskRecord
from feeds.producer import LogProducer
from feeds.topics import PRICES, SOURCES

KEPT: Final = {
    "offer_minutes, offer_hours_of_week": "sums over all tenants that name none",
    "keys": "hash, name and limits of a key, so that an old one stays refused; `broker key revoke`",
    "skills": "prices and averages of SLA classes by name; 30 days",
    "quotes": "sums of what a source of telemetry claimed of an offer, by its name; 30 days",
    "params": "trials of params on one tenant name it",
    "the log": "records not older than its retention: 7 days, scores 30, prompts 1",
    "gateways' memory": "the newest decisions of each worker, until it restarts",
}


class Forgetting(Struct, frozen=True):
    """What was found, removed, left and kept. `forgotten`: nothing is left."""

    forgotten: bool
    tables: list[Counted]
    sessions_dropped: int
    kept: dict[str, str]


class Prompt(Struct, frozen=True):
    """A kept prompt, opened."""

    decision_id: str
    tenant: str
    body: bytes


def checked(tenant: str, session: str) -> None:
    """Exactly one of the two. Raises `BadRequest`."""
    if bool(tenant) == bool(session):
        raise BadRequest(
            "whom to forget?", remedy="name --tenant or --session (s_…, as the autopsy shows it)"
        )


async def found(settings: Settings, *, tenant: str = "", session: str = "") -> dict[str, int]:
    """Rows of theirs by table. Raises as `run`."""
    checked(tenant, session)
    async with await Store.open(settings.store) as store:
        return await counts(store, tenant=tenant, session=session)


async def run(
    settings: Settings,
    *,
    tenant: str = "",
    session: str = "",
    wait_s: float = WAIT_S,
    sleep: Callable[[float], Awaitable[None]] | None = None,
) -> Forgetting:
    """Forget, and count what is left.

    Raises
    ------
    BadRequest, StoreUnavailable, StoreRejected, StateUnavailable
    LogUnavailable, LogRefused
        Of one who sells or was muted: nothing was removed yet.
    """
    checked(tenant, session)
    more = {} if sleep is None else {"sleep": sleep}
    async with await Store.open(settings.store) as store:
        sessions = {session} if session else set(await sessions_of(store, tenant))
        state = open_state(settings)
        await state.start()
        try:
            dropped = await state.forget_sessions(frozenset(sessions))
        finally:
            await state.close()
        if tenant:
            await _end_on_the_log(settings, await keys_of(store, tenant))
        tables = await forget(store, tenant=tenant, session=session, wait_s=wait_s, **more)
    return Forgetting(
        forgotten=not any(t.left for t in tables),
        tables=tables,
        sessions_dropped=dropped,
        kept=KEPT,
    )


async def _end_on_the_log(settings: Settings, keys: dict[str, list[str]]) -> None:
    """Asks end: a record of nobody takes the place of each. Mutes end where they end, but nobody
    who reads the log anew learns of them.
    """
    if not keys:
        return
    now_us = SystemClock().now_us()
    ended = [
        AskRecord(
            ask_id="",
            offer=key.removeprefix("ask:"),
            at_us=now_us,
            prices=PriceList(input_nusd_per_mtok=0, output_nusd_per_mtok=0),
            from_us=0,
            until_us=0,
            seller="",
            key_id="",
            signature="",
            signed="",
        )
        for key in keys.get(PRICES.name, [])
    ]
    producer = LogProducer(settings.kafka)
    try:
        if ended:
            await producer.publish(PRICES, ended)
        if SOURCES.name in keys:
            await producer.delete(SOURCES, keys[SOURCES.name])
    finally:
        await producer.close()


def in_words(told: Forgetting) -> Table:
    """The proof as a table."""
    table = Table("table", "rows before", "removed", "left")
    for t in told.tables:
        table.add_row(t.table, f"{t.before:,}", f"{t.removed:,}", f"{t.left:,}")
    table.add_row("sessions' shared state", f"{told.sessions_dropped:,}", "all", "0")
    for where, why in told.kept.items():
        table.add_row(f"kept: {where}", why, "", "")
    return table


async def prompt_of(settings: Settings, decision_id: str) -> Prompt:
    """A kept prompt.

    Raises
    ------
    BadRequest
        None is kept of this decision.
    VaultFault
        No key opens it.
    StoreUnavailable, StoreRejected
    """
    async with await Store.open(settings.store) as store:
        answer = await store.query(
            "SELECT tenant, body FROM {raw:Identifier}.prompts"
            " WHERE decision_id = {id:String} AND expires_at > now() AND body != '' LIMIT 1",
            {"id": decision_id},
        )
    if not answer.rows:
        raise BadRequest(
            f"no prompt is kept of {decision_id!r}",
            remedy="only those of tenants in [privacy] keep_prompts_of, until they expire",
        )
    tenant, sealed = answer.rows[0]
    return Prompt(decision_id, tenant, Vault(settings.privacy, SystemClock()).open(sealed))
