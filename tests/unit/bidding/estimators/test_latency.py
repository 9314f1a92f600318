"""Latency: what is learned, how fast a change is seen, what a promise is worth."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from bidding.estimators.latency import BLOCK_S, LatencyEstimator
from bidding.estimators.latency_params import LatencyParams
from bidding.estimators.on_time import (
    p_on_time,
    promised_share,
    total_quantile_ms,
    ttft_quantile_ms,
)
from bidding.outcome import FailureClass, Outcome, OutcomeBatch

NOON = 1_713_268_800.0


def outcome(
    at_s: float,
    ttft_ms: float | None,
    *,
    failure: FailureClass = FailureClass.OK,
    waited_ms: float | None = None,
    input_tokens: int = 500,
    n_inflight: int = 0,
    ttft_promised: float | None = None,
) -> Outcome:
    return Outcome(
        offer="p/m",
        at_us=round(at_s * 1e6),
        failure=failure,
        ttft_ms=ttft_ms,
        total_ms=None if ttft_ms is None else ttft_ms + 99 * 20.0,
        waited_ms=waited_ms,
        input_tokens=input_tokens,
        output_tokens=100,
        n_inflight=n_inflight,
        ttft_promised=ttft_promised,
    )


def fold(estimator: LatencyEstimator, outcomes: list[Outcome], row: int = 0) -> None:
    estimator.fold(OutcomeBatch.of(outcomes, [row] * len(outcomes)))


def calls(
    rng: np.random.Generator, n: int, *, start_s: float, every_s: float, median_ms: float = 400.0
) -> list[Outcome]:
    ttft = median_ms * np.exp(0.3 * rng.normal(size=n))
    return [outcome(start_s + i * every_s, float(ms)) for i, ms in enumerate(ttft)]


def chance(estimator: LatencyEstimator, now_s: float, deadline_ms: float = 1_000.0) -> float:
    columns = estimator.quotes(now_s)
    return float(
        p_on_time(
            columns,
            ttft_deadline_ms=deadline_ms,
            latency_deadline_ms=None,
            input_tokens=500,
            output_tokens=np.ones(estimator.n_rows),
        )[0]
    )


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def steady(rng: np.random.Generator) -> LatencyEstimator:
    """An offer that has answered in about 400 ms for a minute."""
    estimator = LatencyEstimator()
    estimator.grow(1)
    fold(estimator, calls(rng, 600, start_s=NOON, every_s=0.1))
    return estimator


def test_learns_both_phases(steady: LatencyEstimator) -> None:
    columns = steady.quotes(NOON + 60)
    assert math.exp(columns.ttft_log_ms[0]) == pytest.approx(400.0, rel=0.08)
    assert columns.ttft_log_sd[0] == pytest.approx(0.3, rel=0.15)
    assert math.exp(columns.tpot_log_ms[0]) == pytest.approx(20.0, rel=0.05)
    whole = total_quantile_ms(columns, 0.5, 500, np.array([100.0]))[0]
    assert whole == pytest.approx(2_400.0, rel=0.1)


def test_promises_are_kept_at_every_level(rng: np.random.Generator) -> None:
    estimator = LatencyEstimator()
    estimator.grow(1)
    fold(estimator, calls(rng, 3_000, start_s=NOON, every_s=0.05))
    columns = estimator.quotes(NOON + 150)
    later = 400.0 * np.exp(0.3 * rng.normal(size=20_000))
    for level, within in ((0.5, 0.04), (0.9, 0.02), (0.95, 0.015), (0.99, 0.006)):
        promised = ttft_quantile_ms(columns, level, 500)[0]
        assert np.mean(later <= promised) == pytest.approx(level, abs=within)


@pytest.mark.parametrize("every_s", [0.02, 0.2, 2.0])
def test_a_tenfold_slowdown_and_its_end_are_seen_within_eight_calls_or_a_block(
    rng: np.random.Generator, every_s: float
) -> None:
    estimator = LatencyEstimator()
    estimator.grow(1)
    fold(estimator, calls(rng, 500, start_s=NOON, every_s=every_s))
    now_s = NOON + 500 * every_s
    assert chance(estimator, now_s) > 0.95
    slow = calls(rng, 8, start_s=now_s, every_s=every_s, median_ms=4_000.0)
    fold(estimator, slow)
    now_s += 8 * every_s
    assert chance(estimator, now_s) < 0.35
    n_back = max(8, math.ceil(BLOCK_S / every_s) + 1)
    back = calls(rng, n_back, start_s=now_s, every_s=every_s)
    fold(estimator, back)
    assert chance(estimator, now_s + n_back * every_s) > 0.5


def test_a_slowed_offer_left_alone_gets_another_chance(
    rng: np.random.Generator, steady: LatencyEstimator
) -> None:
    fold(steady, calls(rng, 5, start_s=NOON + 60, every_s=0.1, median_ms=4_000.0))
    assert chance(steady, NOON + 61) < 0.2
    assert chance(steady, NOON + 61 + 180) > 0.5


def test_one_spike_moves_little(steady: LatencyEstimator) -> None:
    before = ttft_quantile_ms(steady.quotes(NOON + 60), 0.5, 500)[0]
    fold(steady, [outcome(NOON + 60, 8_000.0)])
    after = ttft_quantile_ms(steady.quotes(NOON + 60), 0.5, 500)[0]
    assert after == pytest.approx(before, rel=0.05)


def test_timeouts_teach_though_nothing_was_timed(steady: LatencyEstimator) -> None:
    late = [
        outcome(NOON + 60 + i, None, failure=FailureClass.TIMEOUT_TTFT, waited_ms=2_000.0)
        for i in range(8)
    ]
    fold(steady, late)
    assert chance(steady, NOON + 69) < 0.3


def stopped(at_s: float, per_token_ms: float, n_tokens: int) -> Outcome:
    """A stream given up after so many tokens, at that pace if its silence counted as one."""
    return msgspec.structs.replace(
        outcome(at_s, 400.0, failure=FailureClass.TIMEOUT_GAP),
        total_ms=None,
        waited_ms=400.0 + per_token_ms * (n_tokens - 1),
        output_tokens=n_tokens,
    )


@pytest.mark.parametrize("n_tokens", [2, 10])
def test_streams_that_stop_are_no_slow_ones(steady: LatencyEstimator, n_tokens: int) -> None:
    """They are failures, and count as such: whoever is well again has kept its pace."""
    before = steady.quotes(NOON + 61)
    fold(steady, [stopped(NOON + 60 + 0.05 * i, 500.0, n_tokens) for i in range(12)])
    after = steady.quotes(NOON + 61)
    assert after.tpot_log_ms[0] == pytest.approx(before.tpot_log_ms[0], abs=0.05)
    assert after.tpot_log_sd[0] == pytest.approx(before.tpot_log_sd[0], abs=0.05)


def test_streams_given_up_at_half_their_pace_are_slow_ones(steady: LatencyEstimator) -> None:
    before = steady.quotes(NOON + 61)
    fold(steady, [stopped(NOON + 60 + 0.05 * i, 40.0, 60) for i in range(12)])
    after = steady.quotes(NOON + 61)
    assert after.tpot_log_ms[0] > before.tpot_log_ms[0] + 0.4


def test_a_deadline_of_a_millisecond_teaches_nothing(steady: LatencyEstimator) -> None:
    """A buyer with absurd deadlines must not be able to spoil an offer's name."""
    before = chance(steady, NOON + 61, 600.0)
    fold(
        steady,
        [
            outcome(NOON + 60, None, failure=FailureClass.TIMEOUT_TTFT, waited_ms=1.0)
            for _ in range(200)
        ],
    )
    assert chance(steady, NOON + 61, 600.0) == pytest.approx(before, abs=0.01)


@pytest.mark.parametrize(
    "failure",
    [FailureClass.CANCELLED, FailureClass.BAD_REQUEST, FailureClass.RATE_LIMITED],
)
def test_what_is_not_the_offers_doing_teaches_nothing(
    steady: LatencyEstimator, failure: FailureClass
) -> None:
    before = chance(steady, NOON + 61, 600.0)
    fold(steady, [outcome(NOON + 60, 9_000.0, failure=failure) for _ in range(50)])
    assert chance(steady, NOON + 61, 600.0) == pytest.approx(before, abs=0.01)


def test_long_prompts_are_expected_to_take_longer_and_the_slope_is_learned(
    rng: np.random.Generator,
) -> None:
    estimator = LatencyEstimator(LatencyParams(input_slope=0.0, slope_sd=0.5))
    estimator.grow(1)
    tokens = rng.integers(50, 20_000, 400)
    ttft = 300.0 * ((tokens + 300.0) / 800.0) ** 0.6 * np.exp(0.2 * rng.normal(size=400))
    fold(
        estimator,
        [
            outcome(NOON + i, float(ms), input_tokens=int(t))
            for i, (ms, t) in enumerate(zip(ttft, tokens, strict=True))
        ],
    )
    columns = estimator.quotes(NOON + 400)
    assert columns.ttft_per_log_input[0] == pytest.approx(0.6, abs=0.08)
    assert ttft_quantile_ms(columns, 0.5, 20_000)[0] == pytest.approx(2_100.0, rel=0.3)


def test_calls_in_flight_slow_an_offer_down(rng: np.random.Generator) -> None:
    estimator = LatencyEstimator(LatencyParams(slope_sd=0.5))
    estimator.grow(1)
    busy = rng.integers(0, 50, 400)
    ttft = 300.0 * (1.0 + busy) ** 0.4 * np.exp(0.2 * rng.normal(size=400))
    fold(
        estimator,
        [
            outcome(NOON + i, float(ms), n_inflight=int(b))
            for i, (ms, b) in enumerate(zip(ttft, busy, strict=True))
        ],
    )
    columns = estimator.quotes(NOON + 400)
    assert columns.ttft_per_log_inflight[0] == pytest.approx(0.4, abs=0.08)
    idle = ttft_quantile_ms(columns, 0.9, 500, np.array([0.0]))[0]
    assert ttft_quantile_ms(columns, 0.9, 500, np.array([49.0]))[0] > 3.0 * idle


def test_a_call_timed_only_as_a_whole_teaches_how_long_the_whole_takes(
    steady: LatencyEstimator,
) -> None:
    whole = [
        Outcome(
            offer="p/m",
            at_us=round((NOON + 60 + i) * 1e6),
            total_ms=2.0 * 2_380.0,
            input_tokens=500,
            output_tokens=100,
        )
        for i in range(20)
    ]
    fold(steady, whole)
    expected = total_quantile_ms(steady.quotes(NOON + 80), 0.5, 500, np.array([100.0]))[0]
    assert expected == pytest.approx(4_760.0, rel=0.15)


def test_a_cold_offer_borrows_from_its_group_before_the_market(rng: np.random.Generator) -> None:
    estimator = LatencyEstimator()
    estimator.grow(6)
    for row in (0, 1):
        estimator.set_group(row, 0)
    for row, median in ((1, 2_000.0), (2, 200.0), (3, 220.0), (4, 180.0)):
        fold(estimator, calls(rng, 50, start_s=NOON, every_s=1.0, median_ms=median), row)
    columns = estimator.quotes(NOON + 50)
    grouped, alone = (math.exp(columns.ttft_log_ms[row]) for row in (0, 5))
    assert grouped > 1_000.0
    assert alone < 600.0
    assert columns.ttft_log_sd[5] > columns.ttft_log_sd[0] > columns.ttft_log_sd[1]
    assert columns.ttft_n[5] < 1.0 < columns.ttft_n[1]


def test_quiet_makes_less_sure(steady: LatencyEstimator) -> None:
    now, later = steady.quotes(NOON + 60), steady.quotes(NOON + 60 + 30 * 86_400.0)
    assert later.ttft_n[0] < now.ttft_n[0]
    assert later.ttft_log_sd[0] > now.ttft_log_sd[0]


def test_missed_promises_widen_the_next_ones(steady: LatencyEstimator) -> None:
    now_s = NOON + 60
    before = ttft_quantile_ms(steady.quotes(now_s), 0.95, 500)[0]
    kept = [outcome(now_s + i, 500.0, ttft_promised=0.97) for i in range(60)]
    fold(steady, kept)
    assert ttft_quantile_ms(steady.quotes(now_s + 60), 0.95, 500)[0] > 1.15 * before


@pytest.mark.parametrize("delay", [1, 50])
def test_the_loop_on_promises_stays_stable_when_outcomes_come_late(delay: int) -> None:
    """Promises are scored against quotes up to `delay` calls old, at fifty calls a second."""
    rng = np.random.default_rng(3)
    estimator = LatencyEstimator()
    estimator.grow(1)
    waiting: list[Outcome] = []
    quantiles, met = [], []
    columns = estimator.quotes(NOON)
    for i in range(3_000):
        now_s = NOON + i * 0.02
        ms = float(400.0 * np.exp(0.3 * rng.normal()))
        if i % 50 == 0:
            columns = estimator.quotes(now_s)
        promised = promised_share(columns, 0, ms, 500)
        quantile = ttft_quantile_ms(columns, 0.95, 500)[0]
        if i > 1_000:
            quantiles.append(quantile)
            met.append(ms <= quantile)
        waiting.append(outcome(now_s, ms, ttft_promised=promised))
        if len(waiting) >= delay:
            fold(estimator, waiting)
            waiting = []
    assert np.mean(met) == pytest.approx(0.95, abs=0.02)
    assert np.std(np.log(quantiles)) < 0.1


def test_after_a_bad_day_heard_of_a_day_late_promises_do_not_swing() -> None:
    """All offers are slow for a day; every outcome of a day comes in at its end, together."""
    held = _z_by_day(LatencyParams().level_gain)
    free = _z_by_day(5.0)
    assert held[8][0] < 2.0 < free[8][0]  # the middle, the day after
    assert held[11][1] < 2.5 < free[11][1]  # the 90 % promise, three days on


def _z_by_day(level_gain: float) -> list[tuple[float, float]]:
    """How many sd above the mean the 50 % and 90 % promises lie, by day; day 7 is slow."""
    rng = np.random.default_rng(5)
    estimator = LatencyEstimator(
        LatencyParams(level_gain=level_gain, scale_step=0.0, shift_step=0.0)
    )
    estimator.grow(40)
    found = []
    for day in range(12):
        start_s = NOON + day * 86_400.0
        columns = estimator.quotes(start_s)
        z50, z90 = np.interp([0.5, 0.9], columns.ttft_cdf, columns.z_grid)
        found.append((float(z50), float(z90)))
        slow = math.exp(0.8) if day == 7 else 1.0
        for row in range(40):
            ttft = (400.0 * slow * np.exp(0.3 * rng.normal(size=4))).tolist()
            shares = [promised_share(columns, row, ms, 500) for ms in ttft]
            fold(
                estimator,
                [
                    outcome(start_s + 7_200.0 * i, ms, ttft_promised=share)
                    for i, (ms, share) in enumerate(zip(ttft, shares, strict=True))
                ],
                row,
            )
    return found


def test_less_than_nothing_per_token_is_next_to_nothing() -> None:
    """The least that a float holds, divided by an answer's tokens, has no logarithm."""
    estimator = LatencyEstimator()
    estimator.grow(1)
    tiny = Outcome(
        offer="p/m", at_us=round(NOON * 1e6), ttft_ms=0.0, total_ms=5e-324, output_tokens=4_000
    )
    fold(estimator, [tiny])
    assert np.isfinite(estimator.state(0)).all()


def test_bad_fields_are_counted_and_nothing_else(steady: LatencyEstimator) -> None:
    before = steady.quotes(NOON + 61)
    fold(steady, [outcome(NOON + 60, -5.0), outcome(NOON + 60, math.inf)])
    assert steady.n_dirty[0] == 2.0
    after = steady.quotes(NOON + 61)
    assert after.ttft_log_ms[0] == before.ttft_log_ms[0]


def test_group_must_not_be_negative(steady: LatencyEstimator) -> None:
    with pytest.raises(ValueError, match="at least 0"):
        steady.set_group(0, -1)
