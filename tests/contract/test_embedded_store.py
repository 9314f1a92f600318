"""The store through clickhouse-connect, unchanged: what the broker and its analysts rely on."""

from __future__ import annotations

import asyncio
import datetime as dt
import gzip
import io
import json
import time
import uuid
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import aiohttp
import clickhouse_connect
import lz4.frame
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytest_asyncio
from backports import zstd
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.exceptions import DatabaseError

from broker.embedded.chdb_server import GONE_HEADER
from broker.embedded.store import ChdbServer

pytestmark = pytest.mark.asyncio(loop_scope="module")

EPOCH = dt.datetime(2026, 11, 24, 12, 30, 15, 123456)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def store(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ChdbServer]:
    async with ChdbServer(tmp_path_factory.mktemp("store")) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(store: ChdbServer) -> AsyncIterator[AsyncClient]:
    client = await clickhouse_connect.get_async_client(**store.writer_options(database="market"))
    yield client
    await client.close()


@pytest_asyncio.fixture(loop_scope="module")
async def http(store: ChdbServer) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": aiohttp.encode_basic_auth(store.writer.user, store.writer.password)}
    async with aiohttp.ClientSession(store.url, headers=headers) as session:
        yield session


async def new_table(
    client: AsyncClient, columns: str = "a Int64, b String", **settings: int
) -> str:
    table = f"market.t_{uuid.uuid4().hex}"
    tail = ", ".join(f"{name} = {value}" for name, value in settings.items())
    await client.command(
        f"CREATE TABLE {table} ({columns}) ENGINE = MergeTree ORDER BY tuple()"
        + (f" SETTINGS {tail}" if tail else "")
    )
    return table


async def test_ping_and_version(
    store: ChdbServer, client: AsyncClient, http: aiohttp.ClientSession
) -> None:
    assert await client.ping()
    assert await client.command("SELECT version()") == store.version
    async with http.get("/ping") as answer:
        assert (answer.status, await answer.text()) == (200, "Ok.\n")


@pytest.mark.parametrize("said", ["all", "half"])
async def test_a_caller_that_is_gone_is_counted_and_nothing_more(
    store: ChdbServer, http: aiohttp.ClientSession, said: str
) -> None:
    async def gone() -> int:
        async with http.get("/ping") as answer:
            return int(answer.headers[GONE_HEADER])

    before = await gone()
    authorization = aiohttp.encode_basic_auth(store.writer.user, store.writer.password)
    sql = "SELECT sleep(0.5), repeat('x', 900000)"
    length = len(sql) + (1000 if said == "half" else 0)
    head = f"POST / HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\n"
    _, writer = await asyncio.open_connection("127.0.0.1", store.port)
    writer.write(f"{head}Content-Length: {length}\r\n\r\n{sql}".encode())
    await writer.drain()
    await asyncio.sleep(0.1)  # it is being answered
    writer.transport.abort()
    deadline_s = time.monotonic() + 10
    while await gone() == before:
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.05)
    assert await gone() == before + 1
    assert "Traceback" not in store.log_tail(), store.log_tail()


async def test_server_side_parameters_of_every_kind(client: AsyncClient) -> None:
    result = await client.query(
        "SELECT {i:Int64}, {s:String}, {f:Float64}, {l:Array(String)}, "
        "{t:DateTime64(6)}, {n:Nullable(Int8)}",
        parameters={
            "i": -5,
            "s": "it's \\ a\n'x'",
            "f": 0.1,
            "l": ["p", "q'r"],
            "t": EPOCH,
            "n": None,
        },
    )
    assert result.result_rows == [(-5, "it's \\ a\n'x'", 0.1, ["p", "q'r"], EPOCH, None)]
    one = await client.query(
        "SELECT * FROM {d:Identifier}.{t:Identifier}", parameters={"d": "system", "t": "one"}
    )
    assert one.result_rows == [(0,)]


async def test_native_inserts_keep_every_type(client: AsyncClient) -> None:
    table = await new_table(
        client,
        "id UUID, at DateTime64(6, 'UTC'), day Date, name LowCardinality(String), "
        "n Nullable(Int32), "
        "cost Decimal(18, 9), tags Array(LowCardinality(String)), m Map(String, Float64), ok Bool, "
        "kind Enum8('a' = 1, 'b' = 2), t Tuple(Int8, String)",
    )
    rows = [
        (
            uuid.UUID(int=i),
            EPOCH.replace(microsecond=i),
            dt.date(2026, 11, 24),
            f"offer{i % 3}",
            None if i % 2 else i,
            Decimal(i) / 1000,
            [f"x{i}", "é"],
            {"p50": i / 7},
            bool(i % 2),
            "ab"[i % 2],
            (i % 100, "z"),
        )
        for i in range(1000)
    ]
    summary = await client.insert(table, rows)
    assert summary.written_rows == 1000
    stored = await client.query(f"SELECT * FROM {table} ORDER BY id")
    assert stored.result_rows == rows


@pytest.mark.parametrize("compress", ["lz4", "zstd", "gzip", False])
async def test_compressed_inserts(
    store: ChdbServer, client: AsyncClient, compress: str | bool
) -> None:
    table = await new_table(client)
    options = store.writer_options(compress=compress)
    other = await clickhouse_connect.get_async_client(**options)
    rows = [(i, "x" * 50) for i in range(50_000)]
    await other.insert(table, rows, column_names=["a", "b"])
    assert (await other.query(f"SELECT * FROM {table} ORDER BY a")).result_rows == rows
    await other.close()


FORMATS = {
    "JSONEachRow": b'{"a":1,"b":"x"}\n{"b":"y","a":2}\n',
    "CSV": b'1,x\n2,"y"\n',
    "CSVWithNames": b"b,a\nx,1\ny,2\n",
    "TabSeparated": b"1\tx\n2\ty\n",
    "JSONCompactEachRow": b'[1,"x"]\n[2,"y"]\n',
    "RowBinary": b"\1\0\0\0\0\0\0\0\1x\2\0\0\0\0\0\0\0\1y",
    "Values": b"(1,'x'),(2,'y')",
}


@pytest.mark.parametrize("fmt", FORMATS)
async def test_raw_inserts_in_many_formats(client: AsyncClient, fmt: str) -> None:
    table = await new_table(client)
    summary = await client.raw_insert(table, insert_block=FORMATS[fmt], fmt=fmt)
    assert summary.written_rows == 2
    assert (await client.query(f"SELECT * FROM {table} ORDER BY a")).result_rows == [
        (1, "x"),
        (2, "y"),
    ]


async def test_parquet_in_and_out(client: AsyncClient, tmp_path: Path) -> None:
    table = await new_table(client)
    frame = pa.table({"a": list(range(1000)), "b": [str(i) for i in range(1000)]})
    pq.write_table(frame, tmp_path / "in.parquet")
    await client.raw_insert(
        table, insert_block=(tmp_path / "in.parquet").read_bytes(), fmt="Parquet"
    )
    back = await client.raw_query(f"SELECT * FROM {table} ORDER BY a", fmt="Parquet")
    (tmp_path / "out.parquet").write_bytes(back)
    assert pq.read_table(tmp_path / "out.parquet")["a"].to_pylist() == frame["a"].to_pylist()


async def test_raw_insert_compressed_and_from_a_file(client: AsyncClient) -> None:
    table = await new_table(client)
    data = b"".join(b'{"a":%d,"b":"x"}\n' % i for i in range(1000))
    for name, block in (("gzip", gzip.compress(data)), ("lz4", lz4.frame.compress(data))):
        await client.raw_insert(table, insert_block=block, fmt="JSONEachRow", compression=name)
    await client.raw_insert(table, insert_block=io.BytesIO(data), fmt="JSONEachRow")
    assert await client.command(f"SELECT count() FROM {table}") == 3000


async def test_frames(client: AsyncClient) -> None:
    table = await new_table(client, "a Int64, x Float64, name String")
    frame = pd.DataFrame({"a": range(100), "x": [i / 3 for i in range(100)], "name": "n"})
    await client.insert_df(table, frame)
    back = await client.query_df(f"SELECT * FROM {table} ORDER BY a")
    assert back["x"].tolist() == frame["x"].tolist()
    arrow = await client.query_arrow(f"SELECT sum(x) AS s FROM {table}")
    assert arrow["s"].to_pylist() == pytest.approx([frame["x"].sum()])


async def test_values_select_and_commands(client: AsyncClient) -> None:
    table = await new_table(client)
    await client.command(f"INSERT INTO {table} VALUES (1, 'a'), (2, 'b;c')")
    await client.command(f"INSERT INTO {table} SELECT a + 10, b FROM {table}")
    await client.command(f"INSERT INTO {table} VALUES", data="(5, 'FORMAT CSV')")
    assert await client.command(f"SELECT groupArray(a) FROM (SELECT a FROM {table} ORDER BY a)")
    assert await client.command(f"SELECT count() FROM {table}") == 5
    await client.command(f"ALTER TABLE {table} DELETE WHERE a = 1", settings={"mutations_sync": 2})
    assert await client.command(f"SELECT count() FROM {table}") == 4


async def test_streams_of_blocks_and_empty_answers(client: AsyncClient) -> None:
    n_rows = 0
    async with await client.query_rows_stream("SELECT number FROM numbers(300000)") as stream:
        async for _ in stream:
            n_rows += 1
    assert n_rows == 300_000
    empty = await client.query("SELECT number AS n FROM numbers(10) WHERE n > 100")
    assert empty.result_rows == []
    assert (await client.query("SELECT 1 AS n LIMIT 0")).column_names == ("n",)


async def test_long_queries_go_as_a_form(store: ChdbServer) -> None:
    client = await clickhouse_connect.get_async_client(
        **store.writer_options(form_encode_query_params=True)
    )
    many = list(range(20_000))
    result = await client.query("SELECT length({many:Array(Int64)})", parameters={"many": many})
    assert result.result_rows == [(20_000,)]
    await client.close()


def use_sync_client(store: ChdbServer) -> None:
    with clickhouse_connect.get_client(**store.writer_options(database="market")) as client:
        client.command("CREATE TABLE sync_t (a Int64, b String) ENGINE = MergeTree ORDER BY a")
        client.insert("sync_t", [[1, "x"], [2, "y"]])
        client.raw_insert("sync_t", insert_block=b"3,z\n", fmt="CSV")
        query = client.query("SELECT * FROM sync_t WHERE a > {a:Int64} ORDER BY a", {"a": 1})
        assert query.result_rows == [(2, "y"), (3, "z")]
        assert client.query_df("SELECT * FROM sync_t")["a"].sum() == 6
        with client.query_row_block_stream("SELECT number FROM numbers(100000)") as stream:
            assert sum(len(block) for block in stream) == 100_000
        with pytest.raises(DatabaseError) as caught:
            client.command("SELECT nonsense")
        assert caught.value.code == 47


async def test_the_sync_client_works_unchanged(store: ChdbServer) -> None:
    await asyncio.to_thread(use_sync_client, store)


@pytest.mark.parametrize(
    ("sql", "code", "status"),
    [
        ("SELEC 1", 62, 400),
        ("SELECT * FROM market.absent", 60, 404),
        ("SELECT * FROM absent.t", 81, 404),
        ("SELECT throwIf(number = 3) FROM numbers(10)", 395, 500),
        ("SELECT toInt8('x')", 6, 400),
        ("SELECT count() FROM numbers(1e12) SETTINGS max_execution_time = 0.3", 159, 408),
    ],
)
async def test_errors_carry_code_name_and_status(
    client: AsyncClient, http: aiohttp.ClientSession, sql: str, code: int, status: int
) -> None:
    with pytest.raises(DatabaseError) as caught:
        await client.query(sql)
    assert caught.value.code == code
    assert caught.value.name
    async with http.post("/", data=sql) as answer:
        assert answer.status == status
        assert answer.headers["X-ClickHouse-Exception-Code"] == str(code)
        assert (await answer.text()).startswith(f"Code: {code}. DB::Exception: ")


async def test_a_bad_row_stores_nothing_of_its_batch(client: AsyncClient) -> None:
    table = await new_table(client)
    block = b'{"a":1,"b":"x"}\n{"a":two,"b":"y"}\n{"a":3,"b":"z"}\n'
    with pytest.raises(DatabaseError) as caught:
        await client.raw_insert(table, insert_block=block, fmt="JSONEachRow")
    assert caught.value.code == 27
    assert await client.command(f"SELECT count() FROM {table}") == 0


async def test_settings_last_one_call(client: AsyncClient) -> None:
    ask = "SELECT value FROM system.settings WHERE name = 'max_block_size'"
    plain = await client.command(ask)
    assert await client.command(ask, settings={"max_block_size": 77}) == 77
    assert await client.command(ask) == plain
    with pytest.raises(DatabaseError) as caught:
        await client.command("SELECT 1", settings={"no_such_setting": 1})
    assert caught.value.code == 115


async def test_headers_of_an_answer(http: aiohttp.ClientSession) -> None:
    ask = {"query": "SELECT number FROM numbers(10) FORMAT JSONEachRow", "query_id": "q-1"}
    async with http.get("/", params=ask) as answer:
        assert answer.headers["X-ClickHouse-Query-Id"] == "q-1"
        assert answer.headers["X-ClickHouse-Format"] == "JSONEachRow"
        assert answer.headers["Content-Type"].startswith("application/x-ndjson")
        summary = json.loads(answer.headers["X-ClickHouse-Summary"])
        assert (summary["read_rows"], summary["result_rows"]) == ("10", "10")
        assert len((await answer.text()).splitlines()) == 10
    async with http.post("/?default_format=CSV", data="SELECT 1, 'x'") as answer:
        assert await answer.text() == '1,"x"\n'


def basic(user: str, password: str) -> dict[str, dict[str, str]]:
    return {"headers": {"Authorization": aiohttp.encode_basic_auth(user, password)}}


async def test_accounts(store: ChdbServer) -> None:
    writer = store.writer
    async with aiohttp.ClientSession(store.url) as http:
        ways = [
            {"headers": {"X-ClickHouse-User": writer.user, "X-ClickHouse-Key": writer.password}},
            {"params": {"user": writer.user, "password": writer.password}},
            basic(writer.user, writer.password),
        ]
        for way in ways:
            async with http.post("/", data="SELECT 1", **way) as answer:
                assert (answer.status, await answer.text()) == (200, "1\n")
        for way in (
            {},
            basic(writer.user, "guess"),
            basic(writer.user, store.analyst.password),
            {"headers": {"Authorization": "Basic !"}},
            {"headers": {"Authorization": "Bearer x"}},
        ):
            async with http.post("/", data="SELECT 1", **way) as answer:
                assert answer.status == 403
                assert answer.headers["X-ClickHouse-Exception-Code"] == "516"


async def test_what_is_not_offered_is_said(http: aiohttp.ClientSession) -> None:
    for request in (
        {"params": {"compress": "1"}},
        {"headers": {"Content-Encoding": "br"}},
    ):
        async with http.post("/", data=b"SELECT 1", **request) as answer:
            assert answer.status == 501
            assert "not" in await answer.text()
    async with http.post("/", data=b"nonsense", headers={"Content-Encoding": "zstd"}) as answer:
        assert answer.status == 400
    async with http.put("/", data=b"SELECT 1") as answer:
        assert answer.status == 405


async def test_a_bomb_is_refused_before_it_is_unpacked(store: ChdbServer) -> None:
    bomb = zstd.compress(bytes(64 << 20))
    headers = {
        "Content-Encoding": "zstd",
        "Authorization": aiohttp.encode_basic_auth(store.analyst.user, store.analyst.password),
    }
    async with (
        aiohttp.ClientSession(store.url) as http,
        http.post("/", data=bomb, headers=headers) as answer,
    ):
        assert answer.status == 413


ROLLUP = """
CREATE TABLE market.raw_{n} (offer LowCardinality(String), cost Int64, _offset Int64)
ENGINE = MergeTree ORDER BY (offer, _offset) SETTINGS non_replicated_deduplication_window = 10000;
CREATE TABLE market.roll_{n} (offer LowCardinality(String), n SimpleAggregateFunction(sum, UInt64),
    cost SimpleAggregateFunction(sum, Int64))
ENGINE = AggregatingMergeTree ORDER BY offer SETTINGS non_replicated_deduplication_window = 10000;
CREATE MATERIALIZED VIEW market.mv_{n} TO market.roll_{n} AS
SELECT offer, count() AS n, sum(cost) AS cost FROM market.raw_{n} GROUP BY offer
"""


async def test_a_token_makes_retries_count_once_in_table_and_rollup(client: AsyncClient) -> None:
    n = uuid.uuid4().hex
    for statement in ROLLUP.format(n=n).split(";"):
        await client.command(statement)

    async def send(batch: int) -> None:
        rows = (
            b'{"offer":"o%d","cost":%d,"_offset":%d}\n' % (i % 7, i, 1000 * batch + i)
            for i in range(1000)
        )
        await client.raw_insert(
            f"market.raw_{n}",
            insert_block=b"".join(rows),
            fmt="JSONEachRow",
            settings={"insert_deduplication_token": f"log:topic:0:{batch}", "async_insert": 0},
        )

    for batch in (0, 1, 0, 2, 1, 1, 3, 0):
        await send(batch)
    await asyncio.gather(*(send(4) for _ in range(4)))
    raw = await client.query(f"SELECT count(), sum(cost), uniqExact(_offset) FROM market.raw_{n}")
    rollup = await client.query(f"SELECT sum(n), sum(cost) FROM market.roll_{n}")
    assert raw.result_rows == [(5000, 5 * 499_500, 5000)]
    assert rollup.result_rows == [(5000, 5 * 499_500)]


async def test_a_batch_is_one_block(client: AsyncClient) -> None:
    table = await new_table(client)
    block = b"".join(b'{"a":%d,"b":"%s"}\n' % (i, b"x" * 400) for i in range(60_000))
    await client.raw_insert(table, insert_block=block, fmt="JSONEachRow")
    parts = "SELECT count() FROM system.parts WHERE database = 'market' AND table = {t:String}"
    assert await client.command(parts, parameters={"t": table.partition(".")[2]}) == 1


async def test_an_insert_that_fails_behind_the_table_is_not_acknowledged(
    client: AsyncClient,
) -> None:
    table = await new_table(client)
    behind = await new_table(client)
    await client.command(
        f"CREATE MATERIALIZED VIEW {table}_v TO {behind} AS "
        f"SELECT a, if(throwIf(a = 7, 'no sevens') = 0, b, '') AS b FROM {table}"
    )
    await client.raw_insert(table, insert_block=b'{"a":1,"b":"x"}', fmt="JSONEachRow")
    with pytest.raises(DatabaseError, match="no sevens"):
        await client.raw_insert(table, insert_block=b'{"a":7,"b":"x"}', fmt="JSONEachRow")
    assert await client.command(f"SELECT groupArray(a) FROM {behind}") == "[1]"


async def test_too_many_parts_are_refused_not_lost(client: AsyncClient) -> None:
    table = await new_table(client, parts_to_throw_insert=2, parts_to_delay_insert=0)
    await client.command(f"SYSTEM STOP MERGES {table}")
    row = b'{"a":1,"b":"x"}'
    sent = 0
    while sent < 5:
        try:
            await client.raw_insert(table, insert_block=row, fmt="JSONEachRow")
        except DatabaseError as error:
            assert "TOO_MANY_PARTS" in str(error)  # noqa: PT017 - which of the five is the engine's
            break
        sent += 1
    assert 0 < sent < 5
    await client.command(f"SYSTEM START MERGES {table}")
    assert await client.command(f"SELECT count() FROM {table}") == sent


async def test_many_at_once_do_not_mix(client: AsyncClient) -> None:
    answers = await asyncio.gather(
        *(
            client.query("SELECT {i:Int32}, sum(number) FROM numbers(100000)", parameters={"i": i})
            for i in range(40)
        )
    )
    assert [answer.result_rows for answer in answers] == [[(i, 4999950000)] for i in range(40)]
