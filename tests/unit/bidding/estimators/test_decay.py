"""Clocks that misbehave and sums that forget."""

import numpy as np
import pytest

from bidding.errors import BadState
from bidding.estimators.decay import (
    GAP_TOLERANCE_S,
    HALF_LIVES_PER_CELL,
    DecayedSums,
    Order,
    RowClock,
    grown,
    split_state,
)

NOON = 1_713_268_800.0


def read(clock: RowClock, stamps: list[float]) -> list[float]:
    order = Order(np.zeros(len(stamps), dtype=np.int64))
    tau: list[float] = clock.read(order, np.array(stamps)).tolist()
    return tau


def one_clock() -> RowClock:
    clock = RowClock()
    clock.grow(1)
    return clock


def test_an_orderly_clock_is_taken_at_its_word() -> None:
    assert read(one_clock(), [NOON, NOON + 1, NOON + 0.5]) == [NOON, NOON + 1, NOON + 0.5]


def test_one_stray_stamp_is_read_as_the_present() -> None:
    clock = one_clock()
    assert read(clock, [NOON, 0.0, NOON + 1]) == [NOON, NOON, NOON + 1]
    assert read(clock, [NOON + 1e9, NOON + 2]) == [NOON + 1, NOON + 2]


@pytest.mark.parametrize("stamp", [np.nan, np.inf, -np.inf, 1e300])
def test_a_stamp_that_is_no_time_is_the_present(stamp: float) -> None:
    assert read(one_clock(), [NOON, stamp, NOON + 1]) == [NOON, NOON, NOON + 1]


def test_a_clock_set_back_is_believed_at_the_third_stamp_and_time_goes_on() -> None:
    clock = one_clock()
    tau = read(clock, [NOON, *(NOON - 7200 + i for i in range(6))])
    assert tau[:4] == [NOON] * 4
    assert tau[4:] == [NOON + 1, NOON + 2, NOON + 3]


def test_a_real_leap_ages_by_no_more_than_the_tolerance() -> None:
    clock = one_clock()
    far = NOON + 1e8
    tau = read(clock, [NOON, far, far + 1, far + 2, far + 3])
    assert tau[:3] == [NOON] * 3
    assert tau[3] == NOON + GAP_TOLERANCE_S
    assert tau[4] == tau[3] + 1


def test_now_is_never_before_the_latest_event() -> None:
    clock = one_clock()
    assert clock.now_s(NOON).tolist() == [0.0]
    read(clock, [NOON])
    assert clock.now_s(NOON - 50).tolist() == [NOON]
    assert clock.now_s(np.nan).tolist() == [NOON]
    assert clock.now_s(NOON + 5).tolist() == [NOON + 5]


def test_sums_halve_in_a_half_life() -> None:
    sums = DecayedSums(1, 10.0)
    sums.grow(1)
    row, tau = np.zeros(1, dtype=np.int64), np.array([NOON])
    sums.advance(row, tau)
    sums.add(row, sums.weights(row, tau)[None])
    assert sums.at(row, tau)[0, 0] == pytest.approx(1.0, rel=1e-12)
    assert sums.at(row, tau + 10.0)[0, 0] == pytest.approx(0.5, rel=1e-9)
    assert sums.at(row, tau + 1e9)[0, 0] == 0.0


def test_moving_the_landmark_is_exact() -> None:
    half_life_s = 3.0
    sums = DecayedSums(1, half_life_s)
    sums.grow(1)
    row = np.zeros(1, dtype=np.int64)
    sums.advance(row, np.array([NOON]))
    sums.add(row, np.array([[0.1]]) * sums.weights(row, np.array([NOON])))
    before = float(sums.sums[0, 0])
    sums.advance(row, np.array([NOON + half_life_s * HALF_LIVES_PER_CELL]))
    assert float(sums.sums[0, 0]) == before * 2.0**-HALF_LIVES_PER_CELL


def test_a_late_event_weighs_what_its_age_says() -> None:
    sums = DecayedSums(1, 10.0)
    sums.grow(1)
    row = np.zeros(1, dtype=np.int64)
    for tau in (NOON + 1000.0, NOON + 990.0):
        at = np.array([tau])
        sums.advance(row, at)
        sums.add(row, sums.weights(row, at)[None])
    assert sums.at(row, np.array([NOON + 1000.0]))[0, 0] == pytest.approx(1.5, rel=1e-9)


def test_put_sets_what_is_read_back() -> None:
    sums = DecayedSums(2, 10.0)
    sums.grow(1)
    row, tau = np.zeros(1, dtype=np.int64), np.array([NOON])
    sums.advance(row, tau)
    sums.put(1, row, tau, np.array([7.0]))
    assert sums.at(row, tau)[:, 0].tolist() == pytest.approx([0.0, 7.0])


def test_rounds_hold_one_block_a_row_in_order() -> None:
    order = Order(np.array([1, 0, 1, 1, 0]))
    blocks = np.array([0, 0, 0, 1, 1])
    of = blocks[order.index]
    breaks = np.ones(5, dtype=bool)
    breaks[1:] = of[1:] != of[:-1]
    rounds = [order.index[at].tolist() for at in order.rounds(breaks)]
    assert rounds == [[1, 0, 2], [4, 3]]


def test_grown_never_shrinks() -> None:
    array = np.ones((2, 3))
    assert grown(array, 2) is array
    assert grown(array, 5).sum() == 6.0


def test_split_state_says_what_is_wrong() -> None:
    with pytest.raises(BadState, match="3 numbers where 2"):
        split_state("x", 1, [1.0, 2.0, 3.0], [1, 1])
    with pytest.raises(BadState, match=r"version 2\.0, this is 1"):
        split_state("x", 1, [2.0, 2.0], [1, 1])
    with pytest.raises(BadState, match="finite"):
        split_state("x", 1, [1.0, float("nan")], [1, 1])
