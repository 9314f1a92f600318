"""Writing to the log: positions, order, refusals, and a log that is not there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from aiokafka.partitioner import DefaultPartitioner

from broker.embedded.child import free_port
from broker.embedded.tansu import Tansu
from feeds.codec import encode
from feeds.consumer import LogConsumer
from feeds.errors import LogChanged, LogRefused, LogUnavailable
from feeds.incarnation import incarnation
from feeds.kafka import MAX_MESSAGE_BYTES, KafkaSettings, Message, Partition, ensure_topics
from feeds.producer import LogProducer, key_hash
from feeds.topics import FEEDBACK, PARAMS, TOPICS, Topic
from tests.fakes.log_rig import feedback, fresh, params


@pytest.fixture
def topic() -> Topic:
    return fresh()


@pytest.fixture
async def producer(log_settings: KafkaSettings, topic: Topic) -> AsyncIterator[LogProducer]:
    async with LogProducer(log_settings, [topic]) as producer:
        yield producer


async def read(settings: KafkaSettings, topic: Topic, n: int) -> dict[Partition, list[bytes]]:
    found: dict[Partition, list[bytes]] = {}
    async with LogConsumer(settings, [topic]) as consumer, asyncio.timeout(20):
        while sum(map(len, found.values())) < n:
            for partition, messages in (await consumer.poll(timeout_ms=100)).items():
                found.setdefault(partition, []).extend(m.value or b"" for m in messages)
    return found


async def test_positions_say_where_each_record_is(
    log_settings: KafkaSettings, topic: Topic, producer: LogProducer
) -> None:
    records = [feedback(i) for i in range(2_000)]
    positions = await producer.publish(topic, records)
    found = await read(log_settings, topic, 2_000)
    assert {p.log for p in positions} == {await incarnation(log_settings)} == {producer.log}
    for record, at in zip(records, positions, strict=True):
        assert found[Partition(at.topic, at.partition)][at.offset] == encode(record)


async def test_a_key_keeps_its_partition_and_its_order(
    log_settings: KafkaSettings, topic: Topic, producer: LogProducer
) -> None:
    for start in range(0, 900, 300):
        await producer.publish(topic, [feedback(i) for i in range(start, start + 300)])
    found = await read(log_settings, topic, 900)
    assert sum(map(len, found.values())) == 900
    for key in range(7):
        expected = [encode(feedback(i)) for i in range(900) if i % 7 == key]
        holders = [[v for v in values if v in expected] for values in found.values()]
        assert sorted(map(len, holders))[-1] == len(expected), "one partition holds them all"
        assert expected in holders


def test_keys_go_where_every_other_kafka_client_puts_them() -> None:
    theirs, partitions = DefaultPartitioner(), list(range(4))
    for i in range(500):
        key = f"provider-{i}/model".encode()
        assert key_hash(key) % 4 == theirs(key, partitions, partitions)


async def test_spans_are_true_whatever_the_batches(
    log_settings: KafkaSettings, topic: Topic, producer: LogProducer
) -> None:
    """Tansu's ListOffsets answers with the beginning of the last batch."""
    for n in (100, 250, 1):
        positions = await producer.publish(topic, [feedback(i, task="one") for i in range(n)])
    async with LogConsumer(log_settings, [topic]) as consumer:
        spans = await consumer.spans(consumer.assignment)
    assert sorted(spans.values()) == [(0, 0), (0, 0), (0, 0), (0, 351)]
    assert spans[Partition(topic.name, positions[0].partition)] == (0, 351)


async def test_nothing_to_write(producer: LogProducer, topic: Topic) -> None:
    assert await producer.publish(topic, []) == []


async def test_a_message_too_large_is_refused_and_the_others_are_not(
    log_settings: KafkaSettings, topic: Topic, producer: LogProducer
) -> None:
    values = [b"a", b"x" * MAX_MESSAGE_BYTES, b"b", b"y" * 3_000_000, b"c"]
    delivery = await producer.deliver([Message(topic.name, b"k", v) for v in values])
    assert (delivery.refused, delivery.owed) == ([1], [])
    assert isinstance(delivery.error, LogRefused)
    assert [p is not None for p in delivery.positions] == [True, False, True, True, True]
    (found,) = (await read(log_settings, topic, 4)).values()
    assert found == [b"a", b"b", b"y" * 3_000_000, b"c"]


async def test_topics_are_made_once_and_by_many_at_once(log_settings: KafkaSettings) -> None:
    wanted = [fresh(), fresh(PARAMS)]
    await asyncio.gather(*(ensure_topics(log_settings, wanted) for _ in range(4)))
    await ensure_topics(log_settings, wanted)
    async with LogConsumer(log_settings, wanted) as consumer:
        spans = await consumer.spans(consumer.assignment)
    assert sorted(spans) == sorted(
        Partition(t.name, p) for t in wanted for p in range(t.partitions)
    )
    assert set(spans.values()) == {(0, 0)}


async def test_a_topic_with_other_partitions_is_refused(log_settings: KafkaSettings) -> None:
    topic = fresh(PARAMS)
    await ensure_topics(log_settings, [topic])
    other = Topic(name=topic.name, key="task", partitions=4, retention_s=None, record=topic.record)
    lasting = msgspec.structs.replace(log_settings, volatile=False)
    with pytest.raises(LogRefused, match="1 partitions, ours has 4"):
        await ensure_topics(lasting, [other])


async def test_the_projects_own_topics(log_settings: KafkaSettings) -> None:
    async with LogProducer(log_settings) as producer:
        (position,) = await producer.publish(PARAMS, [params(1)])
    assert position.topic == PARAMS.name
    async with LogConsumer(log_settings, TOPICS) as consumer:
        assert len(consumer.assignment) == sum(t.partitions for t in TOPICS)


async def test_the_incarnation_stays_while_the_log_does(log_settings: KafkaSettings) -> None:
    assert await incarnation(log_settings) == await incarnation(log_settings)


async def test_a_log_that_is_not_there() -> None:
    settings = KafkaSettings.embedded(f"127.0.0.1:{free_port('127.0.0.1')}")
    producer = LogProducer(settings)
    with pytest.raises(LogUnavailable):
        await producer.start()
    with pytest.raises(LogUnavailable):
        await producer.publish(FEEDBACK, [feedback(1)])
    delivery = await producer.deliver([Message(FEEDBACK.name, b"k", b"v")] * 3)
    assert (delivery.owed, delivery.refused) == ([0, 1, 2], [])
    with pytest.raises(LogUnavailable):
        await incarnation(settings)
    with pytest.raises(LogUnavailable):
        await ensure_topics(settings)
    await producer.close()


async def test_a_new_log_is_noticed_before_it_is_written_to_and_then_made_ready() -> None:
    async with Tansu() as log:
        settings = KafkaSettings.embedded(log.bootstrap)
        async with LogProducer(settings) as producer:
            before = producer.log
            await producer.publish(FEEDBACK, [feedback(i) for i in range(10)])
            await log.restart()
            delivery = await producer.deliver([Message(FEEDBACK.name, b"k", b"1")])
            while delivery.owed:
                assert isinstance(delivery.error, LogUnavailable)
                delivery = await producer.deliver([Message(FEEDBACK.name, b"k", b"1")])
            assert producer.log != before
            # A send that was cut off before its answer may have landed as well.
            assert [p.offset <= 1 for p in delivery.positions if p] == [True]
            found = await read(settings, FEEDBACK, 1)
            assert {value for values in found.values() for value in values} == {b"1"}


async def test_a_new_log_while_writing_is_owed() -> None:
    async with Tansu() as log:
        settings = KafkaSettings.embedded(log.bootstrap)
        async with LogProducer(settings) as producer:
            await producer.publish(FEEDBACK, [feedback(0)])
            errors = []
            for i in range(200):
                if i == 20:
                    await log.restart()
                delivery = await producer.deliver([Message(FEEDBACK.name, b"k", b"%d" % i)] * 50)
                if delivery.owed:
                    assert delivery.owed == list(range(50))
                    assert not any(delivery.positions)
                    errors.append(delivery.error)
            assert errors
            assert all(isinstance(e, LogUnavailable) for e in errors)
            assert any(isinstance(e, LogChanged) for e in errors) or producer.log == log.incarnation
