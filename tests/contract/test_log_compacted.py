"""Compacted topics: the newest record of each key, then every new one, whatever befalls the log."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from bidding.quote import Position
from broker.embedded.child import free_port
from broker.embedded.tansu import Tansu
from feeds.codec import Record
from feeds.compacted import Follower, latest
from feeds.control_records import ParamsRecord
from feeds.errors import LogUnavailable
from feeds.kafka import KafkaSettings, Message
from feeds.producer import LogProducer
from feeds.topics import PARAMS
from tests.fakes.log_rig import fresh, params, until, write_raw


class Known:
    """What a follower was told."""

    def __init__(self) -> None:
        self.versions: dict[str, int] = {}
        self.positions: dict[str, Position] = {}
        self.logs: list[str] = []

    def take(self, key: str, record: Record | None, position: Position) -> None:
        if record is None:
            self.versions.pop(key, None)
            return
        assert isinstance(record, ParamsRecord)
        self.versions[key] = record.version
        self.positions[key] = position


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_latest_is_the_newest_of_each_key(log_settings: KafkaSettings) -> None:
    topic = fresh(PARAMS)
    async with LogProducer(log_settings, [topic]) as producer:
        assert await latest(log_settings, topic) == {}
        positions = await producer.publish(
            topic, [params(v, scope=f"s{v % 3}") for v in range(1, 100)]
        )
        await write_raw(producer, topic, [b"unreadable"])
        found = await latest(log_settings, topic)
    assert {k: r.version for k, (r, _) in found.items() if isinstance(r, ParamsRecord)} == {
        "s0": 99,
        "s1": 97,
        "s2": 98,
    }
    assert found["s0"][1] == positions[98]


async def test_a_follower_catches_up_and_then_follows(log_settings: KafkaSettings) -> None:
    topic, known = fresh(PARAMS), Known()
    async with LogProducer(log_settings, [topic]) as producer:
        await producer.publish(topic, [params(v) for v in range(1, 500)])
        follower = Follower(log_settings, [topic], known.take, on_start=known.logs.append)
        running = asyncio.create_task(follower.run())
        await asyncio.wait_for(follower.caught_up.wait(), 20)
        assert known.versions == {"market": 499}
        assert known.logs == [producer.log]
        assert follower.stats.connected == 1
        (position,) = await producer.publish(topic, [params(500)])
        await until(lambda: known.versions == {"market": 500})
        assert known.positions["market"] == position
        await end(running)
    assert follower.stats.n_records + follower.stats.n_superseded == 500


async def test_an_empty_topic_is_caught_up_with_at_once(log_settings: KafkaSettings) -> None:
    follower = Follower(log_settings, [fresh(PARAMS)], Known().take)
    running = asyncio.create_task(follower.run())
    await asyncio.wait_for(follower.caught_up.wait(), 10)
    await end(running)


async def test_what_cannot_be_read_is_passed_over(log_settings: KafkaSettings) -> None:
    topic, known = fresh(PARAMS), Known()
    async with LogProducer(log_settings, [topic]) as producer:
        follower = Follower(log_settings, [topic], known.take)
        running = asyncio.create_task(follower.run())
        await asyncio.wait_for(follower.caught_up.wait(), 10)
        await producer.deliver([Message(topic.name, b"market", b"{")])
        await producer.publish(topic, [params(1, scope="other")])
        await until(lambda: known.versions == {"other": 1})
        assert follower.stats.n_bad == 1
        await end(running)


async def test_a_new_log_is_read_from_its_beginning_and_the_old_knowledge_stays() -> None:
    known = Known()
    async with Tansu() as log:
        settings = KafkaSettings.embedded(log.bootstrap)
        async with LogProducer(settings) as producer:
            await producer.publish(PARAMS, [params(1), params(1, scope="other")])
            follower = Follower(settings, [PARAMS], known.take, on_start=known.logs.append)
            running = asyncio.create_task(follower.run())
            await until(lambda: len(known.versions) == 2)
            await log.stop()
            await until(lambda: not follower.stats.connected or len(known.logs) == 1)
            assert known.versions == {"market": 1, "other": 1}
            await log.start()
            with suppress(LogUnavailable):
                await producer.publish(PARAMS, [params(2)])
            await until(lambda: len(known.logs) == 2)
            while known.versions["market"] != 2:
                with suppress(LogUnavailable):
                    await producer.publish(PARAMS, [params(2)])
                await asyncio.sleep(0.02)
            assert known.versions == {"market": 2, "other": 1}
            assert known.positions["market"].log == log.incarnation
            await end(running)


async def test_a_follower_waits_for_a_log_that_is_not_there_yet() -> None:
    port = free_port("127.0.0.1")
    known = Known()
    settings = KafkaSettings.embedded(f"127.0.0.1:{port}")
    with pytest.raises(LogUnavailable):
        await latest(settings, PARAMS)
    follower = Follower(settings, [PARAMS], known.take)
    running = asyncio.create_task(follower.run())
    await until(lambda: follower.stats.n_restarts)
    async with Tansu(port=port), LogProducer(settings) as producer:
        await producer.publish(PARAMS, [params(1)])
        await until(lambda: known.versions == {"market": 1})
        await end(running)


async def test_a_fault_of_the_reader_ends_the_follower(log_settings: KafkaSettings) -> None:
    topic = fresh(PARAMS)

    def fault(key: str, record: Record | None, position: Position) -> None:
        raise ZeroDivisionError("ours")

    async with LogProducer(log_settings, [topic]) as producer:
        await producer.publish(topic, [params(1)])
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(Follower(log_settings, [topic], fault).run(), 20)
