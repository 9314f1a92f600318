"""The log over aiokafka: what the broker relies on, on Tansu and, if named, on Apache Kafka.

`infra/kafka/run.sh` starts a Kafka; with its address in BROKER_TEST_KAFKA all this runs on it too.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import UnknownError

from broker.embedded.errors import NotRunning, StartFailed
from broker.embedded.tansu import GROUP_SESSION_TIMEOUT_MS, Tansu

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).resolve().parents[2]
KAFKA = os.environ.get("BROKER_TEST_KAFKA")
DEADLINE_S = 20.0
PARENT = """
import asyncio
from broker.embedded.tansu import Tansu

async def main():
    log = Tansu()
    await log.start()
    print(log.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=["tansu", *(["kafka"] if KAFKA else [])]
)
async def bootstrap(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    if request.param == "kafka":
        assert KAFKA is not None
        yield KAFKA
        return
    async with Tansu() as log:
        yield log.bootstrap


@asynccontextmanager
async def admin_of(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


@asynccontextmanager
async def producer_of(bootstrap: str, **options: object) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, **options)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


@asynccontextmanager
async def consumer_of(
    bootstrap: str, *topics: str, **options: object
) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(
        *topics, bootstrap_servers=bootstrap, auto_offset_reset="earliest", **options
    )
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


def member_of(group: str) -> dict[str, object]:
    """Options of a group's member; a join on Tansu takes half the session's timeout or more."""
    session_ms = 6000 if KAFKA else GROUP_SESSION_TIMEOUT_MS  # Kafka's least, by default
    return {
        "group_id": group,
        "session_timeout_ms": session_ms,
        "heartbeat_interval_ms": session_ms // 10,
    }


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not await holds():
        assert time.monotonic() < end, "the condition did not come to hold in time"
        await asyncio.sleep(0.02)


async def new_topic(bootstrap: str, n_partitions: int = 1, **configs: str) -> str:
    topic = f"t-{uuid.uuid4().hex}"
    async with admin_of(bootstrap) as admin:
        done = await admin.create_topics([NewTopic(topic, n_partitions, 1, topic_configs=configs)])
        assert [error[1] for error in done.topic_errors] == [0]

        async def listed() -> bool:
            return topic in await admin.list_topics()

        await until(listed)
    return topic


async def test_a_topic_is_made_once_listed_and_deleted(bootstrap: str) -> None:
    topic = await new_topic(bootstrap, 3)
    async with admin_of(bootstrap) as admin:
        again = await admin.create_topics([NewTopic(topic, 3, 1)])
        assert [error[1] for error in again.topic_errors] == [36]  # TOPIC_ALREADY_EXISTS
        [description] = await admin.describe_topics([topic])
        assert len(description["partitions"]) == 3
        await admin.delete_topics([topic])

        async def gone() -> bool:
            return topic not in await admin.list_topics()

        await until(gone)


async def test_records_come_back_in_order_with_key_headers_and_time(bootstrap: str) -> None:
    topic = await new_topic(bootstrap)
    async with producer_of(bootstrap) as producer:
        for i in range(100):
            await producer.send_and_wait(
                topic,
                b"%d" % i,
                key=b"offer",
                headers=[("kind", b"attempt")],
                timestamp_ms=1000 + i,
            )
    async with consumer_of(bootstrap, topic) as consumer:
        got = [await consumer.getone() for _ in range(100)]
    assert [record.value for record in got] == [b"%d" % i for i in range(100)]
    assert [record.offset for record in got] == list(range(100))
    assert {record.key for record in got} == {b"offer"}
    assert {tuple(record.headers) for record in got} == {(("kind", b"attempt"),)}
    assert [record.timestamp for record in got] == [1000 + i for i in range(100)]


async def test_compressed_batches_can_be_read(bootstrap: str) -> None:
    topic = await new_topic(bootstrap)
    values = [b"%d" % i * 100 for i in range(50)]
    async with producer_of(bootstrap, compression_type="gzip", linger_ms=20) as producer:
        await asyncio.gather(*[await producer.send(topic, value) for value in values])
    async with consumer_of(bootstrap, topic) as consumer:
        assert [(await consumer.getone()).value for _ in values] == values


async def test_a_reader_may_seek_and_ask_where_the_log_ends(bootstrap: str) -> None:
    topic = await new_topic(bootstrap)
    partition = TopicPartition(topic, 0)
    async with producer_of(bootstrap) as producer:
        for i in range(10):
            await producer.send_and_wait(topic, b"%d" % i)
    async with consumer_of(bootstrap) as consumer:
        consumer.assign([partition])
        assert await consumer.end_offsets([partition]) == {partition: 10}
        assert await consumer.beginning_offsets([partition]) == {partition: 0}
        consumer.seek(partition, 7)
        assert (await consumer.getone()).value == b"7"


async def test_a_group_goes_on_where_it_committed(bootstrap: str) -> None:
    topic = await new_topic(bootstrap)
    group = f"g-{topic}"
    async with producer_of(bootstrap) as producer:
        for i in range(10):
            await producer.send_and_wait(topic, b"%d" % i)
    options = {**member_of(group), "enable_auto_commit": False}
    async with consumer_of(bootstrap, topic, **options) as consumer:
        for _ in range(4):
            await consumer.getone()
        await consumer.commit({TopicPartition(topic, 0): 4})
    async with consumer_of(bootstrap, topic, **options) as consumer:
        assert (await consumer.getone()).value == b"4"


async def test_two_members_share_partitions_and_one_takes_over(bootstrap: str) -> None:
    topic = await new_topic(bootstrap, 4)
    options = member_of(f"g-{topic}")
    async with consumer_of(bootstrap, topic, **options) as first:
        async with consumer_of(bootstrap, topic, **options) as second:

            async def shared() -> bool:
                for member in (first, second):
                    await member.getmany(timeout_ms=20)
                return len(first.assignment()) == len(second.assignment()) == 2

            await until(shared)
            assert first.assignment().isdisjoint(second.assignment())

        async def alone() -> bool:
            await first.getmany(timeout_ms=20)
            return len(first.assignment()) == 4

        await until(alone)


async def test_what_two_members_read_is_everything_once(bootstrap: str) -> None:
    topic = await new_topic(bootstrap, 4)
    async with producer_of(bootstrap) as producer:
        for i in range(200):
            await producer.send(topic, b"%d" % i, partition=i % 4)
        await producer.flush()
    options = member_of(f"g-{topic}")
    seen: set[tuple[int, int]] = set()
    async with (
        consumer_of(bootstrap, topic, **options) as a,
        consumer_of(bootstrap, topic, **options) as b,
    ):

        async def all_read() -> bool:
            for member in (a, b):
                for records in (await member.getmany(timeout_ms=20)).values():
                    seen.update((record.partition, record.offset) for record in records)
            return len(seen) >= 200

        await until(all_read)
    assert seen == {(partition, offset) for partition in range(4) for offset in range(50)}


async def test_a_topic_of_one_record_can_carry_an_identity(bootstrap: str) -> None:
    topic = await new_topic(bootstrap, 1, **{"cleanup.policy": "compact"})
    identity = str(uuid.uuid4()).encode()
    async with producer_of(bootstrap) as producer:
        await producer.send_and_wait(topic, identity, key=b"incarnation")
    async with consumer_of(bootstrap, topic) as consumer:
        assert (await consumer.getone()).value == identity


async def test_incarnation_is_the_cluster_id_and_new_at_each_start() -> None:
    async with Tansu() as log:
        async with admin_of(log.bootstrap) as admin:
            before = (await admin.describe_cluster())["cluster_id"]
        topic = await new_topic(log.bootstrap)
        address, first = log.bootstrap, log.incarnation
        await log.restart()
        async with admin_of(log.bootstrap) as admin:
            after = (await admin.describe_cluster())["cluster_id"]
            assert topic not in await admin.list_topics()
        assert (before, after) == (first, log.incarnation)
        assert first != log.incarnation
        assert log.bootstrap == address


async def test_memory_grows_with_what_is_produced_and_a_restart_frees_it() -> None:
    async with Tansu() as log:
        empty = log.rss_bytes()
        topic = await new_topic(log.bootstrap)
        async with producer_of(log.bootstrap, linger_ms=5) as producer:
            for _ in range(40):
                await asyncio.gather(
                    *[await producer.send(topic, os.urandom(8192)) for _ in range(100)]
                )
        grown = log.rss_bytes()
        await log.restart()
        assert grown > empty + 30_000_000
        assert log.rss_bytes() < empty + 5_000_000


async def test_tansu_refuses_an_idempotent_producer() -> None:
    """Why idempotence is a setting: should this pass one day, the setting can go."""
    async with Tansu() as log:
        producer = AIOKafkaProducer(bootstrap_servers=log.bootstrap, enable_idempotence=True)
        try:
            with pytest.raises(UnknownError):
                await producer.start()
        finally:
            await producer.stop()


async def test_a_port_that_is_taken_is_a_failed_start() -> None:
    async with Tansu() as log:
        port = int(log.bootstrap.rpartition(":")[2])
        second = Tansu(port=port, start_timeout_s=5)
        with pytest.raises(StartFailed):
            await second.start()
        assert not second.alive


async def test_what_is_not_running_says_so() -> None:
    log = Tansu()
    with pytest.raises(NotRunning):
        _ = log.bootstrap
    await log.stop()
    with pytest.raises(NotRunning):
        log.rss_bytes()


async def test_the_log_dies_with_a_killed_parent() -> None:
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PARENT), stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert parent.stdout is not None
    child = psutil.Process(int(await parent.stdout.readline()))
    parent.kill()
    await parent.wait()

    async def dead() -> bool:
        return not child.is_running() or child.status() == psutil.STATUS_ZOMBIE

    await until(dead)
