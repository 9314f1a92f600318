"""The analyst's account: what it may ask, what it is refused, that it cannot starve the writer."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import clickhouse_connect
import msgspec
import pytest
import pytest_asyncio
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.exceptions import DatabaseError

from broker.embedded.accounts import AnalystLimits
from broker.embedded.store import ChdbServer
from tests.fakes.analyst_questions import ALLOWED, REFUSED

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMIT_S = 1.0
LIMITS = AnalystLimits(
    max_execution_s=LIMIT_S,
    max_result_rows=10_000,
    max_result_bytes=4 << 20,
    max_memory_bytes=256 << 20,
    max_waiting=8,
)
CANARY = "canary-4f1c9b"
TABLES = """
CREATE TABLE market.sales (offer String, n Int64, at DateTime, tags Array(String))
ENGINE = MergeTree ORDER BY offer;
INSERT INTO market.sales
SELECT 'o' || toString(number % 3), number, toDateTime(number), ['a'] FROM numbers(9);
CREATE VIEW market.totals AS SELECT offer, sum(n) AS n FROM market.sales GROUP BY offer;
CREATE TABLE market.raw_control_keys (hash String) ENGINE = MergeTree ORDER BY hash;
INSERT INTO market.raw_control_keys VALUES ('canary-4f1c9b');
CREATE DATABASE private;
CREATE TABLE private.secrets (s String) ENGINE = MergeTree ORDER BY s;
INSERT INTO private.secrets VALUES ('canary-4f1c9b')
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def store(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ChdbServer]:
    async with ChdbServer(tmp_path_factory.mktemp("store"), limits=LIMITS) as server:
        writer = await clickhouse_connect.get_async_client(**server.writer_options())
        for statement in TABLES.split(";\n"):
            await writer.command(statement)
        await writer.close()
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def analyst(store: ChdbServer) -> AsyncIterator[AsyncClient]:
    client = await clickhouse_connect.get_async_client(**store.analyst_options())
    yield client
    await client.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def writer(store: ChdbServer) -> AsyncIterator[AsyncClient]:
    client = await clickhouse_connect.get_async_client(**store.writer_options())
    yield client
    await client.close()


def as_analyst(server: ChdbServer) -> dict[str, str]:
    account = server.analyst
    return {"Authorization": aiohttp.encode_basic_auth(account.user, account.password)}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(store: ChdbServer) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(store.url, headers=as_analyst(store)) as session:
        yield session


@pytest.mark.parametrize(("sql", "rows"), ALLOWED)
async def test_allowed(
    analyst: AsyncClient, sql: str, rows: list[tuple[object, ...]] | None
) -> None:
    result = await analyst.query(sql)
    assert rows is None or result.result_rows == rows


async def test_describe_parameters_formats_and_frames(
    analyst: AsyncClient, http: aiohttp.ClientSession
) -> None:
    described = await analyst.query("DESCRIBE TABLE market.totals")
    assert [row[:2] for row in described.result_rows] == [("offer", "String"), ("n", "Int64")]
    given = await analyst.query(
        "SELECT n FROM {t:Identifier} WHERE n > {n:Int64}", {"t": "totals", "n": 12}
    )
    assert given.result_rows == [(15,)]
    assert (await analyst.query_df("SELECT * FROM totals"))["n"].sum() == 36
    for format_, text in (("JSONEachRow", '{"x":1}\n'), ("CSV", "1\n"), ("TSVWithNames", "x\n1\n")):
        async with http.post("/", data=f"SELECT 1 AS x FORMAT {format_}") as answer:
            assert await answer.text() == text


@pytest.mark.parametrize("sql", REFUSED, ids=lambda sql: sql[:60] or "empty")
async def test_refused(http: aiohttp.ClientSession, sql: str) -> None:
    async with http.post("/", data=sql.encode()) as answer:
        text = await answer.text()
        assert answer.status in (400, 403, 404), text
        assert text.startswith("Code: ")
        assert CANARY not in text
        assert "root:" not in text


async def test_refusals_are_in_plain_words(analyst: AsyncClient) -> None:
    for sql, words in (
        ("SELECT file('x')", "function 'file'"),
        ("SELECT * FROM url('x')", "table function 'url'"),
        ("SELECT * FROM private.secrets", "table 'private.secrets'"),
        ("SELECT 1 SETTINGS max_threads = 2", "a SETTINGS clause"),
        ("DROP TABLE market.sales", "DROP is no query"),
        ("SELECT 1; SELECT 2", "more than one statement"),
    ):
        with pytest.raises(DatabaseError) as caught:
            await analyst.command(sql)
        assert caught.value.code == 497
        assert caught.value.name == "ACCESS_DENIED"
        assert words in str(caught.value)


def disguise(sql: str, rng: random.Random) -> str:
    """The same words with other case, blanks, comments and brackets."""
    out = []
    for word in sql.split(" "):
        shape = rng.choice([word, word.upper(), word.lower()] if "'" not in word else [word])
        out.append(shape + rng.choice([" ", "\n", "\t", " /* x */ ", " -- y\n", "/**/ "]))
    text = "".join(out)
    for _ in range(rng.randrange(3)):
        text = rng.choice(["SELECT * FROM ({})", "WITH q AS ({}) SELECT * FROM q", "({})"]).format(
            text
        )
    return text


async def test_500_disguises_of_what_is_refused(http: aiohttp.ClientSession) -> None:
    seeds = [
        "SELECT file('/proc/self/environ')",
        "SELECT * FROM file('/proc/self/environ', 'LineAsString')",
        "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
        "SELECT * FROM private.secrets",
        "SELECT * FROM system.processes",
        "SELECT hash FROM market.raw_control_keys",
        "SELECT 'x' IN private.secrets",
        "SELECT 1 SETTINGS max_threads = 2",
        "SELECT 1 INTO OUTFILE '/tmp/canary'",
        "INSERT INTO market.sales SELECT * FROM market.sales",
    ]
    rng = random.Random(20261124)
    for sql in itertools.islice(itertools.cycle(seeds), 500):
        variant = disguise(sql, rng)
        async with http.post("/", data=variant) as answer:
            text = await answer.text()
            assert answer.status in (400, 403, 404), (variant, text)
            assert CANARY not in text


async def test_settings_databases_and_parameters_do_not_widen(http: aiohttp.ClientSession) -> None:
    for params in (
        {"max_execution_time": "100"},
        {"readonly": "0"},
        {"output_format_schema": "/tmp/canary"},
        {"additional_table_filters": "{}"},
        {"database": "private"},
        {"database": "system"},
        {"database": "market` SETTINGS x"},
        {"param_t": "private.secrets", "query": "SELECT * FROM {t:Identifier}"},
        {"param_d": "private", "query": "SELECT * FROM {d:Identifier}.secrets"},
        {"param_f": "file", "query": "SELECT {f:Identifier}('/etc/passwd')"},
        {"default_format": "Template"},
    ):
        async with http.post(
            "/", data=b"" if "query" in params else b"SELECT 1", params=params
        ) as answer:
            text = await answer.text()
            assert answer.status in (400, 403, 404), (params, text)
            assert CANARY not in text


SLOW = [
    "SELECT count() FROM numbers(1e12)",
    "SELECT count() FROM numbers(1e9) a, numbers(1e9) b",
    "SELECT uniqExact(number) FROM numbers(1e12)",
    "SELECT count() FROM (SELECT number FROM numbers(1e12) ORDER BY number % 7)",
]


async def stopped(client: AsyncClient, sql: str) -> float:
    """How long a query took until the engine stopped it."""
    begun = time.monotonic()
    with pytest.raises(DatabaseError) as caught:
        await client.query(sql)
    assert caught.value.code in (159, 241)  # time, memory
    return time.monotonic() - begun


@pytest.mark.parametrize("questions", [SLOW[:2], SLOW[2:]])
async def test_a_query_is_stopped_at_its_limit(
    analyst: AsyncClient, writer: AsyncClient, questions: list[str]
) -> None:
    """As soon as the engine stops one that carries the same limit, on this machine, just now."""
    limited = f"{SLOW[0]} SETTINGS max_execution_time = {LIMIT_S}"
    plain, *taken = await asyncio.gather(
        stopped(writer, limited), *(stopped(analyst, sql) for sql in questions)
    )
    assert max(taken) < 2 * max(plain, LIMIT_S)


async def test_the_writer_goes_on_beside_slow_queries(
    analyst: AsyncClient, writer: AsyncClient
) -> None:
    await writer.command("CREATE TABLE market.busy (a Int64) ENGINE = MergeTree ORDER BY a")

    async def insert() -> float:
        begun = time.monotonic()
        await writer.raw_insert("market.busy", insert_block=b"1\n" * 1000, fmt="CSV")
        return time.monotonic() - begun

    alone = [await insert() for _ in range(20)]
    questions = SLOW[: LIMITS.max_concurrent]
    running = [asyncio.create_task(stopped(analyst, sql)) for sql in questions]
    beside: list[float] = []
    n_meanwhile = 0
    while not all(task.done() for task in running):
        beside.append(await insert())
        n_meanwhile += not any(task.done() for task in running)
    for task in running:
        await task
    # None waited for a query to end: they were stored while all of them ran, about as quickly.
    assert n_meanwhile >= 2
    assert statistics.median(beside) < 10 * statistics.median(alone)
    n_stored = await writer.command("SELECT count() FROM market.busy")
    assert n_stored == 1000 * (len(alone) + len(beside))


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("SELECT number FROM numbers(20000)", 396),
        ("SELECT repeat('x', 1000000) FROM numbers(100)", 396),
        ("SELECT groupArray(repeat('x', 1000)) FROM numbers(10000000)", 241),
        ("SELECT range(300000000)", 241),
        ("SELECT arrayJoin(range(100000000))", 241),
    ],
)
async def test_large_answers_and_large_states_are_refused(
    analyst: AsyncClient, sql: str, code: int
) -> None:
    with pytest.raises(DatabaseError) as caught:
        await analyst.query(sql)
    assert caught.value.code == code


async def test_who_waits_gets_a_turn(http: aiohttp.ClientSession) -> None:
    async def ask() -> int:
        async with http.post("/", data=SLOW[0]) as answer:
            return answer.status

    n_allowed = LIMITS.max_concurrent + LIMITS.max_waiting
    assert await asyncio.gather(*(ask() for _ in range(n_allowed))) == [408] * n_allowed


async def test_a_crowd_is_turned_away_at_once(tmp_path: Path) -> None:
    """Before any that came first has ended, which takes longer than any machine takes to ask."""
    n_allowed, n_more = LIMITS.max_concurrent + LIMITS.max_waiting, 20
    patient = msgspec.structs.replace(LIMITS, max_execution_s=120.0)
    async with (
        ChdbServer(tmp_path, limits=patient) as crowded,
        aiohttp.ClientSession(crowded.url, headers=as_analyst(crowded)) as http,
    ):

        async def ask() -> int:
            async with http.post("/", data=SLOW[0]) as answer:
                return answer.status

        asked = [asyncio.create_task(ask()) for _ in range(n_allowed + n_more)]
        first = [await answer for answer in itertools.islice(asyncio.as_completed(asked), n_more)]
        assert first == [503] * n_more
        held = [task for task in asked if not task.done()]
        assert len(held) == n_allowed
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        os.kill(crowded.pid, signal.SIGKILL)  # in order, it would let those it runs finish
