"""Hour-of-week multipliers taken out of what is measured and laid over what is quoted.

Times to first token are divided by their hour's multiplier when they are folded, so a quote says
what an offer takes in an even hour, and the view multiplies by the hour it is made for: an offer
that is slow on Tuesdays at three is quoted slow from the first second, and at five it is itself
again, whatever was measured in between. An hour's multiplier holds from its first second; it is
reached on a ramp over the last minutes of the hour before, so that nothing jumps.

Failures cannot be divided. Their quote is mostly what the hour before was like, so what is laid
over is the difference between the season now and the season the quote remembers.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from bidding.estimators.decay import Floats, Ints
from bidding.estimators.seasons import HOURS, Season

RAMP_S: Final = 300.0
"""How long before an hour its multiplier is gone towards."""
MEMORY_HALF_LIFE_H: Final = 1.0
_MEMORY_H: Final = 12
_MONDAY_HOUR: Final = 72
_MONDAY_MIDDLE_H: Final = 71.5
"""Middle of the hour from which the week's hours are counted, in hours before the epoch."""


def log_at(logs: Floats, rows: Ints, at_s: Floats) -> Floats:
    """Log multipliers of `rows` of `logs`, (n_rows, 168), at seconds since the epoch, each (n,).

    Examples
    --------
    >>> logs = np.zeros((1, 168))
    >>> logs[0, 39] = 1.0  # Tuesdays, 15:00 to 16:00
    >>> three = 1_713_279_600.0  # Tuesday 16 April 2024, 15:00
    >>> log_at(logs, np.zeros(4, int), three + np.array([-301.0, -150.0, 0.0, 3600.0])).tolist()
    [0.0, 0.5, 1.0, 0.0]
    """
    hours = at_s / 3600.0 + _MONDAY_HOUR
    before = np.floor(hours)
    share = np.clip(((hours - before) * 3600.0 - (3600.0 - RAMP_S)) / RAMP_S, 0.0, 1.0)
    first = before.astype(np.int64) % HOURS
    found: Floats = (1.0 - share) * logs[rows, first] + share * logs[rows, (first + 1) % HOURS]
    return found


def is_sane_season(season: Season) -> bool:
    """Whether it has a positive multiplier for every hour of the week."""
    multiplier = np.asarray(season.multiplier, dtype=np.float64)
    if multiplier.shape != (HOURS,) or not np.isfinite(multiplier).all():
        return False
    return bool((multiplier > 0.0).all())


class SeasonColumns:
    """All offers' seasons: log multipliers of TTFT and of failure odds, each (n_offers, 168)."""

    def __init__(self, n_offers: int) -> None:
        self._n_offers = n_offers
        self._known = False
        self._latency: Floats = np.zeros((0, HOURS))
        self._errors: Floats = np.zeros((0, HOURS))
        self._remembered: Floats = np.zeros((0, HOURS))

    def put(self, row: int, latency: Season, errors: Season) -> bool:
        """Replace an offer's seasons; False when a multiplier is not a positive number."""
        if not (is_sane_season(latency) and is_sane_season(errors)):
            return False
        if not self._known:
            self._known = True
            shape = (self._n_offers, HOURS)
            self._latency, self._errors = np.zeros(shape), np.zeros(shape)
            self._remembered = np.zeros(shape)
        weight = 0.5 ** (np.arange(_MEMORY_H) / MEMORY_HALF_LIFE_H)
        weight /= weight.sum()
        self._latency[row] = np.log(np.asarray(latency.multiplier, dtype=np.float64))
        log = np.log(np.asarray(errors.multiplier, dtype=np.float64))
        self._errors[row] = log
        self._remembered[row] = sum(w * np.roll(log, age) for age, w in enumerate(weight.tolist()))
        return True

    def apply(self, quotes: dict[str, Floats], at_us: int, quoted_at_us: Ints) -> None:
        """Bring `ttft_log_ms` and `fail_share` of quotes made at `quoted_at_us` to `at_us`.

        Offers never quoted are left alone.
        """
        if not self._known:
            return
        rows = np.arange(self._n_offers)
        now_s = np.full(self._n_offers, at_us * 1e-6)
        quoted = quoted_at_us > 0
        quotes["ttft_log_ms"] += np.where(quoted, log_at(self._latency, rows, now_s), 0.0)
        moved = log_at(self._errors, rows, now_s) - _between(self._remembered, rows, quoted_at_us)
        moved = np.where(quoted, moved, 0.0)
        share = quotes["fail_share"]
        odds = share * np.exp(moved)
        quotes["fail_share"] = np.where(moved != 0.0, odds / (1.0 - share + odds), share)


def _between(logs: Floats, rows: Ints, at_us: Ints) -> Floats:
    """Values of `logs` at each row's own time, interpolated between the middles of hours."""
    hours = at_us * (1e-6 / 3600.0) + _MONDAY_MIDDLE_H
    before = np.floor(hours)
    share = hours - before
    first = before.astype(np.int64) % HOURS
    found: Floats = (1.0 - share) * logs[rows, first] + share * logs[rows, (first + 1) % HOURS]
    return found
