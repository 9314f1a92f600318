"""P(on time) with and without the benefit of the doubt."""

from __future__ import annotations

import numpy as np
import pytest

from bidding.columns import Floats
from bidding.estimators.latency_params import LatencyParams
from bidding.estimators.latency_pool import Z_GRID, LatencyColumns, calibration
from bidding.scoring import p_on_time
from bidding.view import QuoteColumns

MEDIAN_MS = 400.0
CALL_SD = 0.3


def quotes(n: list[float]) -> QuoteColumns:
    """Offers alike but for how many calls are behind their quotes."""
    calls = np.array(n)
    nothing = np.zeros(len(calls))
    # The next call's variance: that of calls, and the doubt of their mean.
    sd = CALL_SD * np.sqrt(1.0 + 1.0 / np.maximum(calls, 1e-9))
    cdf = calibration(np.zeros((2, len(Z_GRID) - 1, len(calls))), LatencyParams())
    latency = LatencyColumns(
        ttft_log_ms=np.full(len(calls), np.log(MEDIAN_MS)),
        ttft_log_sd=np.where(calls > 0.0, sd, 1.3),
        ttft_n=calls,
        ttft_per_log_input=nothing,
        ttft_per_log_inflight=nothing,
        tpot_log_ms=nothing,
        tpot_log_sd=np.ones(len(calls)),
        tpot_n=calls,
        tpot_per_log_output=nothing,
        tpot_per_log_inflight=nothing,
        z_grid=Z_GRID,
        ttft_cdf=cdf[0],
        total_cdf=cdf[1],
    )
    return QuoteColumns(latency, fail_share=nothing, capacity_share=nothing, evidence_n=calls)


def within_a_second(n: list[float], optimism_sd: float) -> Floats:
    return p_on_time(
        quotes(n),
        ttft_ms=1000.0,
        latency_ms=None,
        input_tokens=500.0,
        out_tokens=np.full(len(n), 100.0),
        n_inflight=np.zeros(len(n)),
        optimism_sd=optimism_sd,
    )


def test_doubt_counts_against_an_offer_where_it_gets_no_benefit() -> None:
    plain = within_a_second([0.2, 1.0, 10.0, 1000.0], 0.0)
    assert np.all(np.diff(plain) > 0.0)


def test_with_the_benefit_an_offer_hardly_tried_is_not_behind_its_equal() -> None:
    """Else the first one that is tried keeps every request that follows."""
    few, many = within_a_second([0.2, 1000.0], 0.5)
    assert few >= many
    assert within_a_second([0.2], 0.0).item() < many - 0.03


def test_the_benefit_fades_as_calls_are_seen() -> None:
    gain = within_a_second([1.0, 10.0, 1000.0], 0.5) - within_a_second([1.0, 10.0, 1000.0], 0.0)
    assert gain[0] > gain[1] > gain[2] >= 0.0
    assert gain[2] == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("optimism_sd", [0.0, 0.5, 4.0])
def test_an_offer_never_heard_of_has_a_chance_that_is_a_number(optimism_sd: float) -> None:
    chance = within_a_second([0.0], optimism_sd).item()
    assert 0.5 < chance <= 1.0
