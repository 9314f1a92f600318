"""One database a worker for all that is asked of reports: nothing here writes to it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from analytics.store import Store
from broker.embedded.store import ChdbServer
from tests.fakes.desk import settings_of
from tests.fakes.traded import traded


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def database(chdb_server: ChdbServer) -> AsyncIterator[str]:
    async with traded(chdb_server) as store:
        yield store.settings.database


@pytest.fixture
async def store(chdb_server: ChdbServer, database: str) -> AsyncIterator[Store]:
    async with await Store.open(settings_of(chdb_server, database)) as store:
        yield store
