"""Two arms compared while they run: a confidence sequence, valid whenever one looks.

An interval for a fixed sample is wrong sooner or later for whoever looks at it every second. A
normal-mixture confidence sequence holds at all times at once with its stated probability, so a
trial may be watched continuously and stopped the moment an arm is surely worse.

The difference of the arms' means is taken over all requests of both arms; its variance is
estimated, so the guarantee is asymptotic, and nothing is said before each arm has `LEAST_OF_ARM`.

References
----------
Howard, Ramdas, McAuliffe, Sekhon: Time-uniform, nonparametric, nonasymptotic confidence sequences,
Annals of Statistics 49(2), 2021 (one-sided normal mixture, proposition 5). Waudby-Smith, Arbour,
Sinha, Kennedy, Ramdas: Time-uniform central limit theory and asymptotic confidence sequences,
Annals of Statistics 52(6), 2024.
"""

from __future__ import annotations

import math
from typing import Final

from msgspec import Struct

LEAST_OF_ARM: Final = 50
N_TIGHTEST: Final = 1_000.0
"""Requests of the smaller arm at which the sequence is tightest."""
_RECENCY: Final = 3.0
_RECENT_SPREAD: Final = (_RECENCY + 1.0) ** 2 / (2.0 * _RECENCY + 1.0)


class Tally(Struct):
    """One outcome of one arm: how many, their mean, and the sum of squares around it (Welford)."""

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def fold(self, value: float) -> None:
        """Take in one outcome; what is not finite is passed over."""
        if not math.isfinite(value):
            return
        self.n += 1
        before = value - self.mean
        self.mean += before / self.n
        self.squares += before * (value - self.mean)


class Recent(Struct):
    """The mean of one outcome of late: the i-th outcome weighs like i to the power of `_RECENCY`.

    So the newest third of all there are makes four fifths of it, however many there are, and
    nothing needs to be kept. Of n outcomes it is as sure as a plain mean of 0.44 n.

    References
    ----------
    Shamir, Zhang: Stochastic gradient descent for non-smooth optimization, ICML 2013
    (polynomial-decay averaging).
    """

    n: int = 0
    mean: float = 0.0
    square: float = 0.0

    def fold(self, value: float) -> None:
        """Take in one outcome; what is not finite is passed over."""
        if not math.isfinite(value):
            return
        self.n += 1
        weight = (_RECENCY + 1.0) / (self.n + _RECENCY)
        self.mean += weight * (value - self.mean)
        self.square += weight * (value * value - self.square)

    def least(self, sd: float) -> float:
        """The mean less so many of its standard deviations; below everything while there are
        fewer than `LEAST_OF_ARM` outcomes.
        """
        if self.n < LEAST_OF_ARM:
            return -math.inf
        variance = max(self.square - self.mean * self.mean, 0.0) * _RECENT_SPREAD / self.n
        return self.mean - sd * math.sqrt(variance)


class Excess(Struct, frozen=True):
    """By how much one arm's mean exceeds another's, and its lower bound, valid at any time."""

    value: float
    least: float


def excess(trial: Tally, control: Tally, alpha: float) -> Excess | None:
    """How much larger the trial's mean is than the control's, at least, with probability 1 − alpha.

    Returns
    -------
    Excess or None
        None while an arm has fewer than `LEAST_OF_ARM` outcomes.
    """
    if min(trial.n, control.n) < LEAST_OF_ARM:
        return None
    value = trial.mean - control.mean
    n = trial.n + control.n
    variance = _of_mean(trial) + _of_mean(control)
    intrinsic = n * n * variance
    tightest = intrinsic * N_TIGHTEST / min(trial.n, control.n)
    if intrinsic <= 0.0:
        return Excess(value, value)
    return Excess(value, value - boundary(intrinsic, alpha, tightest) / n)


def boundary(intrinsic: float, alpha: float, tightest: float) -> float:
    """How far a sum may wander upwards by when its variance is `intrinsic`, ever, but for `alpha`.

    Parameters
    ----------
    tightest : intrinsic variance at which the boundary is tightest
    """
    log_odds = math.log(1.0 / (2.0 * alpha))
    rho = tightest / (2.0 * log_odds + math.log(1.0 + 2.0 * log_odds))
    spread = math.sqrt((intrinsic + rho) / rho) / (2.0 * alpha)
    return math.sqrt(2.0 * (intrinsic + rho) * math.log(spread + 1.0))


def _of_mean(tally: Tally) -> float:
    """Variance of the arm's mean; one pseudo-outcome half a unit off keeps it from being zero."""
    return (tally.squares + 0.25) / (tally.n * tally.n)
