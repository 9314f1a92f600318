"""The schema on a live store: repeatable, refuses what it cannot continue, fits the records."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from analytics.chain import Chain, ChainStats
from analytics.errors import BadMigrations, StoreDiffers
from analytics.migrate import Migration, migrate, migrations
from analytics.rows import columns, table_of
from analytics.store import Store
from bidding.outcome import FailureClass, lesson
from broker.embedded.store import ChdbServer
from feeds.topics import ATTEMPTS, TOPICS
from tests.fakes import facts
from tests.fakes.desk import migrated, settings_of


@pytest.fixture
async def store(chdb_server: ChdbServer) -> AsyncIterator[Store]:
    async with migrated(chdb_server) as store:
        yield store


async def _tables(store: Store) -> list[tuple[str, str]]:
    answer = await store.query(
        "SELECT name, create_table_query FROM system.tables"
        " WHERE database IN ({d:String}, {r:String}) ORDER BY name",
        {"d": store.settings.database, "r": store.settings.raw},
    )
    return [(a, b) for a, b in answer.rows]


async def test_migrating_again_changes_nothing(store: Store) -> None:
    before = await _tables(store)
    assert await migrate(store) == []
    assert await _tables(store) == before


async def test_a_migration_cut_off_half_way_is_finished_by_running_it_again(
    chdb_server: ChdbServer,
) -> None:
    async with migrated(chdb_server) as store:
        await store.command("TRUNCATE TABLE {raw:Identifier}.migrations")
        assert await migrate(store) == [m.name for m in migrations()]


async def test_two_processes_may_migrate_at_once(chdb_server: ChdbServer) -> None:
    async with await Store.open(settings_of(chdb_server, "tmig2")) as store:
        await asyncio.gather(migrate(store), migrate(store))
        assert await migrate(store) == []
        for database in ("tmig2", "tmig2_raw"):
            await store.command(f"DROP DATABASE {database}")


async def test_a_later_migration_is_added(store: Store) -> None:
    files = migrations()
    more = Migration(
        len(files) + 1,
        "more",
        "ALTER TABLE market_raw.attempts${cluster} ADD COLUMN IF NOT EXISTS extra Int64;\n",
    )
    assert await migrate(store, [*files, more]) == ["more"]
    with pytest.raises(BadMigrations, match=r"does not know; run a build at least as new"):
        await migrate(store, files)


async def test_a_changed_file_is_refused(store: Store) -> None:
    first, *rest = migrations()
    changed = Migration(first.number, first.name, first.text + "-- a word more\n")
    with pytest.raises(BadMigrations, match="applied from another text"):
        await migrate(store, [changed, *rest])


async def test_a_hole_in_the_stores_history_is_refused(store: Store) -> None:
    await store.command(
        "ALTER TABLE {raw:Identifier}.migrations DELETE WHERE number = 2",
        settings={"mutations_sync": 1},
    )
    with pytest.raises(BadMigrations, match="lacks migration 2"):
        await migrate(store)


@pytest.mark.parametrize("table", ["attempts", "offer_minutes", "latest"])
async def test_a_window_too_small_is_refused_at_start(store: Store, table: str) -> None:
    await store.command(
        "ALTER TABLE {raw:Identifier}.{table:Identifier}"
        " MODIFY SETTING non_replicated_deduplication_window = 100",
        {"table": table},
    )
    with pytest.raises(StoreDiffers, match=rf"{table} \(100\)"):
        await migrate(store)


async def test_every_field_of_every_record_has_a_column(store: Store) -> None:
    for topic in TOPICS:
        answer = await store.query(
            "SELECT name FROM system.columns WHERE database = {raw:String} AND table = {t:String}",
            {"raw": store.settings.raw, "t": table_of(topic.name)},
        )
        there = {name for (name,) in answer.rows}
        assert set(columns(topic)) <= there
        if not topic.compacted:
            assert {f.name for f in msgspec.structs.fields(topic.record)} <= there


async def test_the_tables_lesson_is_the_estimators_lesson(store: Store) -> None:
    records = []
    for i, failure in enumerate(FailureClass):
        record = facts.attempt(i)
        record.failure = failure
        records.append(record)
    chain = Chain(store, ATTEMPTS, "L", 1, 0, today=facts.today, stats=ChainStats())
    await chain.append(facts.batch(ATTEMPTS, records, 0))
    answer = await store.query("SELECT failure, lesson FROM {market:Identifier}.attempts")
    assert dict(answer.rows) == {f.value: lesson(f) for f in FailureClass}


async def test_every_analysts_view_and_column_has_a_comment(store: Store) -> None:
    answer = await store.query(
        "SELECT table, name FROM system.columns WHERE database = {d:String} AND comment = ''",
        {"d": store.settings.database},
    )
    assert answer.rows == []
    answer = await store.query(
        "SELECT count(), countIf(comment = '') FROM system.tables WHERE database = {d:String}",
        {"d": store.settings.database},
    )
    assert answer.rows[0][0] >= 15
    assert answer.rows[0][1] == 0
