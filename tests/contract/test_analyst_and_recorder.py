"""A bad analyst beside a recorder at work: refused in plain words, and nothing is lost or late."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

import msgspec
import pytest

from analytics.errors import StoreError
from analytics.store import Store
from broker.embedded.accounts import AnalystLimits
from broker.embedded.store import ChdbServer
from broker.embedded.tansu import Tansu
from feeds.producer import LogProducer
from feeds.topics import ATTEMPTS
from tests.fakes import facts
from tests.fakes.desk import migrated_as, settings_of
from tests.fakes.log_rig import quick_groups
from tests.fakes.recording import recording
from tests.fakes.rollups import assert_rollups_equal_raw

#: Ten seconds and a million rows in production; the engine stops a query at whatever it is told,
#: and this many rows come before the time is up on any machine.
LIMITS = AnalystLimits(max_execution_s=1.0, max_result_rows=10_000)
#: Batches sent without and with questions beside them.
N_BATCHES = 4
BAD = {
    "INSERT INTO market.attempts (offer) VALUES ('mine')": "INSERT is no query",
    "SELECT * FROM file('/etc/passwd', 'LineAsString')": "table function 'file'",
    "SELECT file('/proc/self/environ')": "function 'file'",
    "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')": "table function 'url'",
    "SELECT * FROM remote('127.0.0.1:9000', 'market_raw.keys')": "table function 'remote'",
    "SELECT * FROM system.query_log": "table 'system.query_log'",
    "SELECT * FROM system.processes": "table 'system.processes'",
    "SELECT * FROM market_raw.keys": "table 'market_raw.keys'",
    "DROP TABLE market_raw.attempts": "DROP is no query",
    # Ten minutes and more of work, and a hundred gigabytes of answer.
    "SELECT sum(sipHash64(number)) FROM numbers(1e12)": "Timeout exceeded",
    "SELECT count() FROM numbers(1e6) a, numbers(1e6) b, numbers(1e6) c": "exceeded",
    "SELECT repeat('x', 1000) FROM numbers(100000000)": "exceeded",
    "SELECT repeat('x', 1000000) FROM numbers(100000)": "exceeded",
    "SELECT number FROM numbers(1500000)": "Limit for result exceeded",
    "SELECT groupArray(number) FROM numbers(1e10)": "exceeded",
}


async def test_every_bad_question_is_refused_while_the_recorder_writes(tmp_path: Path) -> None:
    async with (
        ChdbServer(tmp_path / "store", limits=LIMITS) as server,
        Tansu() as log,
        migrated_as(server, "market") as store,
    ):
        kafka = quick_groups(log.bootstrap, max_partitions=2)
        n_sent = 0

        async def batch() -> float:
            """Send some attempts; the time until the last of them is stored."""
            nonlocal n_sent
            begun_s = time.monotonic()
            sent = [facts.attempt(i) for i in range(n_sent, n_sent + 500)]
            await producer.publish(ATTEMPTS, sent)
            n_sent += 500
            await stored(store, n_sent)
            return time.monotonic() - begun_s

        async with (
            recording(kafka, store, max_records=2_000, max_wait_ms=20) as running,
            LogProducer(kafka) as producer,
        ):
            await batch()  # until every part is at work
            alone_s = statistics.median([await batch() for _ in range(N_BATCHES)])
            enough = asyncio.Event()
            asking = asyncio.create_task(ask_on(server, enough))
            beside_s = [await batch() for _ in range(N_BATCHES)]
            # It went on amid questions that never ceased.
            assert not asking.done()
            enough.set()
            assert await asking >= len(BAD)
            assert not running.done()
        assert statistics.median(beside_s) < 10 * alone_s
        assert max(beside_s) < 50 * alone_s
        # Nothing is lost or twice.
        answer = await store.query(
            "SELECT count(), uniqExact(attempt_id) FROM {raw:Identifier}.attempts"
        )
        assert answer.rows == [(n_sent, n_sent)]
        await assert_rollups_equal_raw(store)


async def ask_on(server: ChdbServer, enough: asyncio.Event) -> int:
    """Every bad question, some at once, as the analyst, again and again until it is enough; how
    many were refused, each in its own words.
    """
    account = msgspec.structs.replace(
        settings_of(server, "market"),
        username=server.analyst.user,
        password=server.analyst.password,
    )
    async with await Store.open(account) as analyst:

        async def ask(sql: str) -> None:
            with pytest.raises(StoreError) as caught:
                await analyst.query(sql)
            told = str(caught.value)
            assert BAD[sql] in told, f"{sql}: {told}"
            assert len(told) < 600

        n = 0
        while not (n and enough.is_set()):
            await asyncio.gather(*(ask(sql) for sql in BAD))
            n += len(BAD)
        return n


async def stored(store: Store, n: int) -> None:
    deadline_s = time.monotonic() + 30
    while True:
        answer = await store.query("SELECT count() FROM {raw:Identifier}.attempts")
        if answer.rows[0][0] >= n:
            return
        assert time.monotonic() < deadline_s, f"{answer.rows[0][0]} of {n} stored"
        await asyncio.sleep(0.02)
