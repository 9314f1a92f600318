"""What every report takes on a loaded store, as the analyst: time at p95, rows and bytes read."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from clickhouse_connect.driver.client import Client
from msgspec import Struct

from analytics import reports
from analytics.migrate import qualified
from analytics.store import Store, StoreSettings

RUNS: Final = 20
_NEEDED: Final = frozenset({"decision_id", "offer", "session"})
_SIZES: Final = """
SELECT table, sum(rows), sum(data_compressed_bytes), sum(bytes_on_disk) FROM system.parts
WHERE active AND database = {raw:String} GROUP BY table ORDER BY table
"""
_NEWEST: Final = "SELECT max(at) FROM {raw:Identifier}.attempts"
_A_DECISION: Final = """
SELECT decision_id, delivered_offer FROM {market:Identifier}.decisions
WHERE at > {newest:DateTime64(6, 'UTC')} - INTERVAL 1 DAY LIMIT 1
"""
_COLUMNS: Final = """
SELECT column, sum(column_data_compressed_bytes) AS bytes FROM system.parts_columns
WHERE active AND database = {raw:String} AND table = 'attempts' GROUP BY column ORDER BY bytes DESC
"""


#: What the market page asks where that is more than a report's defaults.
PAGE: Final[tuple[tuple[str, dict[str, str]], ...]] = (
    ("recent_decisions", {"limit": "15", "since": "24h"}),
    ("market_share", {"since": "24h", "bucket_minutes": "15"}),
    ("market_share", {"since": "7d", "bucket_minutes": "120"}),
    ("price_history", {"since": "90d"}),
    ("hour_of_week", {"min_n": "3"}),
)


class Timed(Struct, frozen=True):
    """One report: p50 and p95 of its runs, and what one of them read.

    `cpu_ms` is what a run took of the engine's processor, whatever else the machine was doing.
    """

    name: str
    p50_ms: float
    p95_ms: float
    cpu_ms: float
    rows_read: int
    bytes_read: int
    rows: int


def processor_s(pid: int) -> float:
    """Seconds of processor that a process has had, `proc(5)`."""
    told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")


def timed(
    client: Client,
    settings: StoreSettings,
    pid: int,
    name: str,
    given: dict[str, Any],
    now: datetime,
) -> Timed:
    """Run a report `RUNS` times as of `now`."""
    asked = reports.report(name)
    sql = qualified(asked.sql, settings)
    taken, found, had_s = [], None, processor_s(pid)
    for _ in range(RUNS):
        values = reports.bind(asked, given, now)
        begun_s = time.perf_counter()
        found = client.query(sql, parameters=values)
        taken.append((time.perf_counter() - begun_s) * 1e3)
    assert found is not None
    taken.sort()
    return Timed(
        name=" ".join((name, *(f"{k}={v}" for k, v in given.items() if k not in _NEEDED))),
        p50_ms=taken[len(taken) // 2],
        p95_ms=taken[min(round(0.95 * len(taken)), len(taken) - 1)],
        cpu_ms=(processor_s(pid) - had_s) * 1e3 / RUNS,
        rows_read=int(found.summary.get("read_rows", 0)),
        bytes_read=int(found.summary.get("read_bytes", 0)),
        rows=found.row_count,
    )


async def every_report(client: Client, store: Store, pid: int) -> list[Timed]:
    """Every report with its default parameters, and what the market page asks.

    `pid` is the engine's. Now is when the newest attempt was made, however long ago that was.
    """
    (newest,) = (await store.query(_NEWEST)).rows[0]
    (decision_id, offer) = (await store.query(_A_DECISION, {"newest": newest})).rows[0]
    needed = {"decision_id": decision_id, "offer": offer, "session": "s_none"}
    now = newest.replace(tzinfo=UTC)
    asked: list[tuple[str, dict[str, Any]]] = [
        (r.name, {p.name: needed[p.name] for p in r.parameters if p.default is None})
        for r in reports.list_reports()
    ]
    return [
        await asyncio.to_thread(timed, client, store.settings, pid, name, given, now)
        for name, given in (*asked, *PAGE)
    ]


async def sizes(store: Store) -> dict[str, tuple[int, int, int]]:
    """Rows, compressed bytes and bytes on disk, by table."""
    answer = await store.query(_SIZES, {"raw": store.settings.raw})
    return {table: (rows, data, disk) for table, rows, data, disk in answer.rows}


async def columns_of_attempts(store: Store) -> dict[str, int]:
    """Compressed bytes of each column of the attempts."""
    answer = await store.query(_COLUMNS, {"raw": store.settings.raw})
    return dict(answer.rows)
