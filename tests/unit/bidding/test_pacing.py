"""Class prices move as fast as a class learns: no faster than its answers are judged."""

from __future__ import annotations

import math

import pytest

from bidding.pacing import ClassPricer
from bidding.params import PacingParams


def _price_after(n: int, label_every: int, params: PacingParams) -> float:
    pricer = ClassPricer(params)
    for i in range(n):
        pricer.fold_decision(
            "c",
            target_quality=0.9,
            target_on_time=None,
            p_good=0.85,
            p_on_time=None,
            on_time=None,
            free=True,
        )
        if i % label_every == 0:
            pricer.fold_label("c", quality=0.85, p_good=0.85, weight=1.0)
    (found,) = pricer.prices()
    return math.log(found.quality_price_nusd * 1e-9 / params.start_quality_price_usd)


@pytest.mark.parametrize("scaling", [0.0, 1.0])
def test_a_price_rises_by_the_answers_judged(scaling: float) -> None:
    params = PacingParams(label_scaling=scaling)
    every, fifth = (_price_after(600, k, params) for k in (1, 5))
    assert every > 0.5
    assert fifth == pytest.approx(every * 0.2**scaling, rel=0.15)


def test_state_comes_back_whole() -> None:
    pricer, other = ClassPricer(), ClassPricer()
    for i in range(50):
        pricer.fold_decision(
            "c",
            target_quality=0.9,
            target_on_time=0.95,
            p_good=0.8,
            p_on_time=0.9,
            on_time=i % 7 > 0,
            free=True,
        )
        pricer.fold_label("c", quality=1.0, p_good=0.8, weight=0.5)
    other.restore(pricer.state())
    assert other.prices() == pricer.prices()
    assert other.state() == pricer.state()
