"""From the log into the store: everything once, what cannot be stored buried, logs replaced."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from analytics.errors import StoreRejected
from analytics.migrate import migrate, migrations
from analytics.recorder import RecorderSettings, Recording
from analytics.restore import restore
from analytics.store import Store
from broker.embedded.store import ChdbServer
from broker.embedded.tansu import Tansu
from feeds.batch import BatchSettings
from feeds.codec import Record, encode
from feeds.compacted import latest
from feeds.control_records import KeyRecord
from feeds.kafka import KafkaSettings, Message
from feeds.pipeline import PipelineSettings
from feeds.producer import LogProducer
from feeds.topics import ATTEMPTS, DECISIONS, FEEDBACK, KEYS, QUOTES, Topic, key_of
from tests.fakes import facts
from tests.fakes.desk import migrated, settings_of
from tests.fakes.log_rig import quick_groups
from tests.fakes.rollups import assert_rollups_equal_raw

_QUICK = PipelineSettings(batch=BatchSettings(max_records=500, max_wait_ms=20))
SETTINGS = RecorderSettings(facts=_QUICK, changes=_QUICK)


@pytest.fixture
async def store(chdb_server: ChdbServer) -> AsyncIterator[Store]:
    async with migrated(chdb_server) as store:
        yield store


@pytest.fixture
async def log() -> AsyncIterator[Tansu]:
    async with Tansu() as log:
        yield log


def kafka_of(log: Tansu) -> KafkaSettings:
    return quick_groups(log.bootstrap, max_partitions=2)


@asynccontextmanager
async def recording(log: Tansu, store: Store) -> AsyncIterator[Recording]:
    """A recorder at work, ended in order."""
    made = Recording(kafka_of(log), store.settings, SETTINGS)
    running = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        made.stop()
        await running


async def publish(log: Tansu, topic: Topic, records: Sequence[Record]) -> None:
    async with LogProducer(kafka_of(log)) as producer:
        await producer.publish(topic, records)


async def send(log: Tansu, messages: Sequence[Message]) -> None:
    async with LogProducer(kafka_of(log)) as producer:
        delivery = await producer.deliver(messages)
        assert delivery.error is None


async def count(store: Store, table: str) -> int:
    answer = await store.query("SELECT count() FROM {raw:Identifier}.{t:Identifier}", {"t": table})
    return int(answer.rows[0][0])


async def until(store: Store, table: str, n: int, also: Callable[[], bool] = lambda: True) -> None:
    deadline = time.monotonic() + 30
    while await count(store, table) < n or not also():
        found = await count(store, table)
        assert time.monotonic() < deadline, f"{found} of {n} rows in {table} after 30 s"
        await asyncio.sleep(0.05)


async def test_every_fact_is_stored_once_across_recorders(log: Tansu, store: Store) -> None:
    attempts: list[Record] = [facts.attempt(i) for i in range(3_000)]
    await publish(log, ATTEMPTS, attempts[:1_000])
    async with recording(log, store):
        await until(store, "attempts", 1_000)
        await publish(log, ATTEMPTS, attempts[1_000:2_000])
        await publish(log, DECISIONS, [facts.decision(i) for i in range(300)])
        await until(store, "attempts", 2_000)
        await until(store, "decisions", 300)
    await publish(log, ATTEMPTS, attempts[2_000:])
    await publish(log, FEEDBACK, [facts.feedback(i) for i in range(100)])
    async with recording(log, store):
        await until(store, "attempts", 3_000)
        await until(store, "feedback", 100)
    answer = await store.query("SELECT uniqExact(attempt_id) FROM {market:Identifier}.attempts")
    assert answer.rows == [(3_000,)]
    assert await count(store, "attempts") == 3_000
    assert await count(store, "decisions") == 300
    await assert_rollups_equal_raw(store)


async def test_poison_is_buried_and_the_rest_kept(log: Tansu, store: Store) -> None:
    good = [facts.attempt(i) for i in range(200)]
    poison = [
        b"",
        b"{not json",
        b'{"kind":"attempt/99"}',
        encode(facts.decision(1)),  # right, but on the wrong topic
        encode(good[0]).replace(b'"n":1', b'"n":100000000000000000000'),
        encode(good[0]).replace(b'"trust":0.5', b'"trust":NaN'),
        b"[" * 100_000,
    ]
    messages = [Message(ATTEMPTS.name, key_of(ATTEMPTS, r), encode(r)) for r in good]
    for i, payload in enumerate(poison):
        messages.insert(20 * i, Message(ATTEMPTS.name, b"k", payload))
    await send(log, messages)
    async with recording(log, store):
        await until(store, "attempts", len(good))
        await until(store, "dead", len(poison))
    assert await count(store, "attempts") == len(good)
    answer = await store.query(
        "SELECT reason, payload FROM {market:Identifier}.dead_letters ORDER BY reason"
    )
    assert any("DecisionRecord on market.attempts" in reason for reason, _ in answer.rows)
    assert any("attempt/99" in reason for reason, _ in answer.rows)
    await assert_rollups_equal_raw(store)


async def test_a_new_log_is_recorded_beside_the_old_one(log: Tansu, store: Store) -> None:
    first: list[Record] = [facts.attempt(i) for i in range(600)]
    again: list[Record] = [facts.attempt(i) for i in range(600, 900)]
    async with recording(log, store):
        await publish(log, ATTEMPTS, first)
        await until(store, "attempts", 600)
        await log.restart()
        await publish(log, ATTEMPTS, again)  # at offsets that were taken in the old log
        await until(store, "attempts", 900)
    answer = await store.query(
        "SELECT _life, count() FROM {raw:Identifier}.attempts GROUP BY _life ORDER BY _life"
    )
    assert answer.rows == [(1, 600), (2, 300)]
    assert await count(store, "attempts") == 900
    await assert_rollups_equal_raw(store)


async def test_compacted_topics_come_back_as_they_were(log: Tansu, store: Store) -> None:
    quotes = [facts.quote(i, offer) for i in range(40) for offer in facts.OFFERS]
    key = KeyRecord(
        key_id="k1", digest="d" * 64, tenant="t", scopes=["app"], at_us=facts.T0_US, by="ops"
    )
    revoked = KeyRecord(
        key_id="k1",
        digest="d" * 64,
        tenant="t",
        scopes=["app"],
        at_us=facts.T0_US - 9,  # its clock was behind; it is the newer one all the same
        by="ops",
        revoked=True,
    )
    async with recording(log, store):
        await publish(log, QUOTES, quotes)
        await publish(log, KEYS, [key, revoked])
        await until(store, "quotes", len(quotes))
        await until(store, "keys", 2)
    await log.restart()
    kafka = kafka_of(log)
    restored = await restore(store, kafka, today=facts.today)
    assert restored[QUOTES.name] == len(facts.OFFERS)
    assert restored[KEYS.name] == 1
    found = await latest(kafka, QUOTES)
    assert {offer: record for offer, (record, _) in found.items()} == {
        q.quote.offer: q for q in quotes[-len(facts.OFFERS) :]
    }
    assert (await latest(kafka, KEYS))["k1"][0] == revoked
    assert QUOTES.name not in await restore(store, kafka, today=facts.today)  # no longer empty


async def test_a_store_that_refuses_ends_the_recorder_and_nothing_is_skipped(
    log: Tansu, store: Store
) -> None:
    await store.command("RENAME TABLE {raw:Identifier}.attempts TO {raw:Identifier}.gone")
    await publish(log, ATTEMPTS, [facts.attempt(i) for i in range(50)])
    with pytest.raises(StoreRejected, match="attempts"):
        await Recording(kafka_of(log), store.settings, SETTINGS).run()
    await store.command("RENAME TABLE {raw:Identifier}.gone TO {raw:Identifier}.attempts")
    async with recording(log, store):
        await until(store, "attempts", 50)
    assert await count(store, "attempts") == 50


async def test_two_recorders_share_the_partitions(log: Tansu, store: Store) -> None:
    records: list[Record] = [facts.attempt(i) for i in range(2_000)]
    async with recording(log, store):
        await publish(log, ATTEMPTS, records[:1_000])
        async with recording(log, store):
            await publish(log, ATTEMPTS, records[1_000:])
            await until(store, "attempts", 2_000)
    assert await count(store, "attempts") == 2_000
    await assert_rollups_equal_raw(store)


async def test_a_recorder_that_starts_before_its_migrations_waits_for_them(
    log: Tansu, chdb_server: ChdbServer
) -> None:
    async with await Store.open(settings_of(chdb_server, "tunready")) as store:
        await publish(log, ATTEMPTS, [facts.attempt(i) for i in range(5)])
        async with recording(log, store) as running:
            await asyncio.sleep(1.0)
            await migrate(store, migrations()[:4])
            await asyncio.sleep(1.0)
            assert not running.stats.pipelines
            await migrate(store)
            await until(store, "attempts", 5)
