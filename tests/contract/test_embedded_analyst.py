"""The analyst's account: what it may ask, what it is refused, that it cannot starve the writer."""

# ruff: noqa: E501 - one query a line

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator

import aiohttp
import clickhouse_connect
import pytest
import pytest_asyncio
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.exceptions import DatabaseError

from broker.embedded.accounts import AnalystLimits
from broker.embedded.store import ChdbServer

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
CREATE TABLE market.sales (offer String, n Int64, at DateTime, tags Array(String)) ENGINE = MergeTree ORDER BY offer;
INSERT INTO market.sales SELECT 'o' || toString(number % 3), number, toDateTime(number), ['a'] FROM numbers(9);
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


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(store: ChdbServer) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {
        "Authorization": aiohttp.encode_basic_auth(store.analyst.user, store.analyst.password)
    }
    async with aiohttp.ClientSession(store.url, headers=headers) as session:
        yield session


ALLOWED = [
    ("SELECT 1", [(1,)]),
    ("SELECT offer, n FROM totals ORDER BY offer", [("o0", 9), ("o1", 12), ("o2", 15)]),
    ("SELECT offer, n FROM market.totals ORDER BY n DESC LIMIT 1;", [("o2", 15)]),
    ("/* why */ select COUNT(*) from `market`.`sales` -- all of it\n", [(9,)]),
    ("WITH x AS (SELECT n FROM sales) SELECT max(n) FROM x", [(8,)]),
    (
        "WITH RECURSIVE r AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM r WHERE i < 4) SELECT sum(i) FROM r",
        [(10,)],
    ),
    (
        "SELECT a.n FROM sales a JOIN totals t ON a.offer = t.offer WHERE t.n > 14 ORDER BY a.n",
        [(2,), (5,), (8,)],
    ),
    ("SELECT count() FROM sales WHERE offer IN (SELECT offer FROM totals WHERE n > 9)", [(6,)]),
    ("SELECT count() FROM sales WHERE n IN (1, 2) OR offer IN ('o0')", [(5,)]),
    ("SELECT number FROM numbers(3) ORDER BY number DESC", [(2,), (1,), (0,)]),
    (
        "SELECT quantileTDigestIf(0.5)(n, n > 3) > 0, sumMerge(s) FROM (SELECT n, sumState(n) AS s FROM sales GROUP BY n)",
        [(1, 36)],
    ),
    (
        "SELECT arrayMap(x -> x + 1, [1]), 'a' LIKE 'a%', CASE WHEN 1 THEN 2 ELSE 3 END, [1, 2][1], 1::Int8, (1, 2).2",
        [([2], 1, 2, 1, 1, 2)],
    ),
    (
        "SELECT n, sum(n) OVER (PARTITION BY offer ORDER BY n ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS w FROM sales WHERE offer = 'o0' ORDER BY n",
        [(0, 0), (3, 3), (6, 9)],
    ),
    (
        "SELECT toStartOfHour(at) AS h, count() FROM sales GROUP BY h HAVING count() > 1 QUALIFY row_number() OVER (ORDER BY h) = 1",
        None,
    ),
    ("SELECT * EXCEPT (at, tags) REPLACE (n + 1 AS n) FROM sales ORDER BY n LIMIT 1", [("o0", 1)]),
    ("SELECT t FROM sales ARRAY JOIN tags AS t LIMIT 1 BY t", [("a",)]),
    ("SELECT 1 UNION ALL SELECT 1 UNION DISTINCT SELECT 2 EXCEPT SELECT 2", [(1,)]),
    ("FROM sales SELECT max(n)", [(8,)]),
    (
        "SELECT 'SETTINGS; INTO OUTFILE', \"n\" AS `FORMAT` FROM sales WHERE n = 1",
        [("SETTINGS; INTO OUTFILE", 1)],
    ),
    ("SHOW TABLES", [("sales",), ("totals",)]),
    ("show tables from market", [("sales",), ("totals",)]),
    ("SHOW DATABASES", [("market",)]),
    (
        "SELECT name FROM system.columns WHERE `table` = 'totals' ORDER BY position",
        [("offer",), ("n",)],
    ),
    ("SELECT DISTINCT database FROM system.columns", [("market",)]),
    ("SELECT table_name FROM information_schema.tables ORDER BY 1", [("sales",), ("totals",)]),
    ("SELECT DISTINCT table_schema FROM INFORMATION_SCHEMA.COLUMNS", [("market",)]),
]


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


def wrapped(call: str) -> list[str]:
    """A call that must not be made, in every place where an expression or a table may stand."""
    return [
        f"SELECT {call}",
        f"SELECT * FROM {call}",
        f"SELECT 1 FROM sales WHERE notEmpty(toString({call}))",
        f"SELECT 1 FROM sales PREWHERE toString({call}) != ''",
        f"SELECT 1 FROM sales GROUP BY {call}",
        f"SELECT count() FROM sales HAVING toString({call}) != ''",
        f"SELECT 1 FROM sales ORDER BY {call}",
        f"SELECT n FROM sales ORDER BY n WITH FILL TO length(toString({call}))",
        f"SELECT n FROM sales ORDER BY n WITH FILL INTERPOLATE (offer AS toString({call}))",
        f"SELECT 1 LIMIT length(toString({call}))",
        f"SELECT 1 LIMIT 1 OFFSET length(toString({call}))",
        f"SELECT 1 FROM sales LIMIT 1 BY {call}",
        f"SELECT row_number() OVER (ORDER BY {call}) FROM sales",
        f"SELECT sum(n) OVER w FROM sales WINDOW w AS (PARTITION BY {call})",
        f"SELECT 1 FROM sales QUALIFY toString({call}) != ''",
        f"SELECT arrayMap(x -> {call}, [1])",
        f"SELECT * REPLACE (toString({call}) AS offer) FROM sales",
        f"SELECT x FROM sales ARRAY JOIN [{call}] AS x",
        f"SELECT 1 FROM sales a JOIN totals b ON toString(a.n) = toString({call})",
        f"SELECT 1 IN ({call})",
        f"SELECT 1 IN {call}",
        f"SELECT ({call} AS x, x)",
        f"SELECT [{call}][1]",
        f"SELECT CASE WHEN 1 THEN {call} END",
        f"SELECT if(0, {call}, 1)",
        f"WITH {call} AS x SELECT x",
        f"WITH (SELECT {call}) AS x SELECT x",
        f"WITH x AS (SELECT * FROM {call}) SELECT * FROM x",
        f"SELECT * FROM (SELECT * FROM (SELECT {call}))",
        f"SELECT 1 UNION ALL SELECT {call}",
        f"SELECT 1 EXCEPT SELECT {call}",
        f"SELECT sumIf(1, toString({call}) = '')",
        f"SELECT quantile(0.5)(length(toString({call})))",
        f"SELECT CAST({call} AS String)",
        f"SELECT toString({call})::String",
        f"SELECT EXISTS (SELECT {call})",
        f"SELECT 1) UNION ALL SELECT {call} FROM (SELECT 1",
        f"SELECT * FROM view(SELECT {call})",
        f"SELECT * FROM numbers(length(toString({call})))",
        f"SELECT * FROM values('a String', toString({call}))",
    ]


REFUSED = [
    *wrapped("file('/proc/self/environ')"),
    *(
        f"SELECT * FROM {call}"
        for call in (
            "file('/etc/passwd', 'LineAsString')", "`file`('/etc/passwd')", "FILE('/etc/passwd')",
            "url('http://127.0.0.1:1/', 'LineAsString')", "s3('http://127.0.0.1:1/b/k')",
            "remote('127.0.0.1', system.one)", "remoteSecure('127.0.0.1', system.one)",
            "mysql('127.0.0.1:1', 'd', 't', 'u', 'p')", "postgresql('127.0.0.1:1', 'd', 't', 'u', 'p')",
            "mongodb('127.0.0.1:1', 'd', 't', 'u', 'p', 'a Int8')", "redis('127.0.0.1:1', 'a', 'a Int8')",
            "sqlite('/tmp/x', 't')", "executable('id', 'TSV', 'a String')", "jdbc('x', 'y')", "odbc('x', 'y', 'z')",
            "hdfs('hdfs://x', 'TSV')", "iceberg('x')", "deltaLake('x')", "hudi('x')", "azureBlobStorage('x', 'y', 'z')",
            "merge('market', '.*')", "merge('.*')", "merge(market, 'raw_')", "cluster('default', system.one)",
            "clusterAllReplicas('default', system.one)", "dictionary('d')", "loop(private.secrets)", "input('a Int8')",
            "format(TSV, 'a Int8', '1')", "fuzzQuery('SELECT 1')", "generateRandom('a Int8')", "view(SELECT 1)",
            "viewIfPermitted(SELECT 1 ELSE null('a Int8'))", "mergeTreeIndex(market, sales)", "mergeTreeParts(market, sales)",
            "Python(x)", "arrowFlight('127.0.0.1:1', 'x')", "timeSeriesData(x)", "prometheusQuery(x, 'y', 1)",
        )
    ),
    *(
        f"SELECT {call}"
        for call in (
            "file('/etc/passwd')", "FILE('/etc/passwd')", "`file`('/etc/passwd')", "/**/file/**/('/etc/passwd')", "file\n(\n'/etc/passwd')",
            "dictGet('d', 'a', 1)", "joinGet('private.secrets', 's', 1)", "hasColumnInTable('private', 'secrets', 's')",
            "getServerPort('http_port')", "getMacro('x')", "getSetting('max_threads')", "getServerSetting('max_threads')",
            "hostName()", "FQDN()", "serverUUID()", "buildId()", "filesystemAvailable()", "currentProfiles()", "tcpPort()",
            "sleep(3)", "sleepEachRow(3)", "throwIf(1)", "addressToLine(1)", "demangle('x')", "logTrace('x')",
            "showCertificate()", "getOSKernelVersion()", "encrypt('aes-128-ecb', 'a', 'b')", "decrypt('aes-128-ecb', 'a', 'b')",
            "catboostEvaluate('/x', 1)", "evalMLMethod(1, 2)", "regionToName(toUInt32(1))", "aiGenerate('x')", "chdb('SELECT 1')",
            "getClientHTTPHeader('x')", "currentRequestURL()", "zookeeperSessionUptime()", "formatRow('Template', 1)", "structureToProtobufSchema('a Int8')",
        )
    ),
    *(
        f"SELECT * FROM {table}"
        for table in (
            "system.tables", "system.processes", "system.query_log", "system.disks", "system.parts", "system.databases",
            "system.users", "system.server_settings", "system.errors", "system.named_collections", "SYSTEM.tables",
            "`system`.`tables`", '"system"."tables"', "system . tables", "system./* */tables", "information_schema.views",
            "private.secrets", "`private`.secrets", "default.x", "raw_control_keys", "market.raw_control_keys", "`raw_control_keys`",
            "sales, private.secrets", "sales JOIN private.secrets ON 1", "(SELECT * FROM private.secrets)",
        )
    ),
    "SELECT 1 WHERE 'x' IN private.secrets",
    "SELECT 1 WHERE 'x' IN (private.secrets)",
    "SELECT 1 WHERE 'x' NOT IN private.secrets",
    "SELECT 1 WHERE 'x' GLOBAL IN private.secrets",
    "SELECT in('x', private.secrets)",
    "SELECT nullIn('x', `private`.`secrets`)",
    "SELECT 'x' IN raw_control_keys",
    "SELECT * APPLY (file) FROM sales",
    "SELECT COLUMNS('offer') APPLY (x -> file(x)) FROM sales",
    "SELECT 1 INTO OUTFILE '/tmp/canary'",
    "SELECT 1 INTO OUTFILE '/tmp/canary' TRUNCATE FORMAT CSV",
    "SELECT 1 FORMAT Template",
    "SELECT 1 FORMAT CustomSeparated",
    "SELECT 1 FORMAT Protobuf",
    "SELECT 1 SETTINGS max_execution_time = 100",
    "SELECT * FROM (SELECT 1 SETTINGS max_threads = 8)",
    "SELECT 1 FORMAT CSV SETTINGS output_format_schema = '/tmp/x'",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP TABLE market.sales",
    "SELECT 1 /* ; */; DROP TABLE market.sales --",
    "SELECT 1)); DROP TABLE market.sales; SELECT ((1",
    "SELECT 1) FORMAT CSV; INSERT INTO market.sales VALUES ('x', 1, 1, []); SELECT (1",
    "; SELECT 1",
    "",
    "-- nothing",
    "DESCRIBE url('http://127.0.0.1:1/')",
    "DESCRIBE TABLE file('/etc/passwd')",
    "DESC (SELECT file('/etc/passwd'))",
    "EXPLAIN SELECT 1",
    "EXPLAIN AST SELECT 1",
    "SHOW PROCESSLIST",
    "SHOW CREATE TABLE market.sales",
    "SHOW GRANTS",
    "SHOW SETTINGS LIKE '%'",
    "SHOW TABLES FROM market INTO OUTFILE '/tmp/canary'",
    "SHOW TABLES FROM `x' OR 1`",
    "INSERT INTO market.sales VALUES ('x', 1, 1, [])",
    "INSERT INTO FUNCTION file('/tmp/canary', 'CSV', 'a Int8') VALUES (1)",
    "CREATE TABLE market.x (a Int8) ENGINE = Memory",
    "CREATE VIEW market.x AS SELECT * FROM file('/etc/passwd')",
    "CREATE TEMPORARY TABLE x (a Int8)",
    "CREATE FUNCTION f AS (x) -> file(x)",
    "DROP TABLE market.sales",
    "TRUNCATE TABLE market.sales",
    "ALTER TABLE market.sales DELETE WHERE 1",
    "DELETE FROM market.sales WHERE 1",
    "UPDATE market.sales SET n = 1 WHERE 1",
    "RENAME TABLE market.sales TO market.x",
    "OPTIMIZE TABLE market.sales",
    "KILL QUERY WHERE 1",
    "SYSTEM SHUTDOWN",
    "SYSTEM FLUSH LOGS",
    "BACKUP TABLE market.sales TO File('/tmp/canary')",
    "RESTORE TABLE market.sales FROM File('/tmp/canary')",
    "SET readonly = 0",
    "SET max_execution_time = 1000",
    "USE private",
    "GRANT ALL ON *.* TO analyst",
    "ATTACH TABLE market.x FROM '/etc' (a Int8) ENGINE = File(CSV)",
    "DETACH TABLE market.sales",
    "EXISTS TABLE private.secrets",
    "CHECK TABLE market.sales",
    "WATCH market.totals",
    "PARALLEL WITH SELECT 1",
    "(INSERT INTO market.sales VALUES ('x', 1, 1, []))",
    "SELECT 1 AS `a\nFunction b`",
    "SELECT '" + "x" * 200_000 + "'",
    "SELECT " + "(" * 2000 + "1" + ")" * 2000,
]  # fmt: skip


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


async def test_a_query_is_stopped_at_its_limit_and_the_writer_goes_on(
    analyst: AsyncClient, writer: AsyncClient
) -> None:
    await writer.command("CREATE TABLE market.busy (a Int64) ENGINE = MergeTree ORDER BY a")
    slow = [
        "SELECT count() FROM numbers(1e12)",
        "SELECT count() FROM numbers(1e9) a, numbers(1e9) b",
        "SELECT uniqExact(number) FROM numbers(1e12)",
        "SELECT count() FROM (SELECT number FROM numbers(1e12) ORDER BY number % 7)",
    ]

    async def stopped(sql: str) -> float:
        begun = time.monotonic()
        with pytest.raises(DatabaseError) as caught:
            await analyst.query(sql)
        assert caught.value.code in (159, 241)  # time, memory
        return time.monotonic() - begun

    running = [asyncio.create_task(stopped(sql)) for sql in slow[: LIMITS.max_concurrent]]
    n_inserts = 0
    while not all(task.done() for task in running):
        await writer.raw_insert("market.busy", insert_block=b"1\n" * 1000, fmt="CSV")
        n_inserts += 1
    assert n_inserts >= 10
    assert await writer.command("SELECT count() FROM market.busy") == 1000 * n_inserts
    taken = [await task for task in running]
    taken += [await stopped(sql) for sql in slow[LIMITS.max_concurrent :]]
    assert max(taken) < LIMIT_S + 1


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


async def test_a_crowd_is_turned_away_at_once(
    store: ChdbServer, http: aiohttp.ClientSession
) -> None:
    n_allowed = LIMITS.max_concurrent + LIMITS.max_waiting

    async def ask() -> tuple[int, float]:
        begun = time.monotonic()
        async with http.post("/", data="SELECT count() FROM numbers(1e12)") as answer:
            return answer.status, time.monotonic() - begun

    answers = await asyncio.gather(*(ask() for _ in range(n_allowed + 20)))
    turned_away = [took for status, took in answers if status == 503]
    assert len(turned_away) == 20
    assert max(turned_away) < LIMIT_S
    assert {status for status, _ in answers} == {408, 503}
