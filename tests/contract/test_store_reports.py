"""Every named report on known data: it runs for the analyst, and says what was put in."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
import pytest_asyncio

from analytics.chain import Chain, ChainStats
from analytics.migrate import migrate
from analytics.reports import export, list_reports, run
from analytics.seasons import season_cells
from analytics.store import Store, StoreSettings
from bidding.decision import Bid, Switch
from bidding.market import PriceList
from bidding.outcome import FailureClass
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
from tests.fakes.desk import migrated, settings_of

N = 240
HOUR_US = 3_600_000_000
OLDEST = facts.MONDAY - timedelta(weeks=12)
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


def _others() -> dict[Topic, list[Record]]:
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
                scope="", version=1, at_us=facts.T0_US, by="ops", why="because", params="{}"
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


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def database(chdb_server: ChdbServer) -> AsyncIterator[str]:
    async with migrated(chdb_server) as store:
        made: dict[Topic, list[Any]] = {
            ATTEMPTS: ATTEMPTS_MADE,
            DECISIONS: DECISIONS_MADE,
            FEEDBACK: SCORES_MADE,
            **_others(),
        }
        for topic, records in made.items():
            chain = Chain(store, topic, "L", 1, 0, today=facts.today, stats=ChainStats())
            await chain.append(facts.batch(topic, records, 0))
        yield store.settings.database


@pytest.fixture
async def store(chdb_server: ChdbServer, database: str) -> AsyncIterator[Store]:
    async with await Store.open(settings_of(chdb_server, database)) as store:
        yield store


async def rows(store: Store, name: str, **params: Any) -> list[dict[str, Any]]:
    return (await run(store, name, params, clock=CLOCK)).records()


def by(found: list[dict[str, Any]], *keys: str) -> dict[Any, dict[str, Any]]:
    return {tuple(r[k] for k in keys) if len(keys) > 1 else r[keys[0]]: r for r in found}


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


async def test_cost_and_sla_by_offer(store: Store) -> None:
    found = by(await rows(store, "cost_and_sla_by_offer"), "offer")
    assert set(found) == {"p0/m0", "p0/m1", "p1/m0"}
    for offer, row in found.items():
        mine = [d for d in DECISIONS_MADE if d.delivered_offer == offer]
        timed = [d for d in mine if d.on_time is not None]
        scored = [f.quality for f in SCORES_MADE if f.offer == offer]
        assert row["requests"] == len(mine)
        assert row["cost_usd"] == pytest.approx(sum(d.cost_nusd for d in mine) / 1e9, abs=1e-15)
        assert row["on_time_share"] == pytest.approx(
            sum(d.on_time is True for d in timed) / len(timed), abs=1e-4
        )
        assert row["quality"] == pytest.approx(sum(scored) / len(scored), abs=1e-4)


async def test_market_share(store: Store) -> None:
    found = await rows(store, "market_share", bucket_minutes=60)
    mine = [a for a in ATTEMPTS_MADE if a.source == "gateway"]
    assert sum(r["calls"] for r in found) == len(mine)
    assert sum(r["cost_usd"] for r in found) == pytest.approx(sum(a.cost_nusd for a in mine) / 1e9)
    for bucket in {r["bucket"] for r in found}:
        shares = [r["share_of_spend"] for r in found if r["bucket"] == bucket]
        assert sum(shares) == pytest.approx(1.0, abs=1e-3)


async def test_price_history(store: Store) -> None:
    newest, oldest = await rows(store, "price_history")
    assert (newest["offer"], newest["old_input_usd_per_mtok"]) == ("p0/m1", None)
    assert oldest["input_usd_per_mtok"] == 0.8
    assert oldest["input_change_percent"] == -20.0
    assert oldest["output_change_percent"] == 25.0
    assert (newest["withdrawn"], oldest["withdrawn"]) == (True, False)
    assert len(await rows(store, "price_history", offer="p0/m0")) == 1


async def test_hour_of_week(store: Store) -> None:
    found = await rows(store, "hour_of_week", min_n=1)
    assert {r["hour_of_week"] for r in found} <= {13, 14}  # Monday, 13:33 on
    assert sum(r["calls"] for r in found) == len(SEEN_OURSELVES)
    cell = by(found, "offer", "hour_of_week")["p0/m0", 13]
    mine = [
        a.ttft_ms
        for a in SEEN_OURSELVES
        if a.offer == "p0/m0" and a.ttft_ms is not None and _hour(a.at_us) == 13
    ]
    assert cell["first_tokens"] == len(mine)
    assert cell["ttft_geometric_mean_ms"] == pytest.approx(
        float(np.exp(np.log(mine).mean())), abs=2e-3
    )


async def test_season_cells_are_the_rollups(store: Store) -> None:
    cells = await season_cells(store, now=facts.MONDAY, oldest=OLDEST, half_life_weeks=4.0)
    assert cells.offers == sorted(facts.OFFERS)
    assert cells.n.sum() == pytest.approx(len(SEEN_OURSELVES))
    mine = [a for a in SEEN_OURSELVES if a.offer == "p1/m0" and _hour(a.at_us) == 13]
    logs = np.log([a.ttft_ms for a in mine if a.ttft_ms is not None])
    row = cells.offers.index("p1/m0")
    assert cells.n[row, 13] == pytest.approx(len(mine))
    assert cells.log_ttft_mean[row, 13] == pytest.approx(logs.mean(), abs=2e-6)
    assert cells.log_ttft_var[row, 13] == pytest.approx(logs.var(), abs=1e-4)
    assert np.isnan(cells.log_ttft_mean[row, 100])
    assert np.nansum(cells.log_ttft_residual[row]) == pytest.approx(0.0, abs=1e-9)
    later = await season_cells(
        store, now=facts.MONDAY + timedelta(weeks=4), oldest=OLDEST, half_life_weeks=4.0
    )
    assert later.n.sum() == pytest.approx(len(SEEN_OURSELVES) / 2)  # four weeks on, half the weight


async def test_savings(store: Store) -> None:
    found = by(await rows(store, "savings"), "tenant", "task")
    row = found["t1", "chat"]
    mine = [d for d in DECISIONS_MADE if (d.tenant, d.task) == ("t1", "chat")]
    bids = [d for d in mine if d.ranked]
    assert row["requests"] == len(mine)
    assert row["compared"] == len(bids)
    assert row["expected_usd"] == sum(round(d.ranked[0].cost_nusd) for d in bids) / 1e9
    assert row["always_best_usd"] == sum(round(d.best_cost_nusd or 0) for d in bids) / 1e9
    assert row["saved_share"] == pytest.approx(
        1 - row["expected_usd"] / row["always_best_usd"], abs=1e-4
    )


async def test_errors_by_offer(store: Store) -> None:
    found = by(await rows(store, "errors_by_offer"), "offer", "failure")
    failed = [a for a in ATTEMPTS_MADE if a.failure is not FailureClass.OK]
    assert sum(r["calls"] for r in found.values()) == len(failed)
    assert {r["provider"] for r in found.values()} == {a.provider for a in failed}
    only = await rows(store, "errors_by_offer", provider="p1")
    assert {r["provider"] for r in only} == {"p1"}


async def test_billed_after_cancel(store: Store) -> None:
    found = by(await rows(store, "billed_after_cancel"), "provider", "failure")
    ends = {"timeout_ttft", "timeout_gap", "timeout_total", "cancelled", "hedge_lost"}
    cut = [a for a in SEEN_OURSELVES if str(a.failure) in ends]
    assert cut
    assert set(found) == {(a.provider, str(a.failure)) for a in cut}
    for (provider, failure), row in found.items():
        mine = [a for a in cut if (a.provider, str(a.failure)) == (provider, failure)]
        assert row["calls"] == len(mine)
        assert row["calls_that_may_go_on"] == sum(a.unseen_nusd > 0 for a in mine)
        assert row["tokens_unseen"] == sum(a.unseen_tokens for a in mine)
        unseen_usd = sum(a.unseen_nusd for a in mine) / 1e9
        assert row["may_be_billed_usd"] == pytest.approx(unseen_usd)


async def test_incidents_stand_beside_our_own_calls(store: Store) -> None:
    (row,) = await rows(store, "incidents")
    mine = [a for a in ATTEMPTS_MADE if a.provider == "p0"]
    assert (row["severity"], row["calls_in_next_hour"]) == ("major", len(mine))


async def test_sla_attainment(store: Store) -> None:
    row = by(await rows(store, "sla_attainment"), "sla_class")["t1/x"]
    mine = [d for d in DECISIONS_MADE if d.sla_class == "t1/x"]
    timed = [d for d in mine if d.on_time is not None]
    assert row["requests"] == len(mine)
    assert row["on_time_promised"] == 0.95
    assert row["on_time_delivered"] == pytest.approx(
        sum(d.on_time is True for d in timed) / len(timed), abs=1e-4
    )
    assert row["quality_promised"] == 0.9
    assert row["quality_delivered"] == 0.0
    assert row["quality_kept"] == 0
    assert row["best_effort"] == sum(not d.feasible for d in mine)


async def test_a_decisions_line_is_in_order(store: Store) -> None:
    found = await rows(store, "decision_line", decision_id="d00000003")
    assert [r["event"] for r in found] == [
        *("decision", "bid", "bid", "bid", "attempt", "attempt", "score")
    ]
    assert found[1]["result"] == "won"
    assert found[1]["offer"] == found[0]["offer"] == "p0/m0"
    assert await rows(store, "decision_line", decision_id="' OR 1=1 --") == []


async def test_a_line_without_its_decision_is_what_is_left(chdb_server: ChdbServer) -> None:
    async with migrated(chdb_server) as store:
        for topic, made in ((ATTEMPTS, ATTEMPTS_MADE), (FEEDBACK, SCORES_MADE)):
            chain = Chain(store, topic, "L", 1, 0, today=facts.today, stats=ChainStats())
            await chain.append(facts.batch(topic, made, 0))
        found = await rows(store, "decision_line", decision_id="d00000003")
    assert [r["event"] for r in found] == ["attempt", "attempt", "score"]


async def test_latency_by_offer(store: Store) -> None:
    found = by(await rows(store, "latency_by_offer"), "offer")
    mine = np.array([a.ttft_ms for a in ATTEMPTS_MADE if a.offer == "p2/m3" and a.ttft_ms])
    row = found["p2/m3"]
    assert row["first_tokens"] == len(mine)
    for column, level in (("ttft_p50_ms", 0.5), ("ttft_p95_ms", 0.95)):
        near = [np.quantile(mine, level, method=m) for m in ("lower", "higher")]
        assert 0.98 * near[0] <= row[column] <= 1.02 * near[1]
    assert row["ttft_mean_ms"] == pytest.approx(mine.mean(), abs=0.06)


async def test_attempts_per_request(store: Store) -> None:
    found = by(await rows(store, "attempts_per_request"), "attempts")
    made = [d for d in DECISIONS_MADE if not d.only]
    assert {n: r["requests"] for n, r in found.items()} == {
        n: sum(d.n_attempts == n for d in made) for n in (0, 1, 2)
    }
    assert sum(r["share"] for r in found.values()) == pytest.approx(1.0, abs=1e-4)


async def test_sessions_and_handoffs(store: Store) -> None:
    steps = [d for d in DECISIONS_MADE if d.session == "s_0"]
    found = await rows(store, "session_steps", session="s_0")
    assert [r["decision_id"] for r in found] == [d.decision_id for d in steps]
    assert [r["why"] for r in found] == [d.handoff for d in steps]
    gains = [r["gain_usd"] for r in found]
    assert gains == [pytest.approx(0.001) if d.handoff else None for d in steps]
    moved = [d for d in DECISIONS_MADE if d.handoff]
    handed = by(await rows(store, "handoffs"), "from_offer", "to_offer", "why")
    for (source, target, why), row in handed.items():
        mine = [d for d in moved if (d.incumbent, d.delivered_offer) == (source, target)]
        assert (why, row["times"]) == ("gain", len(mine))
        assert row["sessions"] == len({d.session for d in mine})
        assert row["mean_cost_usd"] == pytest.approx(0.0007)
        assert row["mean_gain_usd"] == pytest.approx(0.001)
    assert sum(row["times"] for row in handed.values()) == len(moved) > 0


async def test_checks(store: Store) -> None:
    checked = [d for d in DECISIONS_MADE if d.verdicts]
    found = by(await rows(store, "checks"), "task", "model")
    for task in ("sum", "chat"):
        caught = found[task, "m9"]
        n = sum(d.task == task for d in checked)
        assert (caught["answers"], caught["passed_share"]) == (n, 0.0)
        assert caught["failed_checks"] == ["regex"]
        assert caught["spent_on_failed_usd"] == pytest.approx(n * 1e-6)
        passed = [r for (t, model), r in found.items() if t == task and model != "m9"]
        assert sum(r["answers"] for r in passed) == n
        assert {(r["passed_share"], r["bought_again_share"]) for r in passed} == {(1.0, 1.0)}
        assert sum(r["spent_on_failed_usd"] for r in passed) == 0


async def test_failovers(store: Store) -> None:
    found = by(await rows(store, "failovers"), "from_offer", "to_offer", "failure")
    expected: dict[tuple[str, str, str], int] = {}
    for first, second in zip(ATTEMPTS_MADE[::2], ATTEMPTS_MADE[1::2], strict=True):
        if {first.source, second.source} == {"gateway"} and not (first.hedge or second.hedge):
            key = (first.offer, second.offer, first.failure.value)
            expected[key] = expected.get(key, 0) + 1
    assert {k: r["times"] for k, r in found.items()} == expected


async def test_spend_by_tenant(store: Store) -> None:
    found = await rows(store, "spend_by_tenant")
    for tenant in ("t0", "t1", "t2"):
        mine = [d for d in DECISIONS_MADE if d.tenant == tenant]
        theirs = [r for r in found if r["tenant"] == tenant]
        assert sum(r["requests"] for r in theirs) == len(mine)
        assert sum(r["tokens_out"] for r in theirs) == sum(d.output_tokens for d in mine)


async def test_calibration_of_quality(store: Store) -> None:
    found = by(await rows(store, "calibration_quality"), "predicted_from")
    predicted = [(f.p_good, f.quality) for f in SCORES_MADE if f.p_good is not None]
    mine = [q for p, q in predicted if 0.7 <= p < 0.795]
    assert sum(r["scores"] for r in found.values()) == len(predicted)
    assert found[0.7]["delivered"] == pytest.approx(sum(mine) / len(mine), abs=0.02)


async def test_calibration_on_time(store: Store) -> None:
    found = by(await rows(store, "calibration_on_time"), "predicted_from")
    timed = [d for d in DECISIONS_MADE if d.on_time is not None and d.p_on_time is not None]
    band = [d for d in timed if 0.5 <= (d.p_on_time or 0) < 0.8]
    assert sum(r["requests"] for r in found.values()) == len(timed)
    assert found[0.5]["requests"] == len(band)
    assert found[0.5]["delivered"] == pytest.approx(
        sum(d.on_time is True for d in band) / len(band), abs=1e-4
    )


async def test_tokens_by_model(store: Store) -> None:
    found = by(await rows(store, "tokens_by_model"), "model")
    mine = [a for a in ATTEMPTS_MADE if a.model == "m0"]
    assert found["m0"]["tokens_in"] == sum(a.input_tokens for a in mine)
    assert found["m0"]["answers"] == sum(a.failure is FailureClass.OK for a in mine)


async def test_recent_decisions(store: Store) -> None:
    newest = await rows(store, "recent_decisions", limit=3, since="1d")
    assert [r["decision_id"] for r in newest] == [f"d{i:08x}" for i in (N - 1, N - 2, N - 3)]
    failed = await rows(store, "recent_decisions", limit=1000, since="1d", failed_only=True)
    assert {r["decision_id"] for r in failed} == {
        d.decision_id
        for d in DECISIONS_MADE
        if d.on_time is False or d.failure not in (None, FailureClass.OK)
    }


async def test_wins_and_losses(store: Store) -> None:
    found = by(await rows(store, "wins_and_losses"), "offer")
    for offer, row in found.items():
        assert row["won"] == sum(d.winner == offer for d in DECISIONS_MADE)
        assert row["ranked"] == sum(bool(d.ranked) for d in DECISIONS_MADE)
        assert row["mean_gap_usd"] == pytest.approx(1.5e-6, abs=6e-7)


async def test_no_bids(store: Store) -> None:
    found = by(await rows(store, "no_bids"), "task", "reason")
    assert found["sum", "region"]["offers_turned_away"] == 5 * N // 2


async def test_class_price_history(store: Store) -> None:
    (row,) = await rows(store, "class_price_history")
    assert (row["sla_class"], row["quality_price_usd"]) == ("t0/x", 0.002)
    assert (row["quality_promised"], row["on_time_promised"]) == (0.9, None)


async def test_quote_history(store: Store) -> None:
    found = await rows(store, "quote_history", offer="p0/m0", bucket_seconds=1)
    assert [r["quotes"] for r in found] == [10, 10, 10]
    assert found[0]["ttft_median_ms"] == pytest.approx(np.exp(5.09), abs=0.01)


async def test_offer_minutes(store: Store) -> None:
    found = await rows(store, "offer_minutes", offer="p0/m1")
    mine = [a for a in ATTEMPTS_MADE if a.offer == "p0/m1"]
    assert sum(r["calls"] for r in found) == len(mine)
    assert sum(r["timeouts"] for r in found) == sum(
        a.failure.value.startswith("timeout") for a in mine
    )


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


async def test_reports_as_files(store: Store) -> None:
    lines = (await export(store, "savings", fmt="csv", clock=CLOCK)).decode().splitlines()
    assert lines[0].startswith('"tenant","task","requests"')
    assert len(lines) == 1 + 6
    body = await export(store, "savings", fmt="parquet", clock=CLOCK)
    assert len(pd.read_parquet(io.BytesIO(body))) == 6
    body = await export(store, "savings", fmt="json", clock=CLOCK)
    assert len(body.splitlines()) == 6


def _hour(at_us: int) -> int:
    return datetime.fromtimestamp(at_us / 1e6, UTC).hour


async def test_what_the_shadow_would_have_bought(store: Store) -> None:
    found = await rows(store, "shadow_diff")
    compared = [d for d in DECISIONS_MADE if d.shadow_winner is not None]
    assert sum(r["compared"] for r in found) == len(compared) > 0
    assert {r["shadow_version"] for r in found} == {9}
    for row in found:
        mine = [d for d in compared if d.sla_class == row["sla_class"]]
        moved = [d for d in mine if d.shadow_winner != d.winner]
        assert row["other_winner_share"] == pytest.approx(len(moved) / len(mine), abs=1e-4)
        assert (row["shadow_usd_per_1000"], row["shadow_good_share"]) == (500.0, 0.5)
        p_good = sum(d.ranked[0].p_good for d in mine) / len(mine)
        assert row["good_share"] == pytest.approx(p_good, abs=1e-4)
    assert not await rows(store, "shadow_diff", version=8)
