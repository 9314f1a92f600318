"""Hour-of-week multipliers laid over quotes when a view is made: what is usual at this hour.

A quote is mostly what an offer was like in the hour before it was made, and so holds that
hour's season already. What is laid over is the difference between the season now and the season
the quote remembers: nothing for a quote of this minute in an even hour, something when the hour
turns or when nobody has called for half a day. Between the middles of hours it is interpolated,
so nothing jumps at the stroke of an hour.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from bidding.estimators.decay import Floats, Ints
from bidding.estimators.seasons import HOURS, Season

MEMORY_HALF_LIFE_H: Final = 1.0
_MEMORY_H: Final = 12
_MONDAY_MIDDLE_H: Final = 71.5
"""Middle of the hour from which the week's hours are counted, in hours before the epoch."""


class SeasonColumns:
    """All offers' seasons: log multipliers of TTFT and of failure odds, (2, n_offers, 168)."""

    def __init__(self, n_offers: int) -> None:
        self._n_offers = n_offers
        self._logs: Floats | None = None
        self._remembered: Floats | None = None

    def put(self, row: int, latency: Season, errors: Season) -> bool:
        """Replace an offer's seasons; False when a multiplier is not a positive number."""
        logs = []
        for season in (latency, errors):
            multiplier = np.asarray(season.multiplier, dtype=np.float64)
            if multiplier.shape != (HOURS,) or not np.isfinite(multiplier).all():
                return False
            if not (multiplier > 0.0).all():
                return False
            logs.append(np.log(multiplier))
        if self._logs is None:
            self._logs = np.zeros((2, self._n_offers, HOURS))
            self._remembered = np.zeros((2, self._n_offers, HOURS))
        assert self._remembered is not None
        weight = 0.5 ** (np.arange(_MEMORY_H) / MEMORY_HALF_LIFE_H)
        weight /= weight.sum()
        for which, log in enumerate(logs):
            self._logs[which, row] = log
            self._remembered[which, row] = sum(
                w * np.roll(log, age) for age, w in enumerate(weight.tolist())
            )
        return True

    def apply(self, quotes: dict[str, Floats], at_us: int, quoted_at_us: Ints) -> None:
        """Bring `ttft_log_ms` and `fail_share` of quotes made at `quoted_at_us` to `at_us`.

        Offers never quoted are left alone.
        """
        if self._logs is None or self._remembered is None:
            return
        quoted = quoted_at_us > 0
        now = _at(self._logs, np.full(self._n_offers, at_us))
        moved = np.where(quoted, now - _at(self._remembered, quoted_at_us), 0.0)
        quotes["ttft_log_ms"] += moved[0]
        share = quotes["fail_share"]
        odds = share * np.exp(moved[1])
        quotes["fail_share"] = np.where(moved[1] != 0.0, odds / (1.0 - share + odds), share)


def _at(logs: Floats, at_us: Ints) -> Floats:
    """Each offer's log multipliers at its own time, (2, n_offers)."""
    hours = at_us * (1e-6 / 3600.0) + _MONDAY_MIDDLE_H
    before = np.floor(hours)
    share = hours - before
    first = before.astype(np.int64) % HOURS
    rows = np.arange(logs.shape[1])
    found: Floats = (1.0 - share) * logs[:, rows, first]
    found += share * logs[:, rows, (first + 1) % HOURS]
    return found
