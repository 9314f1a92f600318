"""What comes of bad input: each kind has one stated answer, and no number that is none leaves."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bidding.appraisal import Appraiser, Label, Settled
from bidding.asks import Ask
from bidding.auction import decide
from bidding.market import PriceList
from bidding.outcome import FailureClass, Outcome
from bidding.params import Params
from bidding.quote import Position
from bidding.quoting import Quoter
from bidding.request import BidRequest, Sla
from bidding.sanity import is_sane_calibration, is_sane_quote, is_sane_skill
from tests.fakes.markets import book, catalogue, price, quote, skill

ODD = st.one_of(
    st.sampled_from([math.nan, math.inf, -math.inf, -1.0, 0.0, 1e300, -1e300]),
    st.floats(allow_nan=True, allow_infinity=True),
)
MAYBE = st.one_of(st.none(), ODD)
STAMPS = st.integers(-(10**15), 2 * 10**15)
REQUEST = BidRequest(tenant="t", task="math", sla=Sla(quality=0.8), input_tokens=500)


def at(i: int) -> Position:
    return Position("log", "topic", 0, i)


OUTCOMES = st.builds(
    Outcome,
    offer=st.sampled_from(["p0/m0", "p1/m1"]),
    at_us=STAMPS,
    failure=st.sampled_from(list(FailureClass)),
    ttft_ms=MAYBE,
    total_ms=MAYBE,
    waited_ms=MAYBE,
    ttft_promised=MAYBE,
    input_tokens=st.integers(-10, 10**9),
    output_tokens=st.integers(-10, 10**9),
    n_inflight=st.integers(-5, 10**6),
    trust=ODD,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(OUTCOMES, min_size=1, max_size=25), STAMPS)
def test_whatever_attempts_say_a_quote_can_be(outcomes: list[Outcome], now_us: int) -> None:
    """Negative or missing latencies and counts, clocks that go back or leap."""
    quoter = Quoter()
    quoter.fold(outcomes, [at(i) for i in range(len(outcomes))])
    for made in quoter.quotes(now_us, everything=True):
        assert is_sane_quote(made), made
    calibration = quoter.calibration(now_us)
    assert calibration is not None
    assert is_sane_calibration(calibration)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(ODD, ODD, MAYBE, ODD, MAYBE), min_size=1, max_size=15), STAMPS)
def test_whatever_feedback_says_a_skill_can_be(
    labels: list[tuple[float, float, float | None, float, float | None]], now_us: int
) -> None:
    appraiser = Appraiser(catalogue())
    for i, (quality, weight, p_good, share, p_on_time) in enumerate(labels):
        label = Label(
            task="math", sla_class="c", at_us=now_us, model="m1", quality=quality, weight=weight,
            labelled_share=share, features=(quality, weight), p_good=p_good,
        )  # fmt: skip
        appraiser.fold_label(label, at(2 * i))
        settled = Settled(
            task="math", sla_class="c", at_us=now_us, model="gone", output_tokens=-i, cut=False,
            target_quality=0.9, target_on_time=0.9, p_good=p_good, p_on_time=p_on_time,
            on_time=True, free=True,
        )  # fmt: skip
        appraiser.fold_decision(settled, at(2 * i + 1))
    for made in appraiser.skills(now_us, everything=True):
        assert is_sane_skill(made.skill)


def test_feedback_met_twice_counts_once() -> None:
    once, twice = Appraiser(catalogue()), Appraiser(catalogue())
    label = Label(
        task="math", sla_class="c", at_us=1, model="m1", quality=1.0, weight=1.0,
        labelled_share=1.0, features=(), p_good=0.5,
    )  # fmt: skip
    for appraiser, times in ((once, 1), (twice, 3)):
        for _ in range(times):
            appraiser.fold_label(label, at(0))
    assert twice.n_repeated == 2
    told = [msgspec.json.encode(a.skills(2)) for a in (once, twice)]
    assert told[0] == told[1]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0])
@pytest.mark.parametrize("name", ["ttft_log_sd", "ttft_n", "fail_share", "tpot_log_sd"])
def test_the_book_refuses_a_quote_that_cannot_be_and_keeps_the_old(name: str, bad: float) -> None:
    made = book()
    before = decide(made.view(1), REQUEST, Params(), 1)
    changes: dict[str, Any] = {name: bad, "at_us": 99}
    assert not made.apply_quote(msgspec.structs.replace(quote("p0/m0"), **changes))
    after = decide(made.view(1), REQUEST, Params(), 1)
    assert after.ranked == before.ranked


@pytest.mark.parametrize("bad", [math.nan, -1, math.inf])
def test_a_price_that_cannot_be_is_refused_listed_or_asked(bad: Any) -> None:
    made = book()
    listed = made.prices(0)
    prices = PriceList(input_nusd_per_mtok=bad, output_nusd_per_mtok=1)
    assert not made.apply_prices("p0/m0", prices)
    assert not made.apply_ask("p0/m0", Ask(prices=prices, until_us=10**15))
    assert not made.apply_prices("nobody/nothing", price(1.0))
    assert made.prices(0) == listed


def test_an_offer_without_history_bids_by_what_is_believed_of_any() -> None:
    made = book()
    fresh = type(made)(catalogue())
    fresh.apply_skill(skill([0.5, 0.6, 0.7, 0.8]))
    decision = decide(fresh.view(1), REQUEST, Params(), 1)
    assert decision.n_bids == len(fresh.offers)
    assert all(math.isfinite(b.score_nusd) and 0.0 < b.p_on_time <= 1.0 for b in decision.ranked)


def test_all_offers_ejected_is_a_decision_without_a_winner_that_says_why() -> None:
    made = book()
    everyone = np.ones(len(made.offers), dtype=bool)
    decision = decide(made.view(1, circuit_open=everyone), REQUEST, Params(), 1)
    assert decision.winner is None
    assert not decision.feasible
    assert decision.propensity is None
    assert decision.no_bids == {"circuit_open": len(made.offers)}
