"""Laws of where a class without a history starts: not naive, never beyond what is known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bidding.appraisal import Appraiser, Settled
from bidding.auction import decide
from bidding.book import MarketBook
from bidding.pacing import ClassPricer, ClassPrices, prices_elsewhere, starting_prices
from bidding.params import PacingParams, Params
from bidding.quote import Position
from bidding.request import BidRequest, Sla
from bidding.units import NUSD_PER_USD
from tests.fakes.markets import catalogue

PACING = PacingParams()
DEFAULT = PACING.start_quality_price_usd * NUSD_PER_USD
FLOOR = PACING.floor_price_usd * NUSD_PER_USD
RESERVE = PACING.quality_reserve_usd * NUSD_PER_USD
ANY = st.floats(allow_nan=True, allow_infinity=True)
PRICES = st.floats(FLOOR, RESERVE)


def known(price: float, target: float = 0.9, n: float = 500.0, name: str = "c") -> ClassPrices:
    return ClassPrices(
        sla_class=name,
        quality_price_nusd=price,
        punctuality_price_nusd=price,
        target_quality=target,
        target_on_time=target,
        n=n,
    )


@settings(deadline=None)
@given(st.lists(st.lists(PRICES, max_size=3), max_size=5))
def test_a_start_lies_among_what_is_paid_elsewhere_and_the_default(
    tasks: list[list[float]],
) -> None:
    told = [[known(price) for price in prices] for prices in tasks]
    found = prices_elsewhere(told, 0.9, 0.9, PACING)
    for price, default in zip(
        found, (DEFAULT, PACING.start_punctuality_price_usd * NUSD_PER_USD), strict=True
    ):
        every = [default, *(price for prices in tasks for price in prices)]
        assert min(every) * (1 - 1e-9) <= price <= max(every) * (1 + 1e-9)
    assert prices_elsewhere(told[::-1], 0.9, 0.9, PACING) == found


@settings(deadline=None)
@given(st.lists(st.tuples(ANY, st.floats(0.0, 1.0), ANY), max_size=5), ANY, ANY)
def test_whatever_is_fed_a_start_is_finite_and_within_floor_and_reserve(
    classes: list[tuple[float, float, float]], paid: float, other: float
) -> None:
    told = [known(price, target, n) for price, target, n in classes]
    elsewhere = prices_elsewhere([told], 0.9, 0.95, PACING)
    assert all(math.isfinite(price) and price > 0.0 for price in elsewhere)
    for otherwise in ((paid, other), elsewhere, (None, None)):
        quality, punctuality = starting_prices(told, 0.9, 0.95, PACING, otherwise)
        assert FLOOR * (1 - 1e-9) <= quality <= RESERVE * (1 + 1e-9)
        assert math.isfinite(punctuality)
        assert punctuality > 0.0


@given(PRICES, PRICES)
def test_its_own_task_comes_before_others(own: float, other: float) -> None:
    found = starting_prices([known(own)], 0.9, 0.9, PACING, (other, other))
    assert found[0] == pytest.approx(own)


def test_classes_with_another_target_or_hardly_any_traffic_say_nothing() -> None:
    told = [known(9 * DEFAULT, target=0.6), known(9 * DEFAULT, n=3.0)]
    assert prices_elsewhere([told], 0.9, None, PACING)[0] == pytest.approx(DEFAULT)
    assert prices_elsewhere([told], None, None, PACING)[0] == pytest.approx(DEFAULT)


def test_many_tasks_outweigh_the_default() -> None:
    paid = 8.0 * DEFAULT
    starts = [
        prices_elsewhere([[known(paid)]] * n, 0.9, None, PACING)[0] / DEFAULT for n in (0, 1, 7)
    ]
    assert starts == pytest.approx([1.0, math.sqrt(8.0), 8.0 ** (7 / 8)])


def _decision(appraiser: Appraiser, task: str, offset: int, paid: Sequence[float | None]) -> None:
    settled = Settled(
        task=task,
        sla_class=f"acme|{task}|q0.9",
        at_us=offset,
        model=None,
        output_tokens=0,
        cut=False,
        target_quality=0.9,
        target_on_time=None,
        p_good=0.8,
        p_on_time=None,
        on_time=None,
        free=True,
        paid_nusd=(paid[0], paid[1]),
    )
    appraiser.fold_decision(
        settled, Position(log="l", topic="market.decisions", partition=0, offset=offset)
    )


def test_a_new_tenants_first_request_pays_what_other_tasks_have_learned() -> None:
    params = Params(pacing=PacingParams(label_scaling=0.0))
    appraiser = Appraiser(catalogue(), params)
    for i in range(600):  # a task on which quality is dear: it falls short all the time
        _decision(appraiser, "hard", i, (None, None))
    book = MarketBook(catalogue())
    for made in appraiser.skills(1):
        book.apply_skill(made.skill)
    view = book.view(2)
    learned = view.classes["acme|hard|q0.9"].quality_price_nusd
    asked = BidRequest(tenant="newcomer", task="never-seen", input_tokens=100, sla=Sla(quality=0.9))
    first = decide(view, asked, params, 1).quality_price_nusd
    assert learned > 1.5 * DEFAULT
    assert first == pytest.approx(math.sqrt(learned * DEFAULT))

    _decision(appraiser, "never-seen", 601, (first, None))
    (made,) = appraiser.skills(3)
    went_on = made.skill.classes[0].quality_price_nusd
    assert went_on == pytest.approx(first, rel=0.05)
    assert ClassPricer().price_of("acme|never-seen|q0.9") is None
