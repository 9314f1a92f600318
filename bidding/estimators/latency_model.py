"""The arithmetic of latency: from decayed sums to a normal law of log latency.

Pure functions over arrays whose last axis is offers; used both while folding (one offer's own
evidence against the constant prior) and when quotes are made (against what other offers show).
Log latency of a call is ``mean + slope_size·size + slope_busy·busy + noise``, where `size` is a
centred log of the tokens that matter (input for TTFT, output for TPOT) and `busy` is
log(1 + calls in flight). What is kept is the difference from the prior slopes.

References
----------
Gelman et al., Bayesian Data Analysis, 3rd ed., sections 2.5 and 14.8 (normal shrinkage, ridge
as prior). Tobin (1958) for censored observations, here one EM step per event.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from scipy.special import log_ndtr, ndtr

from bidding.estimators.decay import Floats

N_CHANNELS: Final = 2
TTFT: Final = 0
TPOT: Final = 1

N_SLOW: Final = 10
"""Slow sums of a channel: n, x, xx, size, busy, size², busy², size·busy, size·x, busy·x."""
N_RUN: Final = 3
"""Sums since a suspected change: n, e, e², where e is x without the offer's slopes."""
N_FAST: Final = 4
"""Fast sums of a channel: those and `jumped`, `JUMPED` at an alarm and fading since."""
JUMPED: Final = 2.0
"""Above 1 the short memory is believed outright: for one fast half-life after an alarm."""

LEVELS: Final = np.array([0.5, 0.9, 0.95, 0.99])
"""Levels at which promises are watched and levelled."""

LEAST_SD: Final = 0.02
"""No offer is steadier than 2 %: below, rounding and our own clock would pass for changes."""

_STOPS: Final = 0.01
"""Share of answers that stop before their end, a priori: about the failed share of a sound seller;
ten times as many or as few move what is taken for slow by some two thirds of an sd."""

_TINY: Final = 1e-12
_HALF_LOG_TWO_PI: Final = 0.5 * math.log(2.0 * math.pi)


class Prior(NamedTuple):
    """What is believed before an offer's own evidence; arrays broadcast to (2, n_offers)."""

    mean: Floats
    mean_var: Floats
    noise_var: Floats
    slope_size: Floats
    slope_busy: Floats


class Law(NamedTuple):
    """Log latency of the next call at size 0, busy 0: arrays (2, n_offers).

    `var` is the spread of calls, `mean_var` the uncertainty of `mean`; slopes are differences
    from the prior slopes; `slow_n` is the decayed number of calls behind it.
    """

    mean: Floats
    mean_var: Floats
    var: Floats
    slope_size: Floats
    slope_busy: Floats
    slow_n: Floats


class Moments(NamedTuple):
    """An offer's centred moments, arrays (2, n_offers)."""

    n: Floats
    x: Floats
    size: Floats
    busy: Floats
    xx: Floats
    size2: Floats
    busy2: Floats
    size_busy: Floats
    size_x: Floats
    busy_x: Floats


def size_of_input(tokens: Floats) -> Floats:
    """Centred log size of a prompt: flat when short, linear in log when long."""
    return np.log((tokens + 300.0) / 800.0)


def size_of_output(tokens: Floats) -> Floats:
    """Centred log size of an answer."""
    return np.log((tokens + 20.0) / 120.0)


def moments(slow: Floats) -> Moments:
    """Centred moments of slow sums shaped (2, N_SLOW, n_offers)."""
    n, x, xx, size, busy, size2, busy2, size_busy, size_x, busy_x = np.moveaxis(slow, 1, 0)
    inverse = 1.0 / np.maximum(n, _TINY)
    mean_x, mean_size, mean_busy = x * inverse, size * inverse, busy * inverse
    return Moments(
        n,
        mean_x,
        mean_size,
        mean_busy,
        np.maximum(xx - x * mean_x, 0.0),
        np.maximum(size2 - size * mean_size, 0.0),
        np.maximum(busy2 - busy * mean_busy, 0.0),
        size_busy - size * mean_busy,
        size_x - size * mean_x,
        busy_x - busy * mean_x,
    )


def ridge(m: Moments, prior: Prior, slope_var: float) -> tuple[Floats, Floats, Floats]:
    """Slopes shrunk to the prior's, and the squares that remain: (size, busy, rest)."""
    pull = prior.noise_var / slope_var
    a = m.size2 + pull
    b = m.busy2 + pull
    along_size = m.size_x + pull * prior.slope_size
    along_busy = m.busy_x + pull * prior.slope_busy
    inverse = 1.0 / np.maximum(a * b - m.size_busy * m.size_busy, _TINY)
    size = (b * along_size - m.size_busy * along_busy) * inverse
    busy = (a * along_busy - m.size_busy * along_size) * inverse
    rest = m.xx - 2.0 * (size * m.size_x + busy * m.busy_x)
    rest += size * size * m.size2 + busy * busy * m.busy2 + 2.0 * size * busy * m.size_busy
    return size, busy, np.maximum(rest, 0.0)


def law(
    slow: Floats,
    fast: Floats,
    prior: Prior,
    *,
    slope_var: float,
    noise_n: float,
    drift_var: Floats | float,
) -> Law:
    """What the next call is expected to take, from an offer's own sums and a prior.

    Parameters
    ----------
    slow : ndarray, (2, N_SLOW, n_offers)
    fast : ndarray, (2, N_FAST, n_offers)
    slope_var : float
        Variance of an offer's slopes around the prior's.
    noise_n : float
        How many calls the prior spread of calls is worth.
    drift_var : float
        Variance of "just now" around "usual": the evidence that fast sums must outweigh.
        After an alarm the jump itself is added, so that the usual holds back no longer.
    """
    m = moments(slow)
    size, busy, rest = ridge(m, prior, slope_var)
    usual = m.x - size * m.size - busy * m.busy
    var = (noise_n * prior.noise_var + rest) / (noise_n + m.n)
    precision = m.n / var + 1.0 / prior.mean_var
    usual = (usual * m.n / var + prior.mean / prior.mean_var) / precision
    usual_var = 1.0 / precision

    n, e, ee, jumped = np.moveaxis(fast, 1, 0)
    now = e / np.maximum(n, _TINY)
    now_rest = np.maximum(ee - e * now, 0.0)
    now_var = (2.0 * noise_n * var + now_rest) / (2.0 * noise_n + n)
    now_var = np.maximum(now_var, LEAST_SD**2)
    drift_var = drift_var + np.minimum(jumped, 1.0) * np.square(now - usual)
    held = 1.0 / (usual_var + drift_var)
    gained = n / now_var
    mean = (gained * now + held * usual) / (gained + held)
    mean_var = 1.0 / (gained + 1.0 / usual_var)
    return Law(mean, mean_var, now_var, size, busy, m.n)


def censored(mean: Floats, sd: Floats, waited: Floats) -> tuple[Floats, Floats, Floats]:
    """A call known only to have taken longer than `waited` (log ms), as one to fold.

    Returns
    -------
    value, extra_var, weight : ndarray
        Expected log latency and its variance given that it exceeds `waited`, and the chance
        that such a wait would have seen the call end: a wait far too short says nothing.

    Examples
    --------
    >>> value, _, weight = censored(np.zeros(2), np.ones(2), np.array([-9.0, 3.0]))
    >>> value.round(2).tolist(), weight.round(3).tolist()
    ([0.0, 3.28], [0.0, 0.999])
    """
    z = np.clip((waited - mean) / sd, -8.0, 30.0)
    mills = np.exp(-0.5 * z * z - _HALF_LOG_TWO_PI - log_ndtr(-z))
    extra = np.maximum(1.0 + z * mills - mills * mills, 0.0)
    far = np.maximum(waited, mean + sd * z)
    return far - sd * z + sd * mills, sd * sd * extra, ndtr(z)


def goes_on(mean: Floats, sd: Floats, waited: Floats) -> Floats:
    """The chance that an answer which had taken `waited` (log ms) a token was merely slow, and had
    not stopped for good.

    One answer in a hundred (`_STOPS`) may stop at any pace. That is a failure, and counts as one
    (`fail_share`); it says nothing of the pace of those that do not.

    Parameters
    ----------
    mean, sd : ndarray
        The law of a call's log time per token, drift included.

    References
    ----------
    Berkson, Gage (1952), Survival curve for cancer patients following treatment (the mixture of
    those to whom it will never happen and of those to whom it has not happened yet).

    Examples
    --------
    >>> goes_on(np.zeros(3), np.ones(3), np.array([0.0, 2.33, 5.0])).round(2).tolist()
    [0.98, 0.5, 0.0]
    """
    z = np.clip((waited - mean) / sd, -8.0, 30.0)
    slow = (1.0 - _STOPS) * ndtr(-z)
    chance: Floats = slow / (slow + _STOPS)
    return chance
