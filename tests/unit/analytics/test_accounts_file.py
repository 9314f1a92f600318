"""The accounts for a ClickHouse server: the engine's own parser reads every statement."""

from __future__ import annotations

from pathlib import Path

import pytest

from analytics.store import Store
from broker.embedded.store import ChdbServer
from tests.fakes.desk import settings_of

FILE = Path(__file__).parents[3] / "infra" / "clickhouse" / "users.sql"
LINES = [line for line in FILE.read_text().splitlines() if not line.startswith("--")]
STATEMENTS = [s.strip() for s in "\n".join(LINES).split(";") if s.strip()]


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda s: s[:30])
async def test_every_statement_can_be_read(chdb_server: ChdbServer, statement: str) -> None:
    async with await Store.open(settings_of(chdb_server, "market")) as store:
        assert await store.export(f"EXPLAIN AST {statement}", fmt="TabSeparated")


def test_the_analyst_is_granted_nothing_but_the_views() -> None:
    grants = [s for s in STATEMENTS if s.startswith("GRANT") and s.endswith("TO analyst")]
    assert grants == ["GRANT SELECT ON market.* TO analyst"]
