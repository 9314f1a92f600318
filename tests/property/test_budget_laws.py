"""Laws of the price of money: finite, never negative, dearer the more is spent."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bidding.budget import MAX_LOG_PRICE, N_BINS, ArrivalProfile, BudgetPrice, next_log_price
from bidding.request import MAX_MONEY_PRICE

ANY = st.floats(allow_nan=True, allow_infinity=True)
MONEY = st.floats(0.0, 1e15)


@settings(deadline=None)
@given(ANY, ANY, ANY, ANY, ANY, ANY)
def test_whatever_is_fed_the_price_is_finite_and_not_negative(
    held: float, budget: float, spent: float, to_come: float, each: float, n: float
) -> None:
    found = next_log_price(
        held,
        budget_nusd=budget,
        spent_nusd=spent,
        n_to_come=to_come,
        nusd_per_request=each,
        n_requests=n,
    )
    assert 0.0 <= found <= MAX_LOG_PRICE


@settings(deadline=None)
@given(st.floats(0.0, 10.0), MONEY, MONEY, MONEY, st.floats(1.0, 1e6), st.floats(1e-3, 1e9))
def test_the_price_never_falls_when_more_is_spent(
    held: float, budget: float, spent: float, more: float, to_come: float, each: float
) -> None:
    def price(spent_nusd: float) -> float:
        return next_log_price(
            held,
            budget_nusd=budget,
            spent_nusd=spent_nusd,
            n_to_come=to_come,
            nusd_per_request=each,
        )

    assert price(spent + more) >= price(spent)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(ANY, ANY, ANY, ANY, ANY), max_size=30))
def test_a_controller_outlives_any_events(
    events: list[tuple[float, float, float, float, float]],
) -> None:
    profile, price = ArrivalProfile(), BudgetPrice()
    for at, cost, budget, spent, n in events:
        profile.arrived(at, 1.0)
        to_come = profile.to_come(at)
        assert math.isfinite(to_come)
        assert to_come >= 0.0
        price.spent(cost, budget_nusd=budget, spent_nusd=spent, n_to_come=to_come, n_requests=n)
        assert 0.0 <= price.money_price <= MAX_MONEY_PRICE
    profile.end_period()
    assert math.isfinite(profile.to_come(0.5))


def test_a_profile_learns_when_requests_come() -> None:
    profile = ArrivalProfile()
    for _ in range(5):
        for part in range(N_BINS // 2, N_BINS):
            profile.arrived((part + 0.5) / N_BINS, 10.0)
        profile.end_period()
    assert profile.to_come(0.5) == pytest.approx(480.0)
    assert profile.to_come(0.0) == pytest.approx(480.0)
    assert profile.to_come(1.0) == 0.0


def test_money_that_is_not_short_is_free() -> None:
    price = BudgetPrice()
    for k in range(1000):
        price.spent(1.0, budget_nusd=1e6, spent_nusd=float(k), n_to_come=1000.0 - k)
    assert price.money_price == 0.0
