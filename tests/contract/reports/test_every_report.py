"""Every named report on known data: it runs, for the analyst and into a file."""

from __future__ import annotations

import io

import pandas as pd
import pytest

from analytics.migrate import migrate
from analytics.reports import export, list_reports, run
from analytics.store import Store, StoreSettings
from broker.embedded.store import ChdbServer
from tests.fakes.desk import settings_of
from tests.fakes.traded import (
    CLOCK,
    N,
    by,
    rows,
)


@pytest.mark.parametrize("name", [r.name for r in list_reports()])
async def test_every_report_answers_with_rows(store: Store, name: str) -> None:
    given = {"decision_id": "d00000003", "offer": "p0/m0", "session": "s_0"}
    asked = next(r for r in list_reports() if r.name == name)
    needed = {p.name: given[p.name] for p in asked.parameters if p.default is None}
    result = await run(store, name, needed, clock=CLOCK)
    assert result.rows
    assert len(result.columns) == len(result.types) == len(result.rows[0])
    assert set(result.parameters) == {p.name for p in asked.parameters}


@pytest.mark.parametrize("name", [r.name for r in list_reports()])
async def test_every_report_may_be_run_by_the_analyst(chdb_server: ChdbServer, name: str) -> None:
    settings = StoreSettings(
        port=chdb_server.port,
        username=chdb_server.analyst.user,
        password=chdb_server.analyst.password,
    )
    async with await Store.open(settings_of(chdb_server, "market")) as writer:
        await migrate(writer)
    asked = next(r for r in list_reports() if r.name == name)
    needed = {p.name: "x" for p in asked.parameters if p.default is None}
    async with await Store.open(settings) as analyst:
        result = await run(analyst, name, needed)
        assert result.columns  # known even without rows


async def test_reports_as_files(store: Store) -> None:
    lines = (await export(store, "savings", fmt="csv", clock=CLOCK)).decode().splitlines()
    assert lines[0].startswith('"tenant","task","requests"')
    assert len(lines) == 1 + 6
    body = await export(store, "savings", fmt="parquet", clock=CLOCK)
    assert len(pd.read_parquet(io.BytesIO(body))) == 6
    body = await export(store, "savings", fmt="json", clock=CLOCK)
    assert len(body.splitlines()) == 6


async def test_overhead(store: Store) -> None:
    found = await rows(store, "overhead")
    assert sum(r["requests"] for r in found) == N
    assert {r["p99_us"] for r in found} == {180.0}


async def test_the_ledger_sees_a_hole_and_a_double(store: Store) -> None:
    found = by(await rows(store, "ledger"), "gateway", "boot", "topic")
    row = found["gw9", "b", "views"]
    assert (row["stored"], row["different"]) == (4, 3)
    assert (row["duplicated"], row["missing"]) == (1, 1)
    # A writer numbers the records of each topic on their own.
    for topic in ("attempts", "decisions"):
        mine = found["gw0", "b1-0", topic]
        assert mine["stored"] > 0
        assert mine["missing"] == mine["duplicated"] == 0


async def test_a_dead_letter_written_twice_counts_once(store: Store) -> None:
    (row,) = await rows(store, "dead_letters", since="365d")
    assert row["letters"] == 1
    assert row["reason"] == "not a record"


async def test_params_history(store: Store) -> None:
    (row,) = await rows(store, "params_history")
    assert (row["by"], row["why"], row["version"]) == ("ops", "because", 1)
