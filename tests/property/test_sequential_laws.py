"""Watched continuously, equal arms are hardly ever told apart; unequal ones are, soon."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bidding.sequential import LEAST_OF_ARM, Tally, boundary, excess

N_RUNS = 200
N_REQUESTS = 6_000
SHARE = 0.2
ALPHA = 0.05


def _told_apart_at(rng: np.random.Generator, trial: float, control: float) -> int | None:
    """Request at which the trial is found to fail more often, looking after every 20th."""
    arms = rng.random(N_REQUESTS) < SHARE
    fails = rng.random(N_REQUESTS) < np.where(arms, trial, control)
    tallies = (Tally(), Tally())
    for n, (arm, failed) in enumerate(zip(arms.tolist(), fails.tolist(), strict=True), 1):
        tallies[not arm].fold(float(failed))
        if n % 20 == 0:
            found = excess(*tallies, ALPHA)
            if found is not None and found.least > 0.0:
                return n
    return None


def test_equal_arms_are_told_apart_no_more_often_than_stated_however_often_one_looks() -> None:
    rng = np.random.default_rng(1)
    alarms = sum(_told_apart_at(rng, 0.1, 0.1) is not None for _ in range(N_RUNS))
    assert alarms <= ALPHA * N_RUNS + 2 * math.sqrt(ALPHA * (1 - ALPHA) * N_RUNS)


def test_an_arm_ten_points_worse_is_told_within_a_minute_at_100_requests_a_second() -> None:
    rng = np.random.default_rng(2)
    at = [_told_apart_at(rng, 0.2, 0.1) for _ in range(20)]
    assert all(n is not None for n in at), at


def test_a_better_arm_is_never_called_worse() -> None:
    rng = np.random.default_rng(3)
    assert all(_told_apart_at(rng, 0.05, 0.15) is None for _ in range(20))


def test_nothing_is_said_of_a_few() -> None:
    few, many = Tally(), Tally()
    for _ in range(LEAST_OF_ARM - 1):
        few.fold(1.0)
    for _ in range(1_000):
        many.fold(0.0)
    assert excess(few, many, ALPHA) is None
    few.fold(1.0)
    found = excess(few, many, ALPHA)
    assert found is not None
    assert found.least > 0.5


def test_a_tally_is_the_mean_and_the_variance_and_passes_over_what_is_no_number() -> None:
    values = np.random.default_rng(4).normal(3.0, 2.0, 500)
    tally = Tally()
    for value in [*values.tolist(), math.nan, math.inf]:
        tally.fold(value)
    assert (tally.n, tally.mean) == (500, pytest.approx(values.mean()))
    assert tally.squares / 499 == pytest.approx(values.var(ddof=1))


def test_the_boundary_is_wider_than_that_of_one_look() -> None:
    for intrinsic in (10.0, 1_000.0, 100_000.0):
        assert boundary(intrinsic, 0.025, 1_000.0) > 1.96 * math.sqrt(intrinsic)
