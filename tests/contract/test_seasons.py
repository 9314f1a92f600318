"""Seasons on the real engine and the real log: cells in ClickHouse to the view of a gateway."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from analytics.migrate import migrate
from analytics.recorder import Recording
from analytics.replay import season
from analytics.reports import run as run_report
from analytics.season_job import LATER_SHARE, SeasonJob
from analytics.store import Store, StoreSettings
from bidding.estimators.season_columns import RAMP_S, log_at
from bidding.estimators.seasons import HOURS, Season, hour_of_week
from bidding.outcome import FailureClass, Outcome
from bidding.quote import Position
from bidding.quoting import Quoter
from broker.embedded.store import ChdbServer
from broker.embedded.tansu import Tansu
from broker.live_market import LiveMarket
from broker.metrics import Metrics
from feeds.clock import ManualClock, SystemClock
from feeds.compacted import latest
from feeds.estimate import EstimateSettings, Estimation
from feeds.kafka import KafkaSettings, ensure_topics
from feeds.topics import SEASONS, TOPICS
from tests.bench.market import catalogue
from tests.fakes.log_rig import until

SLOW = (39, 40)


async def fill(store: Store, offer: str, monday: date, *, n_weeks: int = 3) -> None:
    """Three weeks of an offer that is three times slower on Tuesdays at three and four."""
    rows = []
    for week in range(1, n_weeks + 1):
        for hour in range(HOURS):
            log = math.log(900.0 if hour in SLOW else 300.0)
            total, square = round(20 * log * 1e6), round(20 * log * log * 1e6)
            day = monday - timedelta(weeks=week)
            rows.append(f"('{offer}', {hour}, '{day}', 20, 0, 0, 20, {total}, {square}, 0, 0)")
    await store.command(
        "INSERT INTO {raw:Identifier}.offer_hours_of_week VALUES " + ", ".join(rows)
    )


async def one_does_the_work(
    kafka: KafkaSettings, settings: StoreSettings, works: SeasonJob, clock: ManualClock
) -> None:
    """Beside another, who stands by publishes nothing for as long as that one goes on."""

    async def published() -> tuple[str, int]:
        ((record, position),) = (await latest(kafka, SEASONS)).values()
        return record.boot, position.offset

    stands_by = SeasonJob(kafka, settings, clock=clock)
    first = await published()
    for _ in range(3):
        wait_s = await stands_by.turn()
        assert 3_600.0 < wait_s <= 3_600.0 * (1.0 + 2 * LATER_SHARE)
        clock.advance(3_600.0)
        assert await works.turn() == 3_600.0
    boot, offset = await published()
    assert (boot, offset) == (first[0], first[1] + 3)
    clock.advance(wait_s)  # and the other is gone
    assert await stands_by.turn() == 3_600.0
    assert (await published())[0] != boot


async def test_cells_become_seasons_in_force_everywhere(tmp_path: Path) -> None:
    clock = SystemClock()
    today = datetime.now(UTC).date()
    made = catalogue(100)
    offer = made.offers[0].id
    async with Tansu() as log, ChdbServer(tmp_path) as engine:
        kafka = KafkaSettings.embedded(log.bootstrap)
        settings = StoreSettings(
            port=engine.port, username=engine.writer.user, password=engine.writer.password
        )
        await ensure_topics(kafka, TOPICS)
        async with await Store.open(settings) as store:
            await migrate(store)
            await fill(store, offer, today - timedelta(days=today.weekday()))
            market = LiveMarket(made, kafka, clock, Metrics())
            estimation = Estimation(EstimateSettings(), kafka, clock, made)
            recording = Recording(kafka, settings)
            tasks = [asyncio.create_task(s.run()) for s in (market, estimation, recording)]
            try:
                ours = ManualClock(clock.now_us())
                works = SeasonJob(kafka, settings, clock=ours)
                assert await works.turn() == 3_600.0
                await one_does_the_work(kafka, settings, works, ours)
                row = market.book.offers.row_of[offer]
                await until(lambda: market.book._seasons._known)
                found = np.exp(market.book._seasons._latency[row])
                assert (found[list(SLOW)] > 2.0).all()
                assert (np.delete(found, SLOW) < 1.3).all()
                await until(lambda: len(estimation.quoter._season_logs) > 0)
                async with asyncio.timeout(30):
                    peaks = []
                    while not peaks:
                        await asyncio.sleep(0.1)
                        peaks = (
                            await run_report(store, "who_peaks_when", {"min_percent": 100})
                        ).rows
                assert {(r[0], r[1]) for r in peaks} == {(offer, h) for h in SLOW}
            finally:
                estimation.stop()
                recording.stop()
                await asyncio.wait(tasks[1:], timeout=20)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)


def test_the_synthetic_tuesday_is_found_and_avoided_from_its_first_minute() -> None:
    found = season.figures(n_seeds=1, every_s=1_200)
    assert season.broken(found) == []
    assert found["season_unaware_first_minute_avoided_share"] < 1.0
    assert found["season_first_minute_avoided_share"] == 1.0


def test_what_is_measured_in_a_slow_hour_leaves_the_quote_where_it_was() -> None:
    multiplier = np.ones(HOURS)
    multiplier[list(SLOW)] = 3.0
    known = Season(multiplier, np.zeros(HOURS))
    slow_s = season.MONDAY_S + SLOW[0] * 3_600 + 600

    def quoted(quoter: Quoter, slow: float) -> tuple[float, float]:
        outcomes = [
            Outcome(
                offer="p/m",
                at_us=(slow_s + i) * 1_000_000,
                ttft_ms=300.0 * slow,
                total_ms=300.0 * slow + 990.0,
                output_tokens=100,
            )
            for i in range(50)
        ] + [
            Outcome(
                offer="p/m",
                at_us=(slow_s + 60) * 1_000_000,
                failure=FailureClass.TIMEOUT_TTFT,
                waited_ms=500.0 * slow,
            )
        ]
        places = [Position("L", "market.attempts", 0, i) for i in range(len(outcomes))]
        quoter.fold(outcomes, places)
        [quote] = quoter.quotes((slow_s + 61) * 1_000_000)
        return quote.ttft_log_ms, quote.tpot_log_ms

    seasoned = Quoter()
    seasoned.set_season("p/m", known)
    assert quoted(seasoned, 3.0) == pytest.approx(quoted(Quoter(), 1.0), abs=1e-6)


def test_a_multiplier_holds_from_its_hours_first_second_and_nothing_jumps() -> None:
    logs = np.zeros((1, HOURS))
    logs[0, list(SLOW)] = 1.0
    at_s = season.MONDAY_S + 38 * 3_600 + np.arange(4 * 3_600, dtype=np.float64)
    found = log_at(logs, np.zeros(len(at_s), dtype=np.int64), at_s)
    hours = hour_of_week(at_s)
    assert (found[np.isin(hours, SLOW) & (at_s % 3_600 < 3_600 - RAMP_S)] == 1.0).all()
    assert (found[hours == 41] == 0.0).all()
    assert np.abs(np.diff(found)).max() <= 1.01 / RAMP_S
