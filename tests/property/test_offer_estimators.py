"""Laws of latency promises: monotone, in bounds, and quantile and chance undo each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bidding.estimators.latency import LatencyEstimator
from bidding.estimators.latency_model import censored
from bidding.estimators.latency_pool import LatencyColumns
from bidding.estimators.on_time import p_on_time, promised_share, ttft_quantile_ms
from bidding.outcome import OutcomeBatch

NOON = 1_713_268_800.0


def columns_of(seed: int, n_rows: int = 5, n: int = 400) -> LatencyColumns:
    rng = np.random.default_rng(seed)
    estimator = LatencyEstimator()
    estimator.grow(n_rows)
    row = rng.integers(0, n_rows - 1, n)
    ttft = np.exp(rng.normal(5.5 + 0.4 * row, 0.4))
    estimator.fold(
        OutcomeBatch(
            row=row,
            at_s=NOON + np.arange(float(n)) * 0.5,
            failure=np.zeros(n, dtype=np.int64),
            ttft_ms=ttft,
            total_ms=ttft + 3_000.0,
            waited_ms=np.full(n, np.nan),
            input_tokens=np.full(n, 500.0),
            output_tokens=np.full(n, 100.0),
            n_inflight=np.zeros(n),
            trust=np.ones(n),
            ttft_promised=rng.random(n),
        )
    )
    return estimator.quotes(NOON + n * 0.5)


def chance(columns: LatencyColumns, ttft_ms: float | None, total_ms: float | None) -> np.ndarray:
    return p_on_time(
        columns,
        ttft_deadline_ms=ttft_ms,
        latency_deadline_ms=total_ms,
        input_tokens=700.0,
        output_tokens=np.full(5, 150.0),
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 50), st.floats(0.1, 1e5), st.floats(1.0, 10.0))
def test_more_time_is_never_less_likely_enough(seed: int, ms: float, factor: float) -> None:
    columns = columns_of(seed)
    for less, more in (
        (chance(columns, ms, None), chance(columns, ms * factor, None)),
        (chance(columns, None, ms), chance(columns, None, ms * factor)),
    ):
        assert ((less >= 0) & (more <= 1)).all()
        assert (more >= less).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 50), st.floats(0.02, 0.98))
def test_quantile_and_chance_undo_each_other(seed: int, level: float) -> None:
    columns = columns_of(seed)
    promised = ttft_quantile_ms(columns, level, 700.0)
    for row in range(4):
        assert chance(columns, float(promised[row]), None)[row] == pytest.approx(level, abs=1e-6)
        assert promised_share(columns, row, float(promised[row]), 700.0) == pytest.approx(
            level, abs=1e-6
        )
    assert promised_share(columns, 4, 400.0, 700.0) is None


@given(st.floats(0.5, 0.98), st.integers(0, 20))
@settings(max_examples=20, deadline=None)
def test_a_higher_promise_takes_longer(level: float, seed: int) -> None:
    columns = columns_of(seed)
    assert (
        ttft_quantile_ms(columns, level + 0.01, 700.0) >= ttft_quantile_ms(columns, level, 700.0)
    ).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1_000))
def test_the_order_of_offers_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 200
    row, ttft = rng.integers(0, 4, n), np.exp(rng.normal(6, 0.5, n))
    places = rng.permutation(4)
    quotes = []
    for names in (np.arange(4), places):
        estimator = LatencyEstimator()
        estimator.grow(4)
        nan = np.full(n, np.nan)
        zeros = np.zeros(n)
        estimator.fold(
            OutcomeBatch(
                names[row],
                NOON + np.arange(float(n)),
                zeros.astype(np.int64),
                ttft,
                nan,
                nan,
                zeros + 500,
                zeros,
                zeros,
                zeros + 1,
            )
        )
        quotes.append(estimator.quotes(NOON + n))
    np.testing.assert_allclose(quotes[1].ttft_log_ms[places], quotes[0].ttft_log_ms, rtol=1e-9)
    np.testing.assert_allclose(quotes[1].ttft_cdf, quotes[0].ttft_cdf, rtol=1e-9)


@given(st.floats(-5, 15), st.floats(0.02, 3), st.floats(-5, 16))
def test_a_wait_in_vain_lies_beyond_itself(mean: float, sd: float, waited: float) -> None:
    value, extra, weight = censored(np.array([mean]), np.array([sd]), np.array([waited]))
    assert np.isfinite([value, extra, weight]).all()
    assert value[0] >= max(waited, mean) - 1e-6
    assert extra[0] >= 0
    assert 0 <= weight[0] <= 1
