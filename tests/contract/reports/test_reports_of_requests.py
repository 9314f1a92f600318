"""What reports say of requests, tenants, sessions and SLA classes is what was put in."""

from __future__ import annotations

import pytest

from analytics.store import Store
from bidding.outcome import FailureClass
from broker.embedded.store import ChdbServer
from feeds.topics import (
    ATTEMPTS,
    FEEDBACK,
)
from tests.fakes.desk import migrated
from tests.fakes.traded import (
    ATTEMPTS_MADE,
    DECISIONS_MADE,
    SCORES_MADE,
    N,
    by,
    rows,
    stored,
)


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
            await stored(store, topic, made)
        found = await rows(store, "decision_line", decision_id="d00000003")
    assert [r["event"] for r in found] == ["attempt", "attempt", "score"]


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


async def test_recent_decisions(store: Store) -> None:
    newest = await rows(store, "recent_decisions", limit=3, since="1d")
    assert [r["decision_id"] for r in newest] == [f"d{i:08x}" for i in (N - 1, N - 2, N - 3)]
    failed = await rows(store, "recent_decisions", limit=1000, since="1d", failed_only=True)
    assert {r["decision_id"] for r in failed} == {
        d.decision_id
        for d in DECISIONS_MADE
        if d.on_time is False or d.failure not in (None, FailureClass.OK)
    }


async def test_class_price_history(store: Store) -> None:
    (row,) = await rows(store, "class_price_history")
    assert (row["sla_class"], row["quality_price_usd"]) == ("t0/x", 0.002)
    assert (row["quality_promised"], row["on_time_promised"]) == (0.9, None)


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
