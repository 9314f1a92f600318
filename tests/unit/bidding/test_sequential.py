"""Means of late: they follow a change, they are as sure as they say, and they need evidence."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bidding.sequential import LEAST_OF_ARM, Recent, Tally


def test_what_was_long_ago_hardly_counts() -> None:
    recent, ever = Recent(), Tally()
    for i in range(600):
        value = 0.0 if i < 400 else 1.0
        recent.fold(value)
        ever.fold(value)
    assert ever.mean == pytest.approx(1 / 3)
    assert recent.mean > 0.79


def test_the_lower_bound_is_missed_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    n_missed = 0
    for _ in range(400):
        recent = Recent()
        for value in rng.normal(0.3, 0.1, size=200):
            recent.fold(float(value))
        n_missed += recent.least(2.0) > 0.3
    assert n_missed <= 0.045 * 400  # 2.3 % of a normal law is beyond two standard deviations


def test_nothing_is_sure_of_a_few_outcomes_or_of_none() -> None:
    recent = Recent()
    for _ in range(LEAST_OF_ARM - 1):
        recent.fold(1.0)
    recent.fold(math.nan)
    assert recent.least(2.0) == -math.inf
    recent.fold(1.0)
    assert recent.least(2.0) == pytest.approx(1.0)
