"""What reports say of offers, providers and models is what was put in."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from analytics.seasons import season_cells
from analytics.store import Store
from bidding.outcome import FailureClass
from tests.fakes import facts
from tests.fakes.traded import (
    ATTEMPTS_MADE,
    DECISIONS_MADE,
    SCORES_MADE,
    SEEN_OURSELVES,
    N,
    by,
    hour,
    rows,
)

OLDEST = facts.MONDAY - timedelta(weeks=12)


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
        if a.offer == "p0/m0" and a.ttft_ms is not None and hour(a.at_us) == 13
    ]
    assert cell["first_tokens"] == len(mine)
    assert cell["ttft_geometric_mean_ms"] == pytest.approx(
        float(np.exp(np.log(mine).mean())), abs=2e-3
    )


async def test_season_cells_are_the_rollups(store: Store) -> None:
    cells = await season_cells(store, now=facts.MONDAY, oldest=OLDEST, half_life_weeks=4.0)
    assert cells.offers == sorted(facts.OFFERS)
    assert cells.n.sum() == pytest.approx(len(SEEN_OURSELVES))
    mine = [a for a in SEEN_OURSELVES if a.offer == "p1/m0" and hour(a.at_us) == 13]
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


async def test_latency_by_offer(store: Store) -> None:
    found = by(await rows(store, "latency_by_offer"), "offer")
    mine = np.array([a.ttft_ms for a in ATTEMPTS_MADE if a.offer == "p2/m3" and a.ttft_ms])
    row = found["p2/m3"]
    assert row["first_tokens"] == len(mine)
    for column, level in (("ttft_p50_ms", 0.5), ("ttft_p95_ms", 0.95)):
        near = [np.quantile(mine, level, method=m) for m in ("lower", "higher")]
        assert 0.98 * near[0] <= row[column] <= 1.02 * near[1]
    assert row["ttft_mean_ms"] == pytest.approx(mine.mean(), abs=0.06)


async def test_failovers(store: Store) -> None:
    found = by(await rows(store, "failovers"), "from_offer", "to_offer", "failure")
    expected: dict[tuple[str, str, str], int] = {}
    for first, second in zip(ATTEMPTS_MADE[::2], ATTEMPTS_MADE[1::2], strict=True):
        if {first.source, second.source} == {"gateway"} and not (first.hedge or second.hedge):
            key = (first.offer, second.offer, first.failure.value)
            expected[key] = expected.get(key, 0) + 1
    assert {k: r["times"] for k, r in found.items()} == expected


async def test_tokens_by_model(store: Store) -> None:
    found = by(await rows(store, "tokens_by_model"), "model")
    mine = [a for a in ATTEMPTS_MADE if a.model == "m0"]
    assert found["m0"]["tokens_in"] == sum(a.input_tokens for a in mine)
    assert found["m0"]["answers"] == sum(a.failure is FailureClass.OK for a in mine)


async def test_wins_and_losses(store: Store) -> None:
    found = by(await rows(store, "wins_and_losses"), "offer")
    for offer, row in found.items():
        assert row["won"] == sum(d.winner == offer for d in DECISIONS_MADE)
        assert row["ranked"] == sum(bool(d.ranked) for d in DECISIONS_MADE)
        assert row["mean_gap_usd"] == pytest.approx(1.5e-6, abs=6e-7)


async def test_no_bids(store: Store) -> None:
    found = by(await rows(store, "no_bids"), "task", "reason")
    assert found["sum", "region"]["offers_turned_away"] == 5 * N // 2


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
