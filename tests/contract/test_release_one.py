"""A store of the first release, with its data, brought to this build's schema while written to.

`golden/release_one.json` holds what that release was: checksums of its migrations, whose files are
frozen, the columns its recorder named, and its topics. So the recorder here writes as that one did.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from analytics import chain, lives, recorder
from analytics.chain import Chain, ChainStats
from analytics.migrate import migrate, migrations
from analytics.rows import columns
from analytics.store import Store
from broker.embedded.store import ChdbServer
from broker.embedded.tansu import Tansu
from feeds.codec import Record
from feeds.producer import LogProducer
from feeds.records import AttemptRecord
from feeds.topics import ATTEMPTS, BY_NAME, DECISIONS, FEEDBACK, TOPICS, Topic
from tests.fakes import facts
from tests.fakes.desk import settings_of
from tests.fakes.log_rig import quick_groups
from tests.fakes.recording import recording
from tests.fakes.rollups import PAIRS, assert_rollups_equal_raw

RELEASE: dict[str, Any] = msgspec.json.decode(
    (Path(__file__).parents[1] / "golden" / "release_one.json").read_bytes()
)
N_OLD = 1_000


def attempt(i: int) -> AttemptRecord:
    """As gateways of that release wrote them: nobody pushed telemetry yet."""
    record = facts.attempt(i)
    return msgspec.structs.replace(
        record, source="gateway" if record.source == "pushed" else record.source, pusher=""
    )


_MAKERS = {ATTEMPTS: attempt, DECISIONS: facts.decision, FEEDBACK: facts.feedback}


def as_of_release_one(topic: Topic) -> tuple[str, ...]:
    """The columns that the first release's recorder named."""
    return tuple(RELEASE["columns"].get(topic.name) or columns(topic))


def test_its_migrations_are_as_they_were() -> None:
    for migration in migrations()[: len(RELEASE["migrations"])]:
        name = f"{migration.number:04d}_{migration.name}"
        assert RELEASE["migrations"][name] == migration.checksum
    for name, named in RELEASE["columns"].items():
        assert set(named) <= set(columns(BY_NAME[name]))


async def fingerprint(store: Store) -> list[tuple[Any, ...]]:
    """What the first release wrote, row by row, in its own columns; and its rollups' sums."""
    found: list[tuple[Any, ...]] = []
    for topic in _MAKERS:
        table = topic.name.rsplit(".", 1)[-1]
        named = [c for c in as_of_release_one(topic) if not c.endswith("at_us")]
        answer = await store.query(
            f"SELECT count(), sum(cityHash64({', '.join(named)})), min(at), max(at)"
            " FROM {raw:Identifier}.{table:Identifier} WHERE _log = 'old'",
            {"table": table},
        )
        found += answer.rows
    return found


async def n_rows(store: Store) -> dict[str, int]:
    return {
        topic.name: (
            await store.query(
                "SELECT count() FROM {raw:Identifier}.{t:Identifier}",
                {"t": topic.name.rsplit(".", 1)[-1]},
            )
        ).rows[0][0]
        for topic in _MAKERS
    }


async def test_migrating_under_a_recorder_at_work_loses_nothing(
    chdb_server: ChdbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "columns", as_of_release_one)
    then = tuple(t for t in TOPICS if t.name in RELEASE["topics"])
    monkeypatch.setattr(recorder, "CHANGES", tuple(t for t in then if t not in recorder.FACTS))
    monkeypatch.setattr(lives, "TOPICS", then)
    async with Tansu() as log, await Store.open(settings_of(chdb_server, "trelease1")) as store:
        assert len(await migrate(store, migrations()[: len(RELEASE["migrations"])])) == 4
        for topic, make in _MAKERS.items():
            old = Chain(store, topic, "old", 1, 0, today=facts.today, stats=ChainStats())
            await old.append(facts.batch(topic, [make(i) for i in range(N_OLD)], 0, log="old"))
        before = await fingerprint(store)
        kafka = quick_groups(log.bootstrap, max_partitions=1)
        sent = dict.fromkeys((topic.name for topic in _MAKERS), 0)
        async with (
            recording(kafka, store, max_records=400, max_wait_ms=10) as running,
            LogProducer(kafka) as producer,
        ):

            async def write_until(done: asyncio.Task[Any]) -> None:
                while not done.done() or min(sent.values()) < 300:
                    for topic, make in _MAKERS.items():
                        first = N_OLD + sent[topic.name]
                        records: Sequence[Record] = [make(i) for i in range(first, first + 100)]
                        await producer.publish(topic, records)
                        sent[topic.name] += len(records)
                    await stored(store, {name: N_OLD + n - 200 for name, n in sent.items()})

            async def migrated() -> list[str]:
                await stored(store, dict.fromkeys(sent, N_OLD + 100))
                return await migrate(store)

            migrating = asyncio.create_task(migrated())
            await write_until(migrating)
            assert await migrating == [m.name for m in migrations()[4:]]
            await stored(store, {name: N_OLD + n for name, n in sent.items()})
            assert not running.done()
        assert await fingerprint(store) == before
        assert await n_rows(store) == {name: N_OLD + n for name, n in sent.items()}
        await projections_built(store)
        await assert_rollups_equal_raw(store)
        # This build's recorder takes over where that one stopped, and fills what is new.
        monkeypatch.undo()
        newer = facts.decision(1)
        newer.decision_id, newer.session = "d-newer", "s-1"
        async with (
            recording(kafka, store, max_records=400, max_wait_ms=10),
            LogProducer(kafka) as producer,
        ):
            await producer.publish(DECISIONS, [newer])
            await stored(store, {DECISIONS.name: N_OLD + sent[DECISIONS.name] + 1})
        answer = await store.query(
            "SELECT decision_id, session FROM {raw:Identifier}.decisions WHERE session != ''"
        )
        assert answer.rows == [("d-newer", "s-1")]
        await assert_rollups_equal_raw(store)
        for database in ("trelease1", "trelease1_raw"):
            await store.command(f"DROP DATABASE {database}")


async def projections_built(store: Store) -> None:
    """Wait until every part has its projections, those from before the migration too."""
    deadline_s = time.monotonic() + 60
    while True:
        parts = dict(
            (
                await store.query(
                    "SELECT table, count() FROM system.parts"
                    " WHERE active AND database = {raw:String} AND rows > 0 GROUP BY table"
                )
            ).rows
        )
        answer = await store.query(
            "SELECT table, name, count() FROM system.projection_parts"
            " WHERE active AND database = {raw:String} GROUP BY table, name ORDER BY table, name"
        )
        if len(answer.rows) == 6 and all(n == parts[table] for table, _, n in answer.rows):
            return
        assert time.monotonic() < deadline_s, answer.rows
        await asyncio.sleep(0.1)


async def stored(store: Store, wanted: dict[str, int]) -> None:
    deadline_s = time.monotonic() + 60
    while True:
        found = await n_rows(store)
        if all(found[name] >= n for name, n in wanted.items()):
            return
        assert time.monotonic() < deadline_s, f"{found}, wanted {wanted}"
        await asyncio.sleep(0.02)


async def test_every_rollup_is_compared_with_its_raw_rows(chdb_server: ChdbServer) -> None:
    async with await Store.open(settings_of(chdb_server, "trollups")) as store:
        await migrate(store)
        answer = await store.query(
            "SELECT name FROM system.tables WHERE database = {raw:String}"
            " AND engine LIKE '%AggregatingMergeTree' ORDER BY name",
            {"raw": store.settings.raw},
        )
        assert [name for (name,) in answer.rows] == sorted(PAIRS)
        for database in ("trollups", "trollups_raw"):
            await store.command(f"DROP DATABASE {database}")
