"""The embedded log and store, one of each a session; nothing starts before it is asked for.

A test that kills or freezes a log starts its own. `BROKER_TEST_KAFKA=host:port` names an Apache
Kafka on which the log's suites run as well (`infra/kafka/` starts one).
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings

from broker.embedded.store import ChdbServer
from broker.embedded.tansu import Tansu
from feeds.kafka import KafkaSettings
from tests.fakes.log_rig import APACHE_KAFKA, quick_groups

#: Longest files first, so that no worker is left alone at the end with one that takes a minute.
#: A file goes to a worker as a whole (`--dist loadfile`): its fixtures are set up once.
LONGEST_FIRST = ("faults", "simulation", "docs", "contract", "unit/analytics", "property", "")
#: They run beside a whole market, which takes its part of the machine for as long as it is up.
LAST = "e2e"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order by folder, each file's tests together and in their own order."""

    def rank(item: pytest.Item) -> int:
        if item.nodeid.startswith(f"tests/{LAST}/"):
            return len(LONGEST_FIRST)
        found = (i for i, f in enumerate(LONGEST_FIRST) if item.nodeid.startswith(f"tests/{f}"))
        return next(found, len(LONGEST_FIRST))

    items.sort(key=rank)


# A busy machine draws examples slowly; that says nothing about the code.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def tansu() -> AsyncIterator[Tansu]:
    """A log shared by all tests: use topics of your own."""
    async with Tansu() as log:
        yield log


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chdb_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ChdbServer]:
    """A store shared by all tests: use databases or tables of your own."""
    async with ChdbServer(tmp_path_factory.mktemp("store")) as store:
        yield store


@pytest.fixture(params=["tansu", *(["apache"] if APACHE_KAFKA else [])])
def log_settings(request: pytest.FixtureRequest) -> KafkaSettings:
    """A log to test against: Tansu, and the Apache Kafka that was named."""
    if request.param == "apache":
        return KafkaSettings(bootstrap=APACHE_KAFKA, session_timeout_ms=6_000)
    log: Tansu = request.getfixturevalue("tansu")
    return quick_groups(log.bootstrap)
