"""What a status page's word is worth against what we measure ourselves: two hypotheses an offer.

A report that names an offer is true for it or not. If it is, the offer fails with a share around
the one that its severity suggests, unknown (a Beta law); if not, it goes on failing as is usual
for it. Attempts since the report decide between the two by Bayes' rule, and where the report is
true they also say how bad it is. So nothing weighs against measurements but a handful of
imaginary attempts, whatever the traffic: an offer that answers clears itself, one that fails is
believed to, and an offer that nobody tries stays as the page says.

Offers that one incident names are in it together, as a rule: those whose attempts have decided
raise or lower the chance that it is true of the others, before these are tried. That moves only
where an offer starts from, so its own attempts overrule its kin as they overrule the page.

What was measured counts less as it ages and beyond a number of attempts, so that an incident that
turns is followed both ways. Rows without a report cost nothing.

References
----------
Kass, Raftery: Bayes factors, JASA 1995, section 3 (conjugate marginal likelihoods).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from scipy.special import betaln, expit, logit

from bidding.estimators.decay import Bools, Floats, Ints, grown

_LEAST_SHARE: Final = 1e-3
_KIN_N: Final = 1.0
"""Offers whose attempts have decided that together weigh as much as the page's word."""


class Report(NamedTuple):
    """A status page's word on an offer.

    `id` tells incidents apart (any number but 0; when it began will do); `share` is the failure
    share it suggests, `chance` how likely it concerns the offer, both in 0..1.
    """

    id: float
    share: float
    chance: float


class Reports:
    """The report on each row, if any, and the attempts since.

    Parameters
    ----------
    weight_n : attempts that the suggested share weighs once the report is believed
    memory_n : most attempts since the report that count
    half_life_s : age at which an attempt counts half
    """

    N_STATE: Final = 4

    def __init__(self, *, weight_n: float, memory_n: float, half_life_s: float) -> None:
        self.steer(weight_n=weight_n, memory_n=memory_n, half_life_s=half_life_s)
        self.id: Floats = np.zeros(0)
        self.share: Floats = np.zeros(0)
        self.chance: Floats = np.zeros(0)
        self._failed: Floats = np.zeros(0)
        self._tried: Floats = np.zeros(0)
        self._at_s: Floats = np.zeros(0)

    def steer(self, *, weight_n: float, memory_n: float, half_life_s: float) -> None:
        """Judge reports by other numbers from now on."""
        self._weight_n = max(weight_n, 0.1)
        self._memory_n = memory_n
        self._half_life_s = half_life_s

    def grow(self, n_rows: int) -> None:
        for name in ("id", "share", "chance", "_failed", "_tried", "_at_s"):
            setattr(self, name, grown(getattr(self, name), n_rows))

    @property
    def open(self) -> Bools:
        """Rows with a report in force."""
        return (self.chance > 0.0) & (self.share > 0.0)

    def put(self, row: int, report: Report | None) -> bool:
        """Take a report, or that there is none any more; whether that is news.

        Attempts since go on counting while it is the same incident.
        """
        if report is None:
            had = bool(self.id[row] != 0.0)
            self._begin(row, 0.0)
            self.share[row] = self.chance[row] = 0.0
            return had
        share, chance = (float(np.clip(np.nan_to_num(x), 0.0, 1.0)) for x in report[1:])
        before = (self.id[row], self.share[row], self.chance[row])
        if self.id[row] != report.id:
            self._begin(row, report.id)
        self.share[row], self.chance[row] = share, chance
        return before != (report.id, share, chance)

    def kin(self, row: Ints) -> Ints:
        """Rows whose report is of an incident that names one of `row` as well, `row` included."""
        if not len(self.id) or not self.open.any():
            return np.zeros(0, dtype=np.int64)
        named = self.id[row]
        found: Ints = np.flatnonzero(self.open & np.isin(self.id, named[named != 0.0]))
        return found

    def count(self, row: Ints, tau_s: Floats, failed: Bools, weight: Floats) -> None:
        """Attempts in log order within each row, at the row's own times."""
        known = self.id[row] != 0.0
        if not known.any():
            return
        columns = (row[known], tau_s[known], failed[known], weight[known])
        for r, at_s, bad, w in zip(*(c.tolist() for c in columns), strict=True):
            if w <= 0.0:
                continue
            aged = self._aged(self._at_s[r], at_s)
            tried = self._tried[r] * aged + w
            failures = self._failed[r] * aged + w * bad
            kept = min(1.0, self._memory_n / tried)
            self._tried[r], self._failed[r] = tried * kept, failures * kept
            self._at_s[r] = max(self._at_s[r], at_s)

    def expected(self, tau_s: Floats, usual: Floats) -> Floats:
        """The failure share to expect before recent attempts are looked at.

        Parameters
        ----------
        tau_s : ndarray, (n_rows,), each row's time now
        usual : ndarray, (n_rows,), the share that is usual for the offer
        """
        rows = np.flatnonzero(self.open)
        if not len(rows):
            return usual
        base = np.clip(usual[rows], _LEAST_SHARE, 1.0 - _LEAST_SHARE)
        share = np.clip(np.maximum(self.share[rows], base), _LEAST_SHARE, 1.0 - _LEAST_SHARE)
        age_s = np.maximum(tau_s[rows] - self._at_s[rows], 0.0)
        aged = np.exp2(-np.minimum(age_s / self._half_life_s, 1000.0))
        failed = self._failed[rows] * aged
        fine = np.maximum(self._tried[rows] - self._failed[rows], 0.0) * aged
        a, b = self._weight_n * share, self._weight_n * (1.0 - share)
        evidence = betaln(a + failed, b + fine) - betaln(a, b)
        evidence -= failed * np.log(base) + fine * np.log1p(-base)
        chance = np.clip(kin_chance(self.chance[rows], evidence, self.id[rows]), 1e-6, 1.0 - 1e-6)
        true = expit(logit(chance) + np.clip(evidence, -50.0, 50.0))
        told = (a + failed) / (self._weight_n + failed + fine)
        found: Floats = usual.copy()
        found[rows] = (1.0 - true) * usual[rows] + true * told
        return found

    def state(self, row: int) -> list[float]:
        """The row's evidence; the report itself is told again by the feed."""
        columns = (self.id, self._failed, self._tried, self._at_s)
        return [float(column[row]) for column in columns]

    def restore(self, row: int, state: Sequence[float]) -> None:
        self.id[row], self._failed[row], self._tried[row], self._at_s[row] = state

    def _begin(self, row: int, report_id: float) -> None:
        self.id[row] = report_id
        self._failed[row] = self._tried[row] = self._at_s[row] = 0.0

    def _aged(self, then_s: float, now_s: float) -> float:
        return float(2.0 ** -min(max(now_s - then_s, 0.0) / self._half_life_s, 1000.0))


def kin_chance(chance: Floats, evidence: Floats, incident: Floats) -> Floats:
    """The chance that a report is true of each offer, by what the others it names have shown.

    The share of an incident's offers that it is true of is unknown, a Beta law around `chance`;
    an offer counts in it by how far its attempts have decided, tanh of half its log Bayes factor.

    Parameters
    ----------
    chance : ndarray, (n,), by the page's word alone
    evidence : ndarray, (n,), log Bayes factor of each offer's own attempts
    incident : ndarray, (n,), offers of one number are of one incident

    Examples
    --------
    >>> kin_chance(np.full(3, 0.25), np.array([50.0, 0.0, 0.0]), np.array([7.0, 7.0, 8.0])).tolist()
    [0.25, 0.625, 0.25]
    """
    _, group = np.unique(incident, return_inverse=True)
    decided = np.tanh(np.clip(evidence, -50.0, 50.0) / 2.0)
    yes, all_of = np.maximum(decided, 0.0), np.abs(decided)
    others_yes = np.bincount(group, weights=yes)[group] - yes
    others = np.bincount(group, weights=all_of)[group] - all_of
    found: Floats = (_KIN_N * chance + others_yes) / (_KIN_N + others)
    return found
