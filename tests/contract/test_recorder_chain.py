"""The chain: once in the table, once in every rollup, whoever appends, however it is cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from analytics.chain import MISSING_AT_MOST, Chain, ChainStats
from analytics.errors import StoreDiffers, StoreUnavailable
from analytics.explain import decision_line
from analytics.lives import life_of, settle_earlier
from analytics.store import Store
from broker.embedded.store import ChdbServer
from feeds.batch import Batch
from feeds.codec import Record, encode
from feeds.records import BidRecord
from feeds.topics import ATTEMPTS, DECISIONS, FEEDBACK, QUOTES, Topic
from tests.fakes import facts
from tests.fakes.desk import emptied, migrated, settings_of
from tests.fakes.rollups import assert_rollups_equal_raw, unequal


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def database(chdb_server: ChdbServer) -> AsyncIterator[str]:
    async with migrated(chdb_server) as store:
        yield store.settings.database


@pytest.fixture
async def store(chdb_server: ChdbServer, database: str) -> AsyncIterator[Store]:
    async with await Store.open(settings_of(chdb_server, database)) as store:
        yield store
        await emptied(store)


def chain(
    store: Store, topic: Topic = ATTEMPTS, log: str = "L1", life: int = 1, partition: int = 0
) -> Chain:
    return Chain(store, topic, log, life, partition, today=facts.today, stats=ChainStats())


def attempts(first: int, n: int, *, log: str = "L1", partition: int = 0) -> Batch:
    records: Sequence[Record] = [facts.attempt(i) for i in range(first, first + n)]
    return facts.batch(ATTEMPTS, records, first, log=log, partition=partition)


async def offsets(store: Store, table: str = "attempts") -> list[tuple[int, int, int]]:
    answer = await store.query(
        "SELECT _offset, _batch_first, _batch_last FROM {raw:Identifier}.{t:Identifier}"
        " ORDER BY _life, _partition, _offset",
        {"t": table},
    )
    return [tuple(r) for r in answer.rows]


async def test_batches_follow_each_other(store: Store) -> None:
    c = chain(store)
    assert await c.resume() == 0
    for first, n in ((0, 100), (100, 1), (101, 899)):
        await c.append(attempts(first, n))
    assert c.next_offset == 1000
    assert [o for o, _, _ in await offsets(store)] == list(range(1000))
    assert await chain(store).resume() == 1000
    await assert_rollups_equal_raw(store)


@pytest.mark.parametrize(
    ("topic", "make"), [(DECISIONS, facts.decision), (FEEDBACK, facts.feedback)]
)
async def test_rollups_of_decisions_and_scores_equal_the_raw_rows(
    store: Store, topic: Topic, make: Any
) -> None:
    c = chain(store, topic)
    for first in range(0, 4000, 1000):
        await c.append(facts.batch(topic, [make(i) for i in range(first, first + 1000)], first))
    await assert_rollups_equal_raw(store)


async def test_the_comparison_of_rollups_sees_a_difference(store: Store) -> None:
    c = chain(store)
    await c.append(attempts(0, 50))
    await store.command(
        "INSERT INTO {raw:Identifier}.attempts_feed SELECT * FROM {raw:Identifier}.attempts"
        " WHERE _offset = 7"
    )
    of_attempts = {"offer_minutes", "offer_hours_of_week", "offer_hours", "provider_minutes"}
    assert set(await unequal(store)) == of_attempts


async def test_the_same_batch_sent_again_changes_nothing(store: Store) -> None:
    await chain(store).append(attempts(0, 300))
    again = chain(store)  # its sender never learned that it was stored
    await again.append(attempts(0, 300))
    assert again.next_offset == 300
    assert len(await offsets(store)) == 300
    await assert_rollups_equal_raw(store)


@pytest.mark.parametrize("n_zombie", [40, 100, 160])
async def test_a_zombies_batch_and_the_new_owners_are_one(store: Store, n_zombie: int) -> None:
    zombie = chain(store)
    await zombie.append(attempts(0, 10))
    owner = chain(store)
    assert await owner.resume() == 10
    await owner.append(attempts(10, 100))
    await zombie.append(attempts(10, n_zombie))  # wakes, and sends what it had gathered
    await owner.append(attempts(owner.next_offset, 60))
    await zombie.append(attempts(10, 200))
    assert [o for o, _, _ in await offsets(store)] == list(range(210))
    await assert_rollups_equal_raw(store)


async def test_two_writers_at_once_make_one_chain(store: Store) -> None:
    cuts = ((7, 30, 31, 200, 400), (50, 90, 120, 121, 400))

    async def write(ends: Sequence[int]) -> None:
        c = chain(store)
        for end in ends:
            if end > c.next_offset:
                first = c.next_offset
                await c.append(attempts(first, end - first))

    await asyncio.gather(*(write(ends) for ends in cuts))
    assert [o for o, _, _ in await offsets(store)] == list(range(400))
    await assert_rollups_equal_raw(store)


async def test_a_batch_stored_but_not_rolled_up_is_repaired_on_taking_over(store: Store) -> None:
    c = chain(store)
    await c.append(attempts(0, 200))
    torn = attempts(200, 150)
    await c._insert(torn, 0, 200)  # killed before the rollups
    assert "offer_minutes" in await unequal(store)
    successor = chain(store)
    assert await successor.resume() == 350
    await assert_rollups_equal_raw(store)
    for _ in range(3):
        assert await chain(store).resume() == 350
    await assert_rollups_equal_raw(store)


async def test_a_batch_in_some_rollups_only_is_repaired(store: Store) -> None:
    name = "attempts_to_offer_hours_of_week"
    c = chain(store)
    await store.command("DETACH TABLE {raw:Identifier}.{v:Identifier}", {"v": name})
    await c.append(attempts(0, 120))
    await store.command("ATTACH TABLE {raw:Identifier}.{v:Identifier}", {"v": name})
    assert await unequal(store) == ["offer_hours_of_week"]
    await chain(store).resume()
    await assert_rollups_equal_raw(store)


async def test_a_view_that_throws_stops_the_chain_and_nothing_is_skipped(store: Store) -> None:
    await store.command(
        "CREATE MATERIALIZED VIEW {raw:Identifier}.bad TO {raw:Identifier}.latest AS"
        " SELECT throwIf(n = 1, 'broken view') AS version FROM {raw:Identifier}.attempts_feed"
    )
    c = chain(store)
    with pytest.raises(Exception, match="broken view"):
        await c.append(attempts(0, 20))
    assert c.next_offset == 0
    await store.command("DROP TABLE {raw:Identifier}.bad")
    await c.append(attempts(0, 20))
    assert c.next_offset == 20
    assert len(await offsets(store)) == 20
    await assert_rollups_equal_raw(store)


async def test_dead_letters_lie_within_the_range_of_the_next_batch(store: Store) -> None:
    c = chain(store)
    await c.append(attempts(0, 10))
    nothing = facts.batch(ATTEMPTS, [], 10)
    nothing.last_offset = 19
    await c.append(nothing)
    assert c.next_offset == 10
    await c.append(attempts(20, 5))
    assert c.next_offset == 25
    assert (await offsets(store))[-1] == (24, 10, 24)
    assert await chain(store).resume() == 25


@pytest.mark.parametrize(
    "twist",
    [
        b',"offer":"p0/m0"}',
        b',"_offset":3}',
        b',"_log":"x","_batch_last":9}',
        b',"at":"2020-01-01"}',
    ],
)
async def test_json_that_clickhouse_reads_differently_is_sent_anew(
    store: Store, twist: bytes
) -> None:
    records: list[Record] = [facts.attempt(i) for i in range(20)]
    payloads = [encode(r) for r in records]
    payloads[7] = payloads[7][:-1] + twist
    c = chain(store)
    await c.append(facts.batch(ATTEMPTS, records, 0, payloads=payloads))
    assert [o for o, _, _ in await offsets(store)] == list(range(20))
    answer = await store.query(
        "SELECT toUnixTimestamp64Micro(at) FROM {raw:Identifier}.attempts WHERE _offset = 7"
    )
    assert answer.rows[0][0] == records[7].at_us


async def test_attempts_and_decisions_come_back_as_they_were(store: Store) -> None:
    decisions: list[Record] = [facts.decision(i) for i in range(40)]
    tries: list[Record] = [facts.attempt(i) for i in range(80)]
    scores: list[Record] = [facts.feedback(i) for i in range(40)]
    await chain(store, DECISIONS).append(facts.batch(DECISIONS, decisions, 0))
    await chain(store, ATTEMPTS).append(facts.batch(ATTEMPTS, tries, 0))
    await chain(store, FEEDBACK).append(facts.batch(FEEDBACK, scores, 0))
    for i in (0, 7, 9, 39):
        line = await decision_line(store, f"d{i:08x}")
        assert line is not None
        assert line.decision == decisions[i]
        assert line.attempts == tries[2 * i : 2 * i + 2]
        assert line.feedback == [scores[i]]
    assert await decision_line(store, "no such") is None


async def test_newest_is_by_life_and_offset_not_by_clock(store: Store) -> None:
    old, new = facts.quote(50), facts.quote(7)  # the later one has the earlier clock
    await chain(store, QUOTES).append(facts.batch(QUOTES, [facts.quote(1), old], 0))
    await chain(store, QUOTES, "L2", 2).append(facts.batch(QUOTES, [new], 0, log="L2"))
    answer = await store.query("SELECT key, record FROM {raw:Identifier}.latest FINAL")
    assert [(k, msgspec.json.decode(r)) for k, r in answer.rows] == [
        ("p0/m0", msgspec.json.decode(encode(new)))
    ]


async def test_lives_are_numbered_as_they_are_met(store: Store) -> None:
    assert await life_of(store, "A") == 1
    assert await asyncio.gather(*(life_of(store, "B") for _ in range(4))) == [2] * 4
    assert await life_of(store, "A") == 1
    assert await life_of(store, "C") == 3


async def test_a_new_life_starts_at_zero_and_settles_the_old_one(store: Store) -> None:
    assert await life_of(store, "A") == 1
    old = chain(store, log="A")
    await old.append(attempts(0, 30, log="A"))
    await old._insert(attempts(30, 30, log="A"), 0, 30)  # all was killed here
    life = await life_of(store, "B")
    stats = ChainStats()
    assert await settle_earlier(store, life, today=facts.today, stats=stats) == ["A"]
    assert stats.n_refed == 1
    new = chain(store, log="B", life=life)
    assert await new.resume() == 0
    await new.append(attempts(0, 25, log="B"))
    assert len(await offsets(store)) == 85
    await assert_rollups_equal_raw(store)
    assert await settle_earlier(store, life, today=facts.today, stats=stats) == []


async def test_an_old_batch_is_left_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the window a repeat would count twice, so it is not tried."""
    monkeypatch.setattr("analytics.chain.SETTLED_AFTER", 3)
    quiet = chain(store, partition=1)
    await quiet.append(attempts(0, 10, partition=1))
    busy = chain(store)
    for first in range(0, 30, 10):
        await busy.append(attempts(first, 10))
    heir = chain(store, partition=1)
    assert await heir.resume() == 10
    assert heir._stats.n_refed == 0
    assert await busy.resume() == 30
    assert busy._stats.n_refed == 1


async def test_a_table_emptied_behind_our_back_is_noticed(store: Store) -> None:
    c = chain(store)
    await c.append(attempts(0, 10))
    await store.command(
        "ALTER TABLE {raw:Identifier}.attempts DELETE WHERE 1", settings={"mutations_sync": 1}
    )
    late = chain(store)
    late.next_offset = 0
    for _ in range(MISSING_AT_MOST - 1):
        with pytest.raises(StoreUnavailable, match="acknowledged and is not there"):
            await late.append(attempts(0, 10))
    with pytest.raises(StoreDiffers, match="was the table emptied"):
        await late.append(attempts(0, 10))


async def test_numbers_beyond_sense_do_not_stop_the_rollups(store: Store) -> None:
    extremes = [0.0, -0.0, -5.0, 1e-320, 5e-324, 1.7e308, -1.7e308, 1e18]
    records: list[Record] = []
    for i, extreme in enumerate(extremes * 3):
        wild = facts.attempt(i)
        wild.ttft_ms, wild.total_ms, wild.waited_ms = extreme, extremes[(i * 5 + 3) % 8], extreme
        wild.output_tokens = (0, 1, 2, -7, 2**63 - 1)[i % 5]
        wild.at_us = (4_102_444_800_000_000, facts.T0_US)[i % 2]
        records.append(wild)
    await chain(store).append(facts.batch(ATTEMPTS, records, 0))
    choices: list[Record] = []
    for i, extreme in enumerate(extremes):
        odd = facts.decision(i)
        odd.best_cost_nusd = odd.cheapest_cost_nusd = odd.p_good = odd.p_on_time = extreme
        odd.target_quality = odd.target_on_time = odd.total_ms = extreme
        odd.ranked = [BidRecord("p0/m0", extreme, extreme, extreme, extreme)]
        choices.append(odd)
    await chain(store, DECISIONS).append(facts.batch(DECISIONS, choices, 0))
    answer = await store.query(
        "SELECT (SELECT count() FROM {market:Identifier}.attempts),"
        " (SELECT sum(n) FROM {market:Identifier}.offer_minutes),"
        " (SELECT sum(n) FROM {market:Identifier}.class_hours)"
    )
    assert answer.rows == [(24, 24, 8)]


async def test_a_store_that_is_full_is_unavailable_and_the_retry_is_harmless(
    store: Store,
) -> None:
    c = chain(store)
    await store.command(
        "ALTER TABLE {raw:Identifier}.attempts MODIFY SETTING parts_to_throw_insert = 1,"
        " parts_to_delay_insert = 1"
    )
    await c.append(attempts(0, 5))
    with pytest.raises(StoreUnavailable, match=r"Too many parts|is not there"):
        await c.append(attempts(5, 5))
    await store.command(
        "ALTER TABLE {raw:Identifier}.attempts RESET SETTING"
        " parts_to_throw_insert, parts_to_delay_insert"
    )
    await c.append(attempts(5, 5))
    assert [o for o, _, _ in await offsets(store)] == list(range(10))
    await assert_rollups_equal_raw(store)
