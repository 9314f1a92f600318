"""Who peaks at 3 pm on a Tuesday: hour-of-week multipliers for latency and for error odds.

Pure: from what each of the week's 168 hours (UTC, Monday 00:00 first) has shown to a multiplier
an hour, 1 where nothing is known. The idea that is not obvious: the week is a circle on which
an hour resembles its neighbours and, less, the same hour of other days; a Gaussian process with
that kernel smooths and shrinks at once, an hour without calls borrows from those near it, and
how much of the week's unevenness is real is read off the data: as a whole (evidence maximisation
over a few sizes, none being one of them) and around each hour, so that one peak in an even week
is not ironed out.

Calls of one hour of one week share their luck, so an hour's mean is never taken to be surer
than so many independent weeks allow.

References
----------
Rasmussen, Williams, Gaussian Processes for Machine Learning, 2006, sections 2.2 (regression),
4.2 (periodic kernels), 5.4.1 (marginal likelihood).
"""

from __future__ import annotations

from typing import Annotated, Final, NamedTuple

import numpy as np
from msgspec import Struct
from scipy.linalg import cho_factor, cho_solve

from bidding.estimators.bounds import number
from bidding.estimators.decay import Bools, Floats, Ints

HOURS: Final = 168
_MONDAY_HOUR: Final = 72
"""The epoch began on a Thursday: 72 hours after a Monday's midnight."""
_SCALES: Final = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)
_UNKNOWN_VAR: Final = 1e8
_DOUBT: Final = 3.0
"""An hour's squared effect counts as real beyond so many times its variance."""


class SeasonParams(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How hours of the week are compared."""

    neighbour_hours: Annotated[
        float, number(0.1, 12, "h", "distance at which hours of a day stop resembling each other")
    ] = 1.0
    daily_share: Annotated[
        float, number(0, 1, "share", "how much of a pattern is the same every day of the week")
    ] = 0.3
    call_log_sd: Annotated[
        float, number(0.01, 5, "log", "spread of single calls around their hour's mean")
    ] = 0.5
    week_log_sd: Annotated[
        float, number(0, 2, "log", "spread of one hour's mean from week to week")
    ] = 0.2
    max_multiplier: Annotated[
        float, number(1, 100, "ratio", "no multiplier exceeds this or falls below its inverse")
    ] = 10.0


class Season(NamedTuple):
    """`multiplier` per hour of the week, (168,), and the sd of its log."""

    multiplier: Floats
    log_sd: Floats


def hour_of_week(at_s: Floats) -> Ints:
    """Hour of the week (0 is Monday 00:00 UTC) of seconds since the epoch.

    Examples
    --------
    >>> int(hour_of_week(np.array(1_713_279_600.0)))  # Tuesday 16 April 2024, 15:00
    39
    """
    hours: Ints = (np.floor(at_s / 3600.0).astype(np.int64) + _MONDAY_HOUR) % HOURS
    return hours


def latency_season(
    n: Floats, mean_log: Floats, n_weeks: Floats, params: SeasonParams | None = None
) -> Season:
    """Multipliers of latency.

    Parameters
    ----------
    n : ndarray, (168,)
        Calls seen in each hour of the week.
    mean_log : ndarray, (168,)
        Their mean log latency less the offer's overall mean log latency; any where `n` is 0.
    n_weeks : ndarray, (168,)
        In how many different weeks they were seen.
    """
    p = params or SeasonParams()
    n, mean_log, known = _clean(n, mean_log)
    weeks = np.clip(np.nan_to_num(n_weeks, nan=1.0), 1.0, np.maximum(n, 1.0))
    var = p.call_log_sd**2 / np.maximum(n, 1.0) + p.week_log_sd**2 / weeks
    return _season(mean_log, np.where(known, var, _UNKNOWN_VAR), n, p)


def error_season(failed: Floats, tried: Floats, params: SeasonParams | None = None) -> Season:
    """Multipliers of the odds of failure, from counts per hour of the week, each (168,)."""
    p = params or SeasonParams()
    tried, failed, known = _clean(tried, failed)
    failed = np.clip(failed, 0.0, tried)
    overall = (failed.sum() + 0.5) / (tried.sum() + 1.0)
    worth = 2.0
    bad = failed + worth * overall
    good = tried - failed + worth * (1.0 - overall)
    log_odds = np.log(bad / good) - np.log(overall / (1.0 - overall))
    var = 1.0 / bad + 1.0 / good + p.week_log_sd**2
    return _season(log_odds, np.where(known, var, _UNKNOWN_VAR), tried, p)


def _clean(n: Floats, values: Floats) -> tuple[Floats, Floats, Bools]:
    if n.shape != (HOURS,) or values.shape != (HOURS,):
        raise ValueError(f"expected {HOURS} hours, got shapes {n.shape} and {values.shape}")
    known = np.isfinite(n) & (n > 0) & np.isfinite(values)
    return np.where(known, n, 0.0), np.where(known, values, 0.0), known


def _season(y: Floats, var: Floats, weight: Floats, p: SeasonParams) -> Season:
    if not weight.sum() > 0:
        return Season(np.ones(HOURS), np.zeros(HOURS))
    kernel = _kernel(p)
    peaks = _local_var(y, var, p)
    best: tuple[float, Floats, Floats] | None = None
    for scale in _SCALES:
        local = np.sqrt(scale**2 + peaks)
        cov = local[:, None] * kernel * local
        factor = cho_factor(cov + np.diag(var))
        pull = cho_solve(factor, y)
        evidence = -0.5 * float(y @ pull) - float(np.log(np.diag(factor[0])).sum())
        if best is None or evidence > best[0]:
            spread = np.diag(cov) - np.einsum("ij,ji->i", cov, cho_solve(factor, cov))
            best = evidence, cov @ pull, np.sqrt(np.maximum(spread, 0.0))
    assert best is not None
    effect = best[1] - np.average(best[1], weights=weight)
    limit = np.log(p.max_multiplier)
    return Season(np.exp(np.clip(effect, -limit, limit)), best[2])


def _local_var(y: Floats, var: Floats, p: SeasonParams) -> Floats:
    """Signal variance beyond doubt around each hour, so that a lone peak is not ironed out."""
    near = _near(p)
    excess = np.where(var < _UNKNOWN_VAR, y * y - _DOUBT * var, 0.0)
    sure: Floats = np.maximum(near @ excess / (near @ (var < _UNKNOWN_VAR) + 1e-9), 0.0)
    return sure


def _near(p: SeasonParams) -> Floats:
    hours = np.arange(HOURS)
    apart = np.abs(hours[:, None] - hours)
    near: Floats = np.exp(-0.5 * (np.minimum(apart, HOURS - apart) / p.neighbour_hours) ** 2)
    return near


def _kernel(p: SeasonParams) -> Floats:
    """Correlation of the hours of the week, (168, 168), on the circle."""
    hours = np.arange(HOURS)
    apart = np.abs(hours[:, None] - hours)
    of_day = np.minimum(apart % 24, 24 - apart % 24)
    daily = np.exp(-0.5 * (of_day / p.neighbour_hours) ** 2)
    kernel: Floats = (1.0 - p.daily_share) * _near(p) + p.daily_share * daily
    return kernel
