"""The whole law of a purchase agrees with every decision drawn from it."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bidding.auction import decide
from bidding.book import MarketBook
from bidding.odds import odds_of
from bidding.params import Params
from bidding.request import BidRequest, Sla
from tests.fakes.markets import catalogue, quote, skill


@given(
    share=st.floats(0.0, 0.5),
    burn_in=st.floats(0.0, 0.5),
    newcomers=st.integers(0, 4),
    quality=st.none() | st.floats(0.3, 0.95),
    deadline_ms=st.none() | st.floats(100.0, 3000.0),
    strict=st.booleans(),
    in_session=st.booleans(),
    ceiling_usd=st.none() | st.floats(1e-6, 1e-3),
    seed=st.integers(0, 2**63 - 1),
)
@settings(max_examples=150, deadline=None)
def test_odds_are_the_propensities_of_decisions(
    share: float,
    burn_in: float,
    newcomers: int,
    quality: float | None,
    deadline_ms: float | None,
    strict: bool,
    in_session: bool,
    ceiling_usd: float | None,
    seed: int,
) -> None:
    book = MarketBook(catalogue())
    offers = book.offers.offer_ids
    for i, offer in enumerate(offers):
        made = quote(offer, ttft_ms=200.0 + 30.0 * i)
        if i >= len(offers) - newcomers:
            made = msgspec.structs.replace(made, ttft_n=1.0)
        book.apply_quote(made)
    book.apply_skill(skill([0.85, 0.86, 0.87, 0.88]))
    view = book.view(1)
    exploration = {"share": share, "burn_in_share": burn_in, "max_loss_usd": 1.0}
    params = Params().patched({"exploration": exploration}, version=1)
    sla = Sla(quality=quality, ttft_ms=deadline_ms, strict=strict, max_cost_usd=ceiling_usd)
    request = BidRequest(
        tenant="t",
        task="math",
        sla=sla,
        input_tokens=300,
        incumbent=offers[0] if in_session else None,
    )
    odds = odds_of(view, request, params)
    decision = decide(view, request, params, seed)
    if decision.winner is None:
        assert odds.offers == ()
        return
    assert odds.of(decision.winner.offer) == pytest.approx(decision.propensity, abs=1e-12)
    assert np.sum(odds.probability) == pytest.approx(1.0)
    assert odds.n_bids == decision.n_bids
    at = odds.place(decision.winner.offer)
    assert at is not None
    assert (odds.cost_nusd[at], odds.p_good[at]) == (
        decision.winner.cost_nusd,
        decision.winner.p_good,
    )
    assert odds.p_on_time[at] <= decision.winner.p_on_time
