"""What a quote, a calibration or a skill may not be, whoever sent it.

The book refuses such facts and keeps what it had, so that no arithmetic downstream meets a
number that is none, a negative spread or a share above one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from bidding.estimators.quality_skill import TaskSkill
from bidding.quote import Calibration, Quote
from bidding.skill import Skill

MOST_LOG_MS: Final = 30.0
MOST_SLOPE: Final = 100.0
MOST_LOGIT: Final = 1e3
MOST_PRICE_NUSD: Final = 1e15


def is_sane_quote(quote: Quote) -> bool:
    """Whether every number of the quote can be."""
    return (
        all(abs(log_ms) <= MOST_LOG_MS for log_ms in (quote.ttft_log_ms, quote.tpot_log_ms))
        and all(0.0 < sd <= MOST_LOG_MS for sd in (quote.ttft_log_sd, quote.tpot_log_sd))
        and all(0.0 <= n < math.inf for n in (quote.ttft_n, quote.tpot_n, quote.fail_n))
        and all(0.0 <= share <= 1.0 for share in (quote.fail_share, quote.capacity_share))
        and all(
            abs(slope) <= MOST_SLOPE
            for slope in (
                quote.ttft_per_log_input,
                quote.ttft_per_log_inflight,
                quote.tpot_per_log_output,
                quote.tpot_per_log_inflight,
            )
        )
    )


def is_sane_calibration(calibration: Calibration) -> bool:
    """Whether it tabulates distribution functions: z rising, shares in 0..1 that do not fall."""
    z, *shares = (calibration.z_grid, calibration.ttft_cdf, calibration.total_cdf)
    if len(z) < 2 or any(len(share) != len(z) for share in shares):
        return False
    grid, cdf = np.array(z, dtype=np.float64), np.array(shares, dtype=np.float64)
    if not (np.isfinite(grid).all() and np.isfinite(cdf).all()):
        return False
    rising = bool((np.diff(grid) > 0.0).all() and (np.diff(cdf, axis=1) >= 0.0).all())
    return rising and float(cdf.min()) >= 0.0 and float(cdf.max()) <= 1.0


def is_sane_skill(skill: Skill) -> bool:
    """Whether its lists fit together and its numbers can be; lengths not known may be NaN."""
    n = len(skill.models)
    return (
        _is_sane_quality(skill.quality)
        and len(skill.out_log_tokens) == n
        and len(skill.out_log_sd) == n
        and all(not sd < 0.0 for sd in skill.out_log_sd)
        and all(
            0.0 <= price <= MOST_PRICE_NUSD
            for c in skill.classes
            for price in (c.quality_price_nusd, c.punctuality_price_nusd)
        )
    )


def _is_sane_quality(quality: TaskSkill) -> bool:
    n, n_basis, n_features = len(quality.models), len(quality.basis), len(quality.centre)
    return (
        len(quality.theta) == n
        and len(quality.theta_sd) == n
        and all(abs(theta) <= MOST_LOGIT for theta in quality.theta)
        and all(0.0 <= sd <= MOST_LOGIT for sd in quality.theta_sd)
        and all(
            0.0 <= sd <= MOST_LOGIT
            for sd in (quality.level_sd, quality.prompt_sd, quality.novelty_sd)
        )
        and len(quality.inv_scale) == n_features
        and _is_table(quality.basis, n_basis, n_features)
        and _is_table(quality.spread, len(quality.spread), n_features)
        and _is_table(quality.loadings, n if n_basis else len(quality.loadings), n_basis)
        and all(math.isfinite(x) for x in (*quality.centre, *quality.inv_scale))
    )


def _is_table(rows: Sequence[Sequence[float]], n_rows: int, n_columns: int) -> bool:
    """Whether `rows` are `n_rows` lists of `n_columns` finite numbers."""
    if len(rows) != n_rows:
        return False
    return all(len(row) == n_columns and _all_finite(row) for row in rows)


def _all_finite(numbers: Iterable[float]) -> bool:
    return all(math.isfinite(number) for number in numbers)
