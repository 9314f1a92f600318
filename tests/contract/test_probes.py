"""Probes on the paper market: who is tried, what it may cost, and whose money it is."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bidding.outcome import FailureClass
from bidding.probing import ProbeSettings, due, probe_cost_nusd
from bidding.units import NUSD_PER_USD
from broker.app import dispatcher_of
from broker.config import Settings
from broker.paper.wires import key_at
from broker.probing import Prober
from broker.upstream import Upstream
from feeds.clock import SystemClock
from feeds.records import AttemptRecord, DecisionRecord
from tests.fakes.gateway_rig import Rig, rig

SETTINGS = ProbeSettings(budget_usd_day=1.0, gap_s=0.0)


class Probing:
    """A prober over a rig's gateway."""

    def __init__(self, r: Rig, settings: ProbeSettings = SETTINGS, seen: Any = None) -> None:
        state = r.gateway.state
        catalogue = r.gateway.market.catalogue
        keys = {p.id: key_at(p, r.paper.api_key) for p in catalogue.providers}
        self.upstream = Upstream()
        dispatcher = dispatcher_of(
            Settings(provider_keys=keys),
            catalogue,
            state.market,
            state.journal,
            self.upstream,
            state.clock,
        )
        self.prober = Prober(settings, state.market, dispatcher, state.shared, state.clock, seen)

    async def __aenter__(self) -> Prober:
        await self.upstream.start()
        return self.prober

    async def __aexit__(self, *_: object) -> None:
        await self.upstream.close()


async def test_stale_offers_are_tried_in_turn_and_nobody_pays_for_it(tmp_path: Path) -> None:
    async with rig(tmp_path) as r, Probing(r) as prober:
        r.gateway.learn(novita=200)  # what is quoted on plenty of evidence is left alone
        made = [await prober.once() for _ in range(4)]
        found = await r.gateway.written(AttemptRecord)
        assert Counter(a.offer for a in found) == {"groq/llama-3-8b": 2, "together/llama-3-8b": 2}
        for attempt in found:
            assert (attempt.source, attempt.tenant, attempt.task) == ("probe", "", "probe")
            assert attempt.failure is FailureClass.OK
            assert attempt.ttft_ms is not None
            assert 0 < attempt.output_tokens <= 16
        assert [a and a.attempt_id for a in made] == [a.attempt_id for a in found]
        assert await r.gateway.written(DecisionRecord) == []
        assert sum(t.billed_nusd for t in r.paper.ledgers().values()) == sum(
            a.cost_nusd for a in found
        )


async def test_the_days_budget_is_kept_and_spread_over_its_hours(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        view = r.gateway.market.view
        dearest = float(probe_cost_nusd(view).max())
        day_usd = 24 * 3.5 * dearest / NUSD_PER_USD
        async with Probing(r, ProbeSettings(budget_usd_day=day_usd, gap_s=0.0)) as prober:
            for _ in range(200):
                await prober.once()
            assert 3 <= prober.n_probes < 200
        spent = sum(a.cost_nusd for a in await r.gateway.written(AttemptRecord))
        assert spent <= 3.5 * dearest
        async with Probing(r, ProbeSettings(budget_usd_day=0.0)) as prober:
            assert await prober.once() is None


async def test_an_offer_with_an_open_circuit_is_not_tried(tmp_path: Path) -> None:
    async with rig(tmp_path, providers=("groq", "together")) as r, Probing(r) as prober:
        market = r.gateway.market
        for _ in range(20):
            market.sent("groq/llama-3-8b")
            market.ended(
                "groq/llama-3-8b", FailureClass.SERVER_ERROR, took_s=0.1, retry_after_s=None
            )
        blocked = market.overlay.circuit_open(SystemClock().monotonic_ns() * 1e-9)
        assert blocked[market.book.offers.row_of["groq/llama-3-8b"]]
        for _ in range(3):
            await prober.once()
        assert {a.offer for a in await r.gateway.written(AttemptRecord)} == {"together/llama-3-8b"}


async def test_hours_that_lack_data_come_first_and_no_offer_twice_within_the_gap(
    tmp_path: Path,
) -> None:
    async def seen() -> dict[str, Any]:
        return {"groq/llama-3-8b": np.full(168, 9.0), "novita/llama-3-8b": np.full(168, 3.0)}

    settings = ProbeSettings(budget_usd_day=1.0, gap_s=3_600.0)
    async with rig(tmp_path) as r, Probing(r, settings, seen) as prober:
        made = [await prober.once() for _ in range(5)]
        assert [a.offer.split("/")[0] for a in made if a] == ["together", "novita", "groq"]
        assert made[3:] == [None, None]


async def test_a_failing_offer_is_learned_of_and_a_view_says_who_is_due(tmp_path: Path) -> None:
    async with rig(tmp_path, providers=("groq", "together")) as r:
        view = r.gateway.market.view
        n = len(view.offers)
        rows = due(
            view,
            SETTINGS,
            seen_at_hour=np.zeros(n),
            tried_ago_s=np.full(n, math.inf),
            may_call=np.arange(n) == 1,
        )
        assert rows == [1]
        prices = view.prices
        usual = prices.request_nusd + prices.input_nusd * 12 + prices.output_nusd * 16
        assert probe_cost_nusd(view) == pytest.approx(2 * usual)
        # What is sold no longer is never quoted anew, and so would be first in turn for ever.
        market = r.gateway.market
        assert market.book.withdraw(market.book.offers.offer_ids[1])
        market.refresh()
        rows = due(
            market.view,
            SETTINGS,
            seen_at_hour=np.zeros(n),
            tried_ago_s=np.full(n, math.inf),
            may_call=np.full(n, True),
        )
        assert rows == [0]
