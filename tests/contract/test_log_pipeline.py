"""The pipeline on a log: records once and in order, through rebalances, failures and poison."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from feeds.batch import BatchSettings
from feeds.codec import encode
from feeds.consumer import LogConsumer
from feeds.dead_letter import DeadLetterSettings
from feeds.errors import LogUnavailable, TooManyBad
from feeds.kafka import KafkaSettings, Message, Partition
from feeds.pipeline import PipelineSettings, Start
from feeds.producer import LogProducer
from feeds.topics import Topic
from tests.fakes.log_rig import Memory, Running, feedback, fresh, until, write_raw

QUICK = PipelineSettings(batch=BatchSettings(max_wait_ms=0), poll_ms=20, max_backoff_s=0.05)


class StoreAway(Exception):
    """Stands for another layer's recoverable error."""


@pytest.fixture
def topic() -> Topic:
    return fresh()


@pytest.fixture
async def producer(log_settings: KafkaSettings, topic: Topic) -> AsyncIterator[LogProducer]:
    async with LogProducer(log_settings, [topic]) as producer:
        yield producer


async def committed(settings: KafkaSettings, topic: Topic, group: str) -> dict[Partition, int]:
    consumer = LogConsumer(settings, [topic], group=group)
    async with consumer:
        await until(lambda: len(consumer.assignment) == topic.partitions)
        found = {p: await consumer.committed(p) for p in consumer.assignment}
    return {p: offset for p, offset in found.items() if offset is not None}


async def test_everything_once_in_order(
    log_settings: KafkaSettings, topic: Topic, producer: LogProducer
) -> None:
    await producer.publish(topic, [feedback(i) for i in range(5_000)])
    step = Memory()
    async with Running(log_settings, topic, step) as running:
        await running.until(lambda: len(step.numbers) >= 5_000)
        await producer.publish(topic, [feedback(i) for i in range(5_000, 6_000)])
        await running.until(lambda: len(step.numbers) >= 6_000)
    assert sorted(step.numbers) == list(range(6_000))
    for offsets in step.per_partition().values():
        assert offsets == list(range(len(offsets)))
    batch = step.batches[0]
    assert [encode(r) for r in batch.records] == batch.payloads
    assert batch.log == producer.log
    assert len(step.revoked) == 1


@pytest.mark.slow
async def test_a_group_goes_on_where_it_committed(
    log_settings: KafkaSettings, topic: Topic, producer: LogProducer
) -> None:
    group = topic.name
    await producer.publish(topic, [feedback(i) for i in range(1_000)])
    for round_ in range(2):
        step = Memory()
        async with Running(log_settings, topic, step, group=group, settings=QUICK) as running:
            expected = 1_000 if round_ == 0 else 10
            await running.until(lambda s=step, n=expected: len(s.numbers) >= n)
        assert len(step.numbers) == expected
        await producer.publish(topic, [feedback(i) for i in range(10)])


@pytest.mark.slow
async def test_only_what_is_done_is_committed(
    log_settings: KafkaSettings, topic: Topic, producer: LogProducer
) -> None:
    group = topic.name
    await producer.publish(topic, [feedback(i, task="one") for i in range(100)])
    step = Memory()
    settings = PipelineSettings(
        batch=BatchSettings(max_records=10), poll_ms=20, commit_every_s=0, drain_s=0.2
    )
    async with Running(log_settings, topic, step, group=group, settings=settings) as running:
        await running.until(lambda: len(step.numbers) == 100)
        step.may_take.clear()
        await producer.publish(topic, [feedback(i, task="one") for i in range(100, 200)])
        await running.until(lambda: step.in_take)
    # The step never let go of the last batch: it was cancelled, and is not committed.
    done = await committed(log_settings, topic, group)
    (partition,) = {b.partition for b in step.batches}
    assert done[partition] == step.batches[-1].last_offset + 1
    assert 100 <= done[partition] < 200


async def test_the_step_says_where_to_begin_and_where_the_first_batch_ends(
    log_settings: KafkaSettings, topic: Topic, producer: LogProducer
) -> None:
    positions = await producer.publish(topic, [feedback(i, task="one") for i in range(100)])
    partition = Partition(topic.name, positions[0].partition)
    step = Memory({partition: Start(40, through=46)})
    settings = PipelineSettings(batch=BatchSettings(max_records=3, max_wait_ms=0))
    async with Running(log_settings, topic, step, settings=settings) as running:
        await running.until(lambda: len(step.numbers) >= 60)
    assert step.numbers == list(range(40, 100))
    assert (step.batches[0].first_offset, step.batches[0].last_offset) == (40, 46)
    assert (step.batches[1].first_offset, step.batches[1].last_offset) == (47, 49)
    ((_, spans),) = step.assigned
    assert spans[partition] == (0, 100)


@pytest.mark.parametrize("start", [-5, 10_000])
async def test_a_start_beyond_what_there_is_begins_at_its_edge(
    log_settings: KafkaSettings, topic: Topic, producer: LogProducer, start: int
) -> None:
    positions = await producer.publish(topic, [feedback(i, task="one") for i in range(10)])
    step = Memory({Partition(topic.name, positions[0].partition): Start(start)})
    async with Running(log_settings, topic, step, settings=QUICK) as running:
        await running.until(lambda: step.assigned)
        await producer.publish(topic, [feedback(10, task="one")])
        await running.until(lambda: 10 in step.numbers)
    assert step.numbers == (list(range(11)) if start < 0 else [10])


async def test_a_record_that_was_sent_twice_is_taken_once(
    log_settings: KafkaSettings, topic: Topic, producer: LogProducer
) -> None:
    sent = [feedback(i, task="one", boot="b", seq=i + 1) for i in range(100)]
    positions = await producer.publish(topic, [*sent, *sent[50:], *sent[90:]])
    await producer.publish(topic, [feedback(100, task="one", boot="b", seq=101)])
    step = Memory()
    async with Running(log_settings, topic, step) as running:
        await running.until(lambda: 100 in step.numbers)
        assert running.pipeline.stats.n_repeated == 60
    assert step.numbers == list(range(101))
    # A reader that takes over in the midst of the repeats comes to the same.
    step = Memory({Partition(topic.name, positions[0].partition): Start(120)})
    async with Running(log_settings, topic, step) as running:
        await running.until(lambda: 100 in step.numbers)
    assert step.numbers == [100]


async def test_recoverable_errors_are_tried_again_with_the_same_batch(
    log_settings: KafkaSettings, topic: Topic, producer: LogProducer
) -> None:
    await producer.publish(topic, [feedback(i, task="one") for i in range(50)])
    step = Memory()
    step.failures = [StoreAway("1"), LogUnavailable("2"), StoreAway("3")]
    async with Running(
        log_settings, topic, step, settings=QUICK, recoverable=(StoreAway,)
    ) as running:
        await running.until(lambda: len(step.numbers) >= 50)
        stats = running.pipeline.stats
        assert (stats.n_retries, stats.n_retrying) == (3, 0)
    assert step.numbers == list(range(50))


@pytest.mark.parametrize("group", [False, True])
async def test_any_other_error_ends_it_and_commits_nothing_of_that_batch(
    log_settings: KafkaSettings, topic: Topic, producer: LogProducer, group: bool
) -> None:
    await producer.publish(topic, [feedback(i, task="one") for i in range(50)])
    step = Memory()
    step.failures = [ZeroDivisionError("ours")]
    name = topic.name if group else None
    with pytest.raises(ZeroDivisionError):
        async with Running(log_settings, topic, step, group=name, settings=QUICK) as running:
            await running.until(lambda: step.numbers)
    assert step.revoked
    assert step.numbers == []
    again = Memory()
    async with Running(log_settings, topic, again, group=name, settings=QUICK) as running:
        await running.until(lambda: len(again.numbers) >= 50)
    assert again.numbers == list(range(50))


async def test_five_in_a_hundred_unreadable(
    log_settings: KafkaSettings, topic: Topic, producer: LogProducer
) -> None:
    rng = random.Random(5)
    poison = [
        *(b"", b"\xff\xfe", b"{", b"[" * 5_000, b'{"kind":"feedback/9"}', b"x" * 2_000_000),
        encode(feedback(0)).replace(b'"quality":0.5', b'"quality":NaN'),
        encode(feedback(0)).replace(b'"at_us":0', b'"at_us":4102444800000001'),
    ]
    values, n_bad = [], 0
    for i in range(4_000):
        if rng.random() < 0.05 or i == 0:  # the very first as well
            values.append(poison[n_bad % len(poison)])
            n_bad += 1
        values.append(encode(feedback(i)))
    await write_raw(producer, topic, values)
    step = Memory()
    async with Running(log_settings, topic, step, settings=QUICK) as running:
        await running.until(lambda: len(step.numbers) >= 4_000)
        await running.until(lambda: running.pipeline.stats.n_dead == n_bad)
    assert step.numbers == list(range(4_000))
    letters = running.grave.letters
    assert len(letters) == n_bad
    assert all(letter.reason for letter in letters)
    for letter in letters:
        assert values[letter.offset].startswith(letter.payload)
        assert letter.topic == topic.name


@pytest.mark.parametrize("group", [False, True])
async def test_past_the_limit_it_stops_and_buries_no_more(
    log_settings: KafkaSettings, topic: Topic, producer: LogProducer, group: bool
) -> None:
    values = [encode(feedback(i)) if i % 3 else b"?" for i in range(3_000)]
    await write_raw(producer, topic, values)
    step = Memory()
    dead = DeadLetterSettings(max_share=0.2, min_messages=100)
    name = topic.name if group else None
    with pytest.raises(TooManyBad):
        async with Running(log_settings, topic, step, group=name, dead=dead) as running:
            await running.until(lambda: False)
    assert len(running.grave.letters) < 100


async def test_nothing_but_poison_stops_after_a_thousand(
    log_settings: KafkaSettings, topic: Topic, producer: LogProducer
) -> None:
    await write_raw(producer, topic, [b"?"] * 1_500)
    dead = DeadLetterSettings(max_share=1.0)
    with pytest.raises(TooManyBad, match="1000 in a row"):
        async with Running(log_settings, topic, Memory(), dead=dead) as running:
            await running.until(lambda: False)


async def test_a_step_that_stands_still_costs_bounded_memory_and_loses_nothing(
    log_settings: KafkaSettings, topic: Topic, producer: LogProducer
) -> None:
    padding = "x" * 2_000
    settings = PipelineSettings(
        batch=BatchSettings(max_records=50, max_wait_ms=0),
        max_lane_bytes=200_000,
        max_poll_messages=100,
        poll_ms=5,
    )
    step = Memory()
    step.may_take.clear()
    for i in range(0, 2_000, 500):
        await producer.publish(topic, [feedback(n, task=padding) for n in range(i, i + 500)])
    async with Running(log_settings, topic, step, settings=settings) as running:
        stats = running.pipeline.stats
        await running.until(lambda: stats.n_paused)
        n_polled = stats.n_messages
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert stats.n_messages == n_polled, "paused, it reads no more"
        assert stats.n_bytes < 200_000 + 100 * 2_300
        step.may_take.set()
        await running.until(lambda: len(step.numbers) >= 2_000)
        await running.until(lambda: not stats.n_paused)
    assert step.numbers == list(range(2_000))


@pytest.mark.slow
async def test_a_second_member_while_the_first_is_held_back(
    log_settings: KafkaSettings, topic: Topic, producer: LogProducer
) -> None:
    """Arroyo submitted a message twice when an assignment met back-pressure."""
    settings = PipelineSettings(
        batch=BatchSettings(max_records=20, max_wait_ms=0),
        max_lane_bytes=20_000,
        max_poll_messages=50,
        poll_ms=10,
        commit_every_s=0.05,
        drain_s=5,
    )
    n = 3_000
    await producer.publish(topic, [feedback(i) for i in range(n)])
    first, second = Memory(), Memory()
    name = topic.name
    async with Running(log_settings, topic, first, group=name, settings=settings) as one:
        await one.until(lambda: len(first.numbers) > 100)
        first.may_take.clear()
        await one.until(lambda: one.pipeline.stats.n_paused)
        async with Running(log_settings, topic, second, group=name, settings=settings) as two:
            await one.until(lambda: first.revoked or one.pipeline.stats.n_rebalances > 1)
            first.may_take.set()
            await two.until(lambda: len(set(first.numbers) | set(second.numbers)) >= n)
            assert second.numbers, "the second got its part"
    taken = sorted(first.numbers + second.numbers)
    assert taken == list(range(n))


@pytest.mark.slow
async def test_members_come_and_go(
    log_settings: KafkaSettings, topic: Topic, producer: LogProducer
) -> None:
    """Row 34: a rebalance again and again; each record once, each partition in order."""
    settings = PipelineSettings(
        batch=BatchSettings(max_records=50, max_wait_ms=0), poll_ms=10, commit_every_s=0.05
    )
    steps: list[Memory] = []
    writing = asyncio.Event()
    n_written = 0

    async def write() -> None:
        nonlocal n_written
        while not writing.is_set():
            await producer.publish(topic, [feedback(i) for i in range(n_written, n_written + 40)])
            n_written += 40
            await asyncio.sleep(0.02)

    def taken() -> list[int]:
        return [n for step in steps for n in step.numbers]

    async def visit() -> None:
        steps.append(Memory())
        n_before = len(taken())
        async with Running(
            log_settings, topic, steps[-1], group=topic.name, settings=settings
        ) as running:
            await running.until(lambda: steps[-1].assigned and len(taken()) > n_before + 100)

    steps.append(Memory())
    async with Running(log_settings, topic, steps[0], group=topic.name, settings=settings) as stays:
        writer = asyncio.create_task(write())
        await stays.until(lambda: len(taken()) > 200)
        for _ in range(3):
            await visit()
        writing.set()
        await writer
        await stays.until(lambda: len(set(taken())) >= n_written)
    assert sorted(taken()) == list(range(n_written))
    for step in steps:
        for offsets in step.per_partition().values():
            assert offsets == sorted(offsets)


async def test_no_tasks_are_left_behind(
    log_settings: KafkaSettings, topic: Topic, producer: LogProducer
) -> None:
    await producer.deliver([Message(topic.name, b"k", encode(feedback(1)))])
    before = len(asyncio.all_tasks())
    for group in (None, topic.name):
        step = Memory()
        async with Running(log_settings, topic, step, group=group, settings=QUICK) as running:
            await running.until(lambda s=step: s.numbers)
    await until(lambda: len(asyncio.all_tasks()) <= before)
