"""Hour-of-week cells out of the rollup, for the estimator of seasons (who peaks when?).

Read hourly. Only sums leave the database, offers × 168 of them; shrinkage and judgement are the
estimator's (`bidding/estimators/seasons.py`). Older weeks weigh less, by a half-life.
"""

from __future__ import annotations

from datetime import date
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analytics.store import Store

HOURS_OF_WEEK: Final = 168
_E6: Final = 1e6
_CELLS: Final = """
WITH pow(0.5, dateDiff('day', week, {now:Date}) / 7 / {half_life_weeks:Float64}) AS weight
SELECT
    offer,
    hour_of_week,
    sum(weight * n) AS n,
    sum(weight * n_failed) AS n_failed,
    sum(weight * n_ttft) AS n_ttft,
    sum(weight * log_ttft_sum_e6) AS log_ttft_sum_e6,
    sum(weight * log_ttft_square_sum_e6) AS log_ttft_square_sum_e6,
    uniqExactIf(c.week, c.n_ttft > 0) AS n_weeks
FROM {raw:Identifier}.offer_hours_of_week AS c
WHERE week >= {oldest:Date} AND week <= {now:Date}
GROUP BY offer, hour_of_week
ORDER BY offer, hour_of_week
"""


class SeasonCells(NamedTuple):
    """Weighted sums by offer and hour of the week; every array is float64, (n_offers, 168).

    Attributes
    ----------
    offers : their ids, one a row
    n, n_failed : attempts, and failures of the offer's making
    n_ttft : attempts with a first token
    log_ttft_mean : mean of ln(ms) of time to first token; NaN in an empty cell
    log_ttft_var : its variance within the cell; NaN in an empty cell
    n_weeks : different weeks with a first token
    """

    offers: list[str]
    n: NDArray[np.float64]
    n_failed: NDArray[np.float64]
    n_ttft: NDArray[np.float64]
    log_ttft_mean: NDArray[np.float64]
    log_ttft_var: NDArray[np.float64]
    n_weeks: NDArray[np.float64]

    @property
    def log_ttft_residual(self) -> NDArray[np.float64]:
        """How a cell's mean differs from its offer's mean over the week; NaN in an empty cell.

        The offer's mean is that of its cells, each hour counting alike, so that a busy hour
        does not make itself look normal.
        """
        has = ~np.isnan(self.log_ttft_mean)
        filled = np.where(has, self.log_ttft_mean, 0.0)
        mean = filled.sum(axis=1) / np.maximum(has.sum(axis=1), 1)
        residual: NDArray[np.float64] = self.log_ttft_mean - mean[:, np.newaxis]
        return residual


async def season_cells(
    store: Store, *, now: date, oldest: date, half_life_weeks: float = 6.0
) -> SeasonCells:
    """Every offer's cells of the weeks from `oldest` to `now`.

    Parameters
    ----------
    store : Store, with the writer's account
    now : today; the week it lies in counts nearly whole
    oldest : Monday of the first week to count
    half_life_weeks : age at which a week counts half

    Raises
    ------
    StoreUnavailable, StoreRejected
    """
    answer = await store.query(
        _CELLS, {"now": now, "oldest": oldest, "half_life_weeks": half_life_weeks}
    )
    offers = sorted({row[0] for row in answer.rows})
    row_of = {offer: i for i, offer in enumerate(offers)}
    sums = np.zeros((6, len(offers), HOURS_OF_WEEK))
    for offer, hour, *values in answer.rows:
        sums[:, row_of[offer], hour] = values
    n, n_failed, n_ttft, log_sum, square_sum, n_weeks = sums
    counted = np.where(n_ttft > 0, n_ttft, np.nan)
    mean = log_sum / _E6 / counted
    return SeasonCells(
        offers=offers,
        n=n,
        n_failed=n_failed,
        n_ttft=n_ttft,
        log_ttft_mean=mean,
        log_ttft_var=np.maximum(square_sum / _E6 / counted - mean**2, 0.0),
        n_weeks=n_weeks,
    )
