"""What offers teach one another about latency: priors, slopes and the true shape of residuals.

Pure: from all rows' sums to the columns a view reads. An offer with little evidence borrows
from its group (the same model at the same provider elsewhere) and from the market; every
offer's own part is left out of what it borrows, so nothing is counted twice. Residuals are
pooled because an offer of a dozen calls has no 99 % quantile of its own.

References
----------
Efron, Morris (1975), Data analysis using Stein's estimator (leave-one-out empirical Bayes).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from scipy.special import ndtr

from bidding.estimators.decay import Floats, Ints
from bidding.estimators.latency_model import LEVELS, TPOT, TTFT, Moments, Prior, law, moments, ridge
from bidding.estimators.latency_params import LatencyParams

Z_EDGES: Final = np.array(
    [-3.0, -2.0, -1.5, -1.0, -0.6, -0.3, 0.0, 0.3, 0.6, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0]
)
"""Edges of the histogram of standardised residuals: finer where promises are made."""

Z_GRID: Final = np.concatenate([[-8.0], Z_EDGES, [12.0]])
"""Where the calibrated distribution function is tabulated; 0 and 1 at the ends."""


_LEAST_LEVEL: Final = np.array([0.05, 0.5, 0.6, 0.7])
_MOST_LEVEL: Final = 0.9995
"""Bounds of the levels in use: beyond them a table of some thousand residuals is empty."""


class LatencyColumns(NamedTuple):
    """Log latency of each offer's next call: arrays (n_rows,), natural log of milliseconds.

    `*_log_ms` is the mean at 500 input tokens (TTFT) or 100 output tokens (TPOT) with nothing
    in flight; `*_log_sd` that of the next call, the mean's uncertainty included; `*_n` the
    effective number of calls behind it. Slopes: per log((input + 300)/800), per
    log((output + 20)/120), per log(1 + in flight). `z_grid` and `ttft_cdf`, `total_cdf` tabulate
    how often standardised residuals really stay below z, over all offers.
    """

    ttft_log_ms: Floats
    ttft_log_sd: Floats
    ttft_n: Floats
    ttft_per_log_input: Floats
    ttft_per_log_inflight: Floats
    tpot_log_ms: Floats
    tpot_log_sd: Floats
    tpot_n: Floats
    tpot_per_log_output: Floats
    tpot_per_log_inflight: Floats
    z_grid: Floats
    ttft_cdf: Floats
    total_cdf: Floats


def pooled(
    slow: Floats,
    fast: Floats,
    residuals: Floats,
    promises: Floats,
    group: Ints,
    base: Prior,
    params: LatencyParams,
) -> LatencyColumns:
    """Columns of all offers.

    Parameters
    ----------
    slow, fast, residuals : ndarray, (2, k, n_rows)
        Sums as they weigh now; `residuals` counts by `Z_EDGES`.
    promises : ndarray, (1 + len(LEVELS), n_rows)
        Promises scored, and how many more than promised exceeded each level.
    group : ndarray, (n_rows,)
        Which offers resemble each other most; negative ones stand alone.
    base : Prior
        What is believed of an unseen market.
    """
    prior = _market_prior(slow, group, base, params)
    own = law(
        slow,
        fast,
        prior,
        slope_var=params.slope_sd**2,
        noise_n=params.noise_n,
        drift_var=params.drift_log_sd**2,
    )
    sd = np.sqrt(own.var + own.mean_var)
    n = own.var / own.mean_var
    size = own.slope_size + np.array([[params.input_slope], [params.output_slope]])
    busy = own.slope_busy + params.inflight_slope
    cdf = calibration(residuals, params)
    shift, stretch = _kept_by_group(promises, group, params)
    return LatencyColumns(
        ttft_log_ms=own.mean[TTFT] + shift * sd[TTFT],
        ttft_log_sd=stretch * sd[TTFT],
        ttft_n=n[TTFT],
        ttft_per_log_input=size[TTFT],
        ttft_per_log_inflight=busy[TTFT],
        tpot_log_ms=own.mean[TPOT],
        tpot_log_sd=sd[TPOT],
        tpot_n=n[TPOT],
        tpot_per_log_output=size[TPOT],
        tpot_per_log_inflight=busy[TPOT],
        z_grid=Z_GRID,
        ttft_cdf=_levelled(cdf[TTFT], promises, params),
        total_cdf=0.5 * (cdf[TTFT] + cdf[TPOT]),
    )


def _market_prior(slow: Floats, group: Ints, base: Prior, params: LatencyParams) -> Prior:
    """Each offer's prior, made from all others: columns (2, n_rows)."""
    m = moments(slow)
    cap = np.minimum(1.0, params.row_cap_n / np.maximum(m.n, 1e-12))
    pooled_slopes = _sum_rows(m, cap)
    size, busy, _ = ridge(pooled_slopes, base, params.slope_sd**2)
    _, _, rest = ridge(m, base._replace(slope_size=size, slope_busy=busy), params.slope_sd**2)
    freedom = np.sum(cap * np.maximum(m.n - 1.0, 0.0), axis=1, keepdims=True)
    noise = 10.0 * base.noise_var + np.sum(cap * rest, axis=1, keepdims=True)
    noise_var = noise / (10.0 + freedom)

    mean = m.x - size * m.size - busy * m.busy
    near = params.group_log_sd**2
    far = params.market_log_sd**2
    some = m.n > 1e-9
    weight = np.where(some, 1.0 / (noise_var / np.maximum(m.n, 1e-9) + near), 0.0)
    sums = _by_group(group, weight), _by_group(group, weight * mean)
    _, members = np.unique(group, return_inverse=True)
    group_weight, group_sum = sums[0], sums[1]
    group_mean = group_sum / np.maximum(group_weight, 1e-12)
    shares = np.where(group_weight > 0, 1.0 / (1.0 / np.maximum(group_weight, 1e-12) + far), 0.0)
    market_weight = shares.sum(axis=1, keepdims=True)
    market_sum = (shares * group_mean).sum(axis=1, keepdims=True)
    one_market = 1.0 / far
    market = (market_sum + one_market * base.mean) / (market_weight + one_market)
    market_var = 1.0 / (market_weight + one_market)

    others = np.maximum(group_weight[:, members] - weight, 0.0)
    others_sum = group_sum[:, members] - weight * mean
    pull = 1.0 / (far + market_var)
    prior_mean = (others_sum + pull * market) / (others + pull)
    prior_var = near + 1.0 / (others + pull)
    return Prior(prior_mean, prior_var, noise_var, size, busy)


def _sum_rows(m: Moments, cap: Floats) -> Moments:
    return Moments(*(np.sum(cap * column, axis=1, keepdims=True) for column in m))


def _by_group(group: Ints, values: Floats) -> Floats:
    _, members = np.unique(group, return_inverse=True)
    return np.stack([np.bincount(members, weights=channel) for channel in values])


def _kept_by_group(promises: Floats, group: Ints, params: LatencyParams) -> tuple[Floats, Floats]:
    """How promises kept so far move an offer's mean (in sd) and stretch its spread."""
    _, members = np.unique(group, return_inverse=True)
    n, over, *tail = (np.bincount(members, weights=row)[members] for row in promises)
    damp = np.minimum(1.0, params.offer_window_n / np.maximum(n, 1.0))
    shift = np.clip(params.shift_step * damp * over, -1.0, 1.0)
    stretch = np.clip(params.scale_step * damp * (tail[0] + tail[1]), -0.7, 0.7)
    return shift, np.exp(stretch)


def _levelled(cdf: Floats, promises: Floats, params: LatencyParams) -> Floats:
    """`cdf` with its levels moved by the promises kept and missed over all offers.

    The levels move by at most `level_gain` times the mean miss. Outcomes of one quote come in
    together, and late: where all that is known came a day late, a loop that moves twice as far
    as what it saw amiss swings from day to day for ever, however small its step for a call.

    References
    ----------
    Gibbs, Candès (2021), Adaptive conformal inference under distribution shift, eq. 2: the
    level moves by a step per miss; here the sum is decayed and bounded by a window, so that
    the loop stays stable however late or many the outcomes.
    """
    n, *excess = promises.sum(axis=1)
    share = min(params.level_step * min(float(n), params.level_window_n), params.level_gain)
    moved = LEVELS + share * np.array(excess) / max(float(n), 1e-9)
    moved = np.clip(moved, _LEAST_LEVEL, _MOST_LEVEL)
    moved = np.maximum.accumulate(moved + 1e-6 * np.arange(len(LEVELS)))
    ends = np.array([0.0]), np.array([1.0])
    levelled: Floats = np.interp(
        cdf, np.concatenate([ends[0], moved, ends[1]]), np.concatenate([ends[0], LEVELS, ends[1]])
    )
    return levelled


def calibration(residuals: Floats, params: LatencyParams) -> Floats:
    """Share of standardised residuals below each of `Z_GRID`, (2, len(Z_GRID)).

    Counts of all offers, each capped at `row_cap_n` calls, added to `calibration_n` calls from
    the normal law.
    """
    n = residuals.sum(axis=1, keepdims=True)
    cap = np.minimum(1.0, params.row_cap_n / np.maximum(n, 1e-12))
    counts = (residuals * cap).sum(axis=2)
    normal = np.diff(np.concatenate([[0.0], ndtr(Z_EDGES), [1.0]]))
    counts = counts + params.calibration_n * normal
    below = np.cumsum(counts, axis=1) / counts.sum(axis=1, keepdims=True)
    zero, one = np.zeros((len(below), 1)), np.ones((len(below), 1))
    return np.concatenate([zero, below[:, :-1], one], axis=1)
