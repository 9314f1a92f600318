"""P(on time) and latency quantiles from quotes: what a decision asks of the latency model.

Pure and short, since a decision pays for every call: per deadline one affine map and one table
look-up over all offers. The table is the pooled calibration, so that 95 % means 95 %.

References
----------
Fenton (1960), The sum of log-normal probability distributions (the moment match).
"""

from __future__ import annotations

import math

import numpy as np

from bidding.estimators.decay import Floats
from bidding.estimators.latency_model import size_of_input, size_of_output
from bidding.estimators.latency_pool import LatencyColumns


def ttft_law(
    columns: LatencyColumns, input_tokens: float, n_inflight: Floats | float = 0.0
) -> tuple[Floats, Floats]:
    """Mean and sd of log TTFT (log ms) of a call of this size, each (n_offers,)."""
    size = size_of_input(np.array(input_tokens))
    mean = columns.ttft_log_ms + columns.ttft_per_log_input * size
    return mean + columns.ttft_per_log_inflight * np.log1p(n_inflight), columns.ttft_log_sd


def total_law(
    columns: LatencyColumns,
    input_tokens: float,
    output_tokens: Floats,
    n_inflight: Floats | float = 0.0,
) -> tuple[Floats, Floats]:
    """Mean and sd of the log of TTFT + (output − 1) × TPOT, moment-matched; (n_offers,)."""
    first, first_sd = ttft_law(columns, input_tokens, n_inflight)
    each = columns.tpot_log_ms + columns.tpot_per_log_output * size_of_output(output_tokens)
    each = each + columns.tpot_per_log_inflight * np.log1p(n_inflight)
    first_var = first_sd * first_sd
    each_var = columns.tpot_log_sd * columns.tpot_log_sd
    first_ms = np.exp(first + 0.5 * first_var)
    rest_ms = np.maximum(output_tokens - 1.0, 0.0) * np.exp(each + 0.5 * each_var)
    spread = first_ms * first_ms * np.expm1(first_var) + rest_ms * rest_ms * np.expm1(each_var)
    mean_ms = first_ms + rest_ms
    log_var = np.log1p(spread / (mean_ms * mean_ms))
    return np.log(mean_ms) - 0.5 * log_var, np.sqrt(log_var)


def p_on_time(
    columns: LatencyColumns,
    *,
    ttft_deadline_ms: float | None,
    latency_deadline_ms: float | None,
    input_tokens: float,
    output_tokens: Floats,
    n_inflight: Floats | float = 0.0,
) -> Floats:
    """Chance that each offer's answer meets the stated deadlines, given that it does not fail.

    Parameters
    ----------
    ttft_deadline_ms, latency_deadline_ms : float or None
        Until the first token, until the last; milliseconds. None is no such deadline.
    output_tokens : ndarray, (n_offers,)
        Expected answer length. `n_inflight` : our own calls open there.

    Notes
    -----
    With both deadlines the smaller chance is given: the two are nearly always met or missed
    together, and a product would be pessimistic.
    """
    chance = np.ones(len(columns.ttft_log_ms))
    if ttft_deadline_ms is not None:
        mean, sd = ttft_law(columns, input_tokens, n_inflight)
        z = (math.log(max(ttft_deadline_ms, 1e-3)) - mean) / sd
        chance = np.interp(z, columns.z_grid, columns.ttft_cdf)
    if latency_deadline_ms is not None:
        mean, sd = total_law(columns, input_tokens, output_tokens, n_inflight)
        z = (math.log(max(latency_deadline_ms, 1e-3)) - mean) / sd
        chance = np.minimum(chance, np.interp(z, columns.z_grid, columns.total_cdf))
    return chance


def ttft_quantile_ms(
    columns: LatencyColumns,
    share: float,
    input_tokens: float,
    n_inflight: Floats | float = 0.0,
) -> Floats:
    """The TTFT, milliseconds, that a `share` of each offer's calls will not exceed."""
    mean, sd = ttft_law(columns, input_tokens, n_inflight)
    quantile: Floats = np.exp(mean + sd * np.interp(share, columns.ttft_cdf, columns.z_grid))
    return quantile


def total_quantile_ms(
    columns: LatencyColumns,
    share: float,
    input_tokens: float,
    output_tokens: Floats,
    n_inflight: Floats | float = 0.0,
) -> Floats:
    """The whole latency, milliseconds, that a `share` of each offer's calls will not exceed."""
    mean, sd = total_law(columns, input_tokens, output_tokens, n_inflight)
    quantile: Floats = np.exp(mean + sd * np.interp(share, columns.total_cdf, columns.z_grid))
    return quantile


def promised_share(
    columns: LatencyColumns, row: int, ttft_ms: float, input_tokens: float, n_inflight: float = 0.0
) -> float | None:
    """Chance that offer `row`'s quote gave to a first token within `ttft_ms`, after the fact.

    Recorded with the outcome (`Outcome.ttft_promised`); from the shares of all calls the
    estimator learns whether its promises are kept, and corrects them. None if the quote had no
    call of the offer behind it: what is promised blindly teaches nothing about promises.
    """
    if not columns.ttft_n[row] >= 1.0:
        return None
    size = float(size_of_input(np.array(input_tokens)))
    mean = float(columns.ttft_log_ms[row]) + float(columns.ttft_per_log_input[row]) * size
    mean += float(columns.ttft_per_log_inflight[row]) * math.log1p(max(n_inflight, 0.0))
    z = (math.log(max(ttft_ms, 1e-3)) - mean) / float(columns.ttft_log_sd[row])
    return float(np.interp(z, columns.z_grid, columns.ttft_cdf))
