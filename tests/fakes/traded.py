"""A market's records that every report is asked of, and how a test asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec

from analytics.chain import Chain, ChainStats
from analytics.reports import run
from analytics.store import Store
from bidding.decision import Bid, Switch
from bidding.market import PriceList
from broker.embedded.store import ChdbServer
from feeds.clock import ManualClock
from feeds.codec import Record
from feeds.control_records import ParamsRecord
from feeds.flight import note_shadow
from feeds.market_records import PriceRecord, SeasonRecord, SourceRecord, StatusRecord, ViewRecord
from feeds.records import DeadRecord, DecisionRecord, VerdictRecord
from feeds.topics import (
    ATTEMPTS,
    DEAD,
    DECISIONS,
    FEEDBACK,
    PARAMS,
    PRICES,
    QUOTES,
    SEASONS,
    SKILLS,
    SOURCES,
    STATUS,
    VIEWS,
    Topic,
)
from tests.fakes import facts
from tests.fakes.desk import migrated

N = 240
HOUR_US = 3_600_000_000
CLOCK = ManualClock(facts.T0_US + 5 * HOUR_US // 6)


def _decision(i: int) -> DecisionRecord:
    """Every fifth is a step of one of two sessions, every seventh was checked."""
    made = facts.decision(i)
    if made.incumbent and made.delivered_offer:
        made.session, made.session_step = f"s_{i % 2}", i // 10 + 1
        moved = made.delivered_offer != made.incumbent
        made.handoff = "gain" if moved else ""
        switch = Switch(
            incumbent=made.incumbent,
            moved=moved,
            bid=None,
            no_bid=None,
            lost_cache_nusd=2e5 if moved else 0.0,
            consistency_nusd=5e5 if moved else 0.0,
            translation_nusd=0.0,
            gain_nusd=1e6 if moved else None,
        )
        made.switch = msgspec.json.encode(switch).decode()
    if i % 3 == 1 and made.winner is not None:
        other = made.ranked[i % 2]
        note_shadow(made, 9, Bid(other.offer, 0, other.score_nusd, 5e8, 0.5, 0.25))
    if i % 7 == 0 and made.delivered_offer:
        made.verdicts = [
            VerdictRecord(1, "p9/m9", "m9", "regex", 0.0, 0.2, 1_000),
            VerdictRecord(
                2, made.delivered_offer, made.delivered_model or "", "passed", 1.0, 0.2, 3_000
            ),
        ]
    return made


DECISIONS_MADE = [_decision(i) for i in range(N)]
ATTEMPTS_MADE = [facts.attempt(i) for i in range(N)]
SEEN_OURSELVES = [a for a in ATTEMPTS_MADE if a.source != "pushed"]
SCORES_MADE = [facts.feedback(i) for i in range(N)]


def others() -> dict[Topic, list[Record]]:
    old = PriceList(input_nusd_per_mtok=10**9, output_nusd_per_mtok=4 * 10**9)
    new = PriceList(input_nusd_per_mtok=8 * 10**8, output_nusd_per_mtok=5 * 10**9)
    skill = facts.skill("sum", at_us=facts.T0_US)
    return {
        QUOTES: [facts.quote(i) for i in range(30)],
        SKILLS: [skill],
        PRICES: [
            PriceRecord(offer="p0/m0", at_us=facts.T0_US, prices=new, source="list", old=old),
            PriceRecord(
                offer="p0/m1", at_us=facts.T0_US + 1, prices=old, source="ask", withdrawn=True
            ),
        ],
        STATUS: [
            StatusRecord(
                provider="p0",
                at_us=facts.T0_US,
                component="api",
                severity="major",
                state="investigating",
                since_us=facts.T0_US - 1,
                title="Slow",
            )
        ],
        SEASONS: [
            SeasonRecord(
                offer="p0/m0", at_us=facts.T0_US, latency=[1.0] * 167 + [2.0], errors=[1.0] * 168
            )
        ],
        SOURCES: [SourceRecord(source="acme", at_us=facts.T0_US, until_us=facts.T0_US + 1)],
        PARAMS: [
            ParamsRecord(
                scope="global", version=1, at_us=facts.T0_US, by="ops", why="because", params="{}"
            )
        ],
        VIEWS: [
            ViewRecord(gateway="gw9", boot="b", seq=s, view_number=s, at_us=facts.T0_US)
            for s in (1, 2, 4, 4)
        ],
        DEAD: [
            DeadRecord(
                at_us=facts.T0_US,
                topic="market.attempts",
                partition=1,
                offset=5,
                reason="not a record",
                payload=b"\x00{oops",
            )
        ]
        * 2,
    }


@asynccontextmanager
async def traded(server: ChdbServer) -> AsyncIterator[Store]:
    """A store of its own that holds all of it."""
    async with migrated(server) as store:
        made: dict[Topic, list[Any]] = {
            ATTEMPTS: ATTEMPTS_MADE,
            DECISIONS: DECISIONS_MADE,
            FEEDBACK: SCORES_MADE,
            **others(),
        }
        for topic, records in made.items():
            await stored(store, topic, records)
        yield store


async def stored(store: Store, topic: Topic, records: list[Any]) -> None:
    """Append `records` as the recorder would, one batch."""
    chain = Chain(store, topic, "L", 1, 0, today=facts.today, stats=ChainStats())
    await chain.append(facts.batch(topic, records, 0))


async def rows(store: Store, name: str, **params: Any) -> list[dict[str, Any]]:
    """What the report answers fifty minutes after it all began."""
    return (await run(store, name, params, clock=CLOCK)).records()


def by(found: list[dict[str, Any]], *keys: str) -> dict[Any, dict[str, Any]]:
    return {tuple(r[k] for k in keys) if len(keys) > 1 else r[keys[0]]: r for r in found}


def hour(at_us: int) -> int:
    return datetime.fromtimestamp(at_us / 1e6, UTC).hour
