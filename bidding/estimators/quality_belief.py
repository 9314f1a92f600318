"""The belief about one task: shared difficulty, each model's standing, and what a label changes.

    logit P(good | model m, prompt f) = phi·w + g·beta_m,   phi = (1, f),  g = (1, P f)

`w` is shared by all models: the task's level and what makes its prompts hard. `beta_m` is the
model's own standing and its loadings on a few directions. Both are normal; a label moves them
by one step to the mode along the only direction it speaks of (an extended Kalman filter whose
scalar update is solved exactly, so that a wide prior and a sure label cannot overshoot).

Labels tell of level and standing together, seldom of either: what a label of one model teaches of
the level must not move what was measured of another. So each `beta_m` is kept as a law given the
level, `beta_m | level ~ N(own_m + tied_m (level − its mean), own_cov_m)`: given the level, models
say nothing of each other, so memory stays constant per model. Covariance with the difficulty's
weights is not kept.

Models drift: a model's variance grows with the requests the task has seen since its last label,
and at once when its labels run beside the belief (detector on the moving average of
outcome − p). Neither ever exceeds the variance it was born with.

References
----------
West, Harrison, Migon (1985), Dynamic generalized linear models, JASA 80.
Bishop (2006), PRML, section 4.5 (Bayesian logistic regression).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bidding.errors import BadState
from bidding.estimators.quality_prior import Standing
from bidding.features import GROUP_NORM, N_COUNTS, N_FEATURES

Floats = NDArray[np.float64]

VERSION: Final = 2.0
RANK: Final = 3
WEIGHT_SD: Final = 0.3
"""Prior of the shared weights, features in groups of mean square 4."""

WEIGHT_APART_SD: Final = 0.1
"""How far a new task's weights lie from those of other tasks."""

LOADING_SD: Final = 0.3
DRIFT_PER_REQUEST: Final = 2e-6
DETECTOR_STEP: Final = 0.05
DETECTOR_ERRORS: Final = 3.0
DETECTOR_LABELS: Final = 20.0
SHOCK_VAR: Final = 0.16
"""Variance added to a model's standing when the detector fires: 0.4 squared."""

_ORDINARY_VAR: Final = 3 * GROUP_NORM**2 / N_FEATURES
_MEMORY: Final = 2000.0
_MAX_LOGIT: Final = 12.0
_MIN_VAR: Final = 1e-8
_MAX_STEPS: Final = 100
_STEP_TOLERANCE: Final = 1e-10
_UPPER_W: Final = np.triu_indices(1 + N_FEATURES)
_UPPER_M: Final = np.triu_indices(1 + RANK)
_N_MODEL: Final = 7 + 2 * (1 + RANK) + len(_UPPER_M[0])


class TaskBelief:
    """Means and covariances of one task; rows are its models, in order of first mention.

    Attributes
    ----------
    weights, weights_cov : (1 + N_FEATURES,) and its square: level first, then difficulty
    projection : (RANK, N_FEATURES)
    own, own_cov : (n_models, 1 + RANK) and (n_models, 1 + RANK, 1 + RANK)
        Mean, and covariance were the level known.
    tied : (n_models, 1 + RANK)
        How `own` follows the level: 0 for a model never judged, near (−1, 0, …) for one that is
        known well.
    n_requests : requests the labels stand for
    """

    def __init__(self, level: Standing) -> None:
        self.models: list[str] = []
        self.row_of: dict[str, int] = {}
        self.at_s = 0.0
        self.n_labels = 0.0
        self.n_requests = 0.0
        self.n_prompts = 0.0
        self.inverse_share = 0.0
        self.level_prior = level
        self.centre: Floats = np.zeros(N_FEATURES)
        self.spread: Floats = np.full(N_FEATURES, _ORDINARY_VAR)
        self.weights: Floats = np.zeros(1 + N_FEATURES)
        self.weights[0] = level.theta
        self.weights_cov: Floats = np.diag([level.sd**2] + [WEIGHT_SD**2] * N_FEATURES)
        self.projection: Floats = first_text_directions()
        self.own: Floats = np.zeros((0, 1 + RANK))
        self.own_cov: Floats = np.zeros((0, 1 + RANK, 1 + RANK))
        self.tied: Floats = np.zeros((0, 1 + RANK))
        self.model_columns: Floats = np.zeros((0, 7))

    def row(self, model: str) -> int | None:
        """Where the model is, if it is known here."""
        return self.row_of.get(model)

    def add_model(self, model: str, standing: Standing) -> int:
        """A new row, believed to stand at `standing` relative to the level."""
        self.row_of[model] = len(self.models)
        self.models.append(model)
        own = np.zeros((1, 1 + RANK))
        own[0, 0] = standing.theta
        cov = np.diag([standing.sd**2] + [LOADING_SD**2] * RANK)[None]
        columns = np.array([[standing.theta, standing.sd**2, self.n_requests, 0.0, 0.0, 0.0, 0.0]])
        self.own = np.concatenate([self.own, own])
        self.own_cov = np.concatenate([self.own_cov, cov])
        self.tied = np.concatenate([self.tied, np.zeros((1, 1 + RANK))])
        self.model_columns = np.concatenate([self.model_columns, columns])
        return len(self.models) - 1

    def take_difficulty(self, others: Sequence[TaskBelief]) -> None:
        """Start from what makes prompts hard in other tasks, their mean; the level stays as it
        was, at those tasks' ordinary prompt. Before anything is folded.
        """
        if not others:
            return
        level = float(self.weights[0])
        self.centre = np.mean([other.centre for other in others], axis=0)
        self.weights[1:] = np.mean([other.weights[1:] for other in others], axis=0)
        self.weights[0] = level - float(self.weights[1:] @ self.centre)
        known = np.mean([other.weights_cov[1:, 1:] for other in others], axis=0)
        self.weights_cov[1:, 1:] = known + WEIGHT_APART_SD**2 * np.eye(N_FEATURES)
        shift = np.eye(1 + N_FEATURES)
        shift[0, 1:] = -self.centre
        moved = shift @ self.weights_cov @ shift.T
        self.weights_cov = 0.5 * (moved + moved.T)

    def see_prompt(self, features: Floats) -> None:
        """Move the picture of the task's ordinary prompt."""
        self.n_prompts += 1.0
        step = 1.0 / min(self.n_prompts + 1.0, _MEMORY)
        away = features - self.centre
        self.centre = self.centre + step * away
        self.spread = self.spread + step * (away * away - self.spread)

    def p_of(self, row: int, features: Floats | None) -> float:
        """P(good) as believed now."""
        phi, g = self._design(features)
        mean, var, _, _ = self._predicted(row, phi, g)
        return _sigmoid(mean / math.sqrt(1.0 + math.pi / 8.0 * var))

    def fold(self, row: int, outcome: float, weight: float, features: Floats | None) -> None:
        """Take in a label: `outcome` in 0..1, `weight` > 0 in units of one sure label."""
        self._drift(row)
        phi, g = self._design(features)
        mean, var, shared, own = self._predicted(row, phi, g)
        p = _sigmoid(mean / math.sqrt(1.0 + math.pi / 8.0 * var))
        mode = posterior_mode(mean, var, outcome, weight)
        at_mode = _sigmoid(mode)
        curvature = weight * at_mode * (1.0 - at_mode)
        if var > _MIN_VAR:
            step = (mode - mean) / var
            shrink = curvature / (1.0 + curvature * var)
            self._condition(row, step, shrink, shared, own)
        self._detect(row, outcome, p, weight)
        self.n_labels += weight
        self.model_columns[row, 6] += weight
        np.clip(self.weights, -_MAX_LOGIT, _MAX_LOGIT, out=self.weights)
        np.clip(self.own, -_MAX_LOGIT, _MAX_LOGIT, out=self.own)

    def _predicted(self, row: int, phi: Floats, g: Floats) -> tuple[float, float, Floats, Floats]:
        """Mean and variance of a prompt's log-odds, and its covariance with `w` and `beta_m`."""
        tied = self.tied[row]
        of_level = self.weights_cov @ self._level_of()
        shared = self.weights_cov @ phi + float(tied @ g) * of_level
        own = self.own_cov[row] @ g + tied * float(shared @ self._level_of())
        mean = float(phi @ self.weights + g @ self.own[row])
        var = max(float(phi @ shared) + float(g @ own), 0.0)
        return mean, var, shared, own

    def _condition(self, row: int, step: float, shrink: float, shared: Floats, own: Floats) -> None:
        """One step along (shared, own), the joint covariance less `shrink` times its square."""
        level_of = self._level_of()
        level_var = float(level_of @ self.weights_cov @ level_of)
        of_level = float(shared @ level_of)
        tied = self.tied[row].copy()
        covariance = tied * level_var - shrink * of_level * own
        own_cov = self.own_cov[row] + level_var * np.outer(tied, tied) - shrink * np.outer(own, own)
        self.weights = self.weights + step * shared
        self.weights_cov = self.weights_cov - shrink * np.outer(shared, shared)
        self.own += self.tied * (step * of_level)
        self.own[row] += step * (own - tied * of_level)
        level_var -= shrink * of_level * of_level
        if level_var > _MIN_VAR:
            self.tied[row] = covariance / level_var
            self.own_cov[row] = own_cov - np.outer(covariance, covariance) / level_var

    def _level_of(self) -> Floats:
        """What of `w` makes the level: that of an ordinary prompt."""
        return np.concatenate([_ONE, self.centre])

    def _design(self, features: Floats | None) -> tuple[Floats, Floats]:
        f = self.centre if features is None else features
        return np.concatenate([_ONE, f]), np.concatenate([_ONE, self.projection @ f])

    def _drift(self, row: int) -> None:
        columns = self.model_columns[row]
        aged = DRIFT_PER_REQUEST * max(self.n_requests - columns[2], 0.0)
        columns[2] = self.n_requests
        self._widen(row, aged)

    def _widen(self, row: int, variance: float) -> None:
        ceiling = max(float(self.model_columns[row, 1]), SHOCK_VAR)
        here = float(self.own_cov[row, 0, 0])
        self.own_cov[row, 0, 0] = max(here, min(here + variance, ceiling))

    def _detect(self, row: int, outcome: float, p: float, weight: float) -> None:
        columns = self.model_columns[row]
        step = DETECTOR_STEP * min(weight, 1.0)
        columns[3] += step * (outcome - p - columns[3])
        columns[4] += step * (p * (1.0 - p) - columns[4])
        columns[5] += min(weight, 1.0)
        if columns[5] < DETECTOR_LABELS:
            return
        error = math.sqrt(max(columns[4], 1e-4) * DETECTOR_STEP / (2.0 - DETECTOR_STEP))
        if abs(columns[3]) > DETECTOR_ERRORS * error:
            self._widen(row, SHOCK_VAR)
            columns[3] = columns[4] = columns[5] = 0.0

    def drifted_var(self) -> Floats:
        """Each model's variance of its standing now, drift since its last label included."""
        aged = DRIFT_PER_REQUEST * np.maximum(self.n_requests - self.model_columns[:, 2], 0.0)
        here = self.own_cov[:, 0, 0]
        ceiling = np.maximum(self.model_columns[:, 1], SHOCK_VAR)
        return np.maximum(here, np.minimum(here + aged, ceiling))

    def state(self) -> list[float]:
        """Everything as finite floats, `VERSION` first; models in the order of `models`."""
        head = [
            VERSION,
            self.at_s,
            self.n_labels,
            self.n_requests,
            self.n_prompts,
            self.inverse_share,
            self.level_prior.theta,
            self.level_prior.sd,
        ]
        shared = np.concatenate(
            [
                self.centre,
                self.spread,
                self.weights,
                self.weights_cov[_UPPER_W],
                self.projection.reshape(-1),
            ]
        )
        per_model = np.concatenate(
            [
                self.model_columns,
                self.own,
                self.tied,
                self.own_cov[:, _UPPER_M[0], _UPPER_M[1]],
            ],
            axis=1,
        )
        return [*head, *shared.tolist(), *per_model.reshape(-1).tolist()]

    @classmethod
    def of_state(cls, models: Sequence[str], numbers: Sequence[float]) -> TaskBelief:
        """The belief that wrote `numbers`. Raises `BadState` on another version or shape."""
        d, n = N_FEATURES, len(models)
        n_shared = 3 * d + 1 + len(_UPPER_W[0]) + RANK * d
        if len(numbers) != 8 + n_shared + n * _N_MODEL or numbers[0] != VERSION:
            raise BadState(f"quality state of {n} models: version or length unknown")
        flat = np.asarray(numbers, dtype=np.float64)
        if not np.all(np.isfinite(flat)):
            raise BadState("quality state holds a number that is not finite")
        belief = cls(Standing(float(flat[6]), float(flat[7])))
        belief.at_s, belief.n_labels, belief.n_requests = map(float, flat[1:4])
        belief.n_prompts, belief.inverse_share = map(float, flat[4:6])
        sizes = np.cumsum([8, d, d, 1 + d, len(_UPPER_W[0]), RANK * d])
        centre, spread, weights, cov, projection, rest = np.split(flat, sizes)[1:]
        belief.centre, belief.spread, belief.weights = centre, spread, weights.copy()
        belief.weights_cov = _symmetric(cov, 1 + d)
        belief.projection = projection.reshape(RANK, d)
        rows = rest.reshape(n, _N_MODEL)
        belief.models = list(models)
        belief.row_of = {model: i for i, model in enumerate(models)}
        belief.model_columns = rows[:, :7].copy()
        belief.own = rows[:, 7 : 8 + RANK].copy()
        belief.tied = rows[:, 8 + RANK : 9 + 2 * RANK].copy()
        belief.own_cov = np.array([_symmetric(row, 1 + RANK) for row in rows[:, 9 + 2 * RANK :]])
        belief.own_cov = belief.own_cov.reshape(n, 1 + RANK, 1 + RANK)
        return belief


_ONE: Final = np.ones(1)


def first_text_directions() -> Floats:
    """The directions models may differ along before any were learnt: the first of the text."""
    projection = np.zeros((RANK, N_FEATURES))
    projection[np.arange(RANK), N_COUNTS + np.arange(RANK)] = 1.0
    return projection


def posterior_mode(mean: float, var: float, outcome: float, weight: float) -> float:
    """Mode of a normal prior times a weighted Bernoulli likelihood in the log-odds.

    The log posterior is concave: its one mode lies between the prior's mean and the point where
    the slope at that mean would lead. A Newton step that leaves what is left of that stretch, or
    is not half as long as the one before, is replaced by halving the stretch.
    """
    precision = 1.0 / max(var, _MIN_VAR)
    reach = mean + weight * (outcome - _sigmoid(mean)) / precision
    low, high = min(mean, reach), max(mean, reach)
    x, step = mean, high - low
    for _ in range(_MAX_STEPS):
        p = _sigmoid(x)
        slope = weight * (outcome - p) - (x - mean) * precision
        low, high = (x, high) if slope > 0.0 else (low, x)
        newton = slope / (weight * p * (1.0 - p) + precision)
        inside = low <= x + newton <= high and 2.0 * abs(newton) <= abs(step)
        step = newton if inside else 0.5 * (low + high) - x
        x += step
        if abs(step) < _STEP_TOLERANCE:
            break
    return x


def _sigmoid(x: float) -> float:
    if x >= 0.0:
        return 1.0 / (1.0 + math.exp(-min(x, 500.0)))
    e = math.exp(max(x, -500.0))
    return e / (1.0 + e)


def _symmetric(upper: Floats, size: int) -> Floats:
    matrix = np.zeros((size, size))
    index = np.triu_indices(size)
    matrix[index] = upper
    matrix.T[index] = upper
    return matrix
