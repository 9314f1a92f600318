"""A migrated database of a test's own on a store shared by all."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from analytics.migrate import migrate
from analytics.store import Store, StoreSettings
from broker.embedded.store import ChdbServer


def settings_of(server: ChdbServer, database: str) -> StoreSettings:
    """The writer's way to `database` on an embedded store."""
    return StoreSettings(
        port=server.port,
        username=server.writer.user,
        password=server.writer.password,
        database=database,
    )


@asynccontextmanager
async def migrated(server: ChdbServer) -> AsyncIterator[Store]:
    """A store whose database is new, migrated, and dropped at the end."""
    async with migrated_as(server, f"t{uuid.uuid4().hex[:12]}") as store:
        yield store


@asynccontextmanager
async def migrated_as(server: ChdbServer, name: str) -> AsyncIterator[Store]:
    """The same under a name of the caller's: `market` is the one that analysts may read."""
    async with await Store.open(settings_of(server, name)) as store:
        await migrate(store)
        yield store
        for database in (name, f"{name}_raw"):
            await store.command(f"DROP DATABASE {database}")


async def emptied(store: Store) -> None:
    """Empty every table but the schema's history; tokens of what was in them are forgotten."""
    answer = await store.query(
        "SELECT name FROM system.tables WHERE database = {raw:String}"
        " AND engine LIKE '%MergeTree' AND name != 'migrations'",
        {"raw": store.settings.raw},
    )
    for (table,) in answer.rows:
        await store.command("TRUNCATE TABLE {raw:Identifier}.{table:Identifier}", {"table": table})
