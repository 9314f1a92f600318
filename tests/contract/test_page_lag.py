"""The report that says how late a status page tells what our own calls had seen."""

from __future__ import annotations

from typing import Any

import pytest

from analytics.chain import Chain, ChainStats
from analytics.reports import run
from bidding.outcome import FailureClass
from broker.embedded.store import ChdbServer
from feeds.clock import ManualClock
from feeds.market_records import StatusRecord
from feeds.records import AttemptRecord
from feeds.topics import ATTEMPTS, STATUS
from tests.fakes import facts
from tests.fakes.desk import migrated

MINUTE_US = 60_000_000
CLOCK = ManualClock(facts.T0_US + 300 * MINUTE_US)
BEGIN = facts.T0_US - facts.T0_US % MINUTE_US + 100 * MINUTE_US


def calls(provider: str, failing: range) -> list[AttemptRecord]:
    """Four calls a minute for an hour and a half, three of them failing in `failing`."""
    found = []
    for minute in range(90):
        for k in range(4):
            made = facts.attempt(4 * minute + k)
            made.provider, made.offer, made.source = provider, f"{provider}/m", "gateway"
            made.at_us = BEGIN + minute * MINUTE_US + k * MINUTE_US // 5
            made.started_at_us = made.at_us - 1000
            failed = minute in failing and k < 3
            made.failure = FailureClass.SERVER_ERROR if failed else FailureClass.OK
            found.append(made)
    return found


def told(provider: str, minute: int, **more: Any) -> StatusRecord:
    given = {"severity": "major", "state": "investigating", "incident_id": "1", **more}
    return StatusRecord(
        provider=provider,
        at_us=BEGIN + minute * MINUTE_US,
        component="API",
        since_us=BEGIN,
        title="Errors",
        **given,
    )


@pytest.mark.parametrize(
    ("minute", "lag", "says"),
    [
        (31, 11.0, "this page tells you 11 minutes late"),
        (17, -3.0, "this page tells you 3 minutes early"),
        (20, 0.0, "this page tells you at once"),
    ],
)
async def test_the_lag_is_that_behind_the_first_bad_minute(
    chdb_server: ChdbServer, minute: int, lag: float, says: str
) -> None:
    attempts = [*calls("late", range(20, 50)), *calls("wrong", range(0))]
    # An unlucky minute of long before is another spell.
    attempts[4 * 2].failure = attempts[4 * 2 + 1].failure = FailureClass.SERVER_ERROR
    status = [
        told("late", minute),
        told("late", 60, state="resolved"),
        told("late", 5, incident_id="2", scope="none"),
        told("wrong", 40),
    ]
    async with migrated(chdb_server) as store:
        for topic, records in ((ATTEMPTS, attempts), (STATUS, status)):
            chain = Chain(store, topic, "L", 1, 0, today=facts.today, stats=ChainStats())
            await chain.append(facts.batch(topic, records, 0))
        found = (await run(store, "page_lag", {}, clock=CLOCK)).records()
        by = {r["provider"]: r for r in found}
        assert by["late"]["median_lag_min"] == lag
        assert by["late"]["says"] == says
        assert (by["late"]["incidents"], by["late"]["borne_out"]) == (1, 1)
        assert (by["wrong"]["incidents"], by["wrong"]["borne_out"]) == (1, 0)
        assert "nothing" in by["wrong"]["says"]
