"""Learns a task from a table of outcomes at once: what history, a benchmark or a judge left behind.

The result is the same `TaskBelief` that folds labels one by one, at the mode of its posterior
with the curvature there (Laplace), so that online learning goes on from it. Fitted is a
hierarchy: difficulty shared by all models, and each model's own departure from it,

    logit P(good) = (1, f)·w + (1, f)·b_m,    w ~ N(·, 1/weight),  b_m ~ N(·, 1/apart)

which is convex, so that there is one answer and no start to choose. The departures' leading
directions become the belief's, and stay fixed online. How strongly either part is held back, and
how many directions are kept, is chosen by cross-validated log loss within the table given: more
must beat less by over one standard error over prompts, since a departure that is noise makes
the buyer pay for differences that are not there.

References
----------
Gelman, Hill (2007), Data analysis using regression and multilevel models, chapter 14.
De Boeck, Wilson (2004), Explanatory item response models (difficulty from item features).
Hastie, Tibshirani, Friedman (2009), section 7.10 (the one-standard-error rule).
Bishop (2006), PRML, section 4.4 (Laplace).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from bidding.estimators.quality_belief import LOADING_SD, RANK, TaskBelief
from bidding.features import N_FEATURES

Floats = NDArray[np.float64]

WEIGHT_PRECISIONS: Final = (200.0, 100.0, 50.0, 16.0)
APART_PRECISIONS: Final = (1000.0, 300.0, 100.0, 50.0)
RANKS: Final = (1, RANK)

N_FOLDS: Final = 4
_N_SWEEPS: Final = 40
_TOLERANCE: Final = 1e-3
_LEAST_PROMPTS: Final = 20
"""Below so many prompts nothing is chosen: the most restrained setting is taken."""

_LEAST_LOADING_SD: Final = 0.01
_LEVEL_STEP: Final = 2.0


class FitSetting(NamedTuple):
    """Precisions of the priors of shared difficulty and of each model's departure from it, and
    the directions kept of the latter; rank 0: models differ in their level alone.
    """

    weight_precision: float
    apart_precision: float = math.inf
    rank: int = 0


class FittedTask(NamedTuple):
    """A belief at its posterior mode, the setting chosen, and each setting's held-out log loss."""

    belief: TaskBelief
    setting: FitSetting
    log_loss: dict[FitSetting, float]


def fit_task(
    born: TaskBelief, features: Floats, outcome: Floats, setting: FitSetting | None = None
) -> FittedTask:
    """The belief after seeing a table of outcomes.

    Parameters
    ----------
    born : TaskBelief
        The task's prior; its models are the columns of `outcome`, in its order.
    features : ndarray, (n_prompts, N_FEATURES)
    outcome : ndarray, (n_prompts, n_models)
        In [0, 1]; NaN where there is none.
    setting : FitSetting, optional
        Taken instead of choosing one.

    Notes
    -----
    Deterministic. Prompts are dealt to folds by position.
    """
    losses: dict[FitSetting, float] = {}
    if setting is None:
        setting = FitSetting(WEIGHT_PRECISIONS[0])
        if len(features) >= _LEAST_PROMPTS:
            setting, losses = _chosen(born, features, outcome)
    return FittedTask(_at_mode(born, features, outcome, setting), setting, losses)


def _chosen(
    born: TaskBelief, features: Floats, outcome: Floats
) -> tuple[FitSetting, dict[FitSetting, float]]:
    """The best width of difficulty, then the simplest departures within an error of the best."""
    loss: dict[FitSetting, Floats] = {}
    for weight in WEIGHT_PRECISIONS:
        loss |= _held_out_losses(born, features, outcome, weight, math.inf, (0,))
    plain = min(loss, key=lambda s: float(loss[s].mean()))
    for apart in APART_PRECISIONS:
        loss |= _held_out_losses(born, features, outcome, plain.weight_precision, apart, RANKS)
    best = min(loss.values(), key=lambda column: float(column.mean()))
    apart_ones = [
        FitSetting(plain.weight_precision, apart, rank)
        for rank in RANKS
        for apart in APART_PRECISIONS
    ]
    chosen = next(s for s in (plain, *apart_ones) if _no_worse(loss[s], best))
    return chosen, {s: float(column.mean()) for s, column in loss.items()}


def _no_worse(loss: Floats, best: Floats) -> bool:
    """Whether the mean of `loss` exceeds that of `best` by no more than one standard error."""
    more = loss - best
    return float(more.mean()) <= float(more.std()) / math.sqrt(len(more))


def _held_out_losses(
    born: TaskBelief,
    features: Floats,
    outcome: Floats,
    weight: float,
    apart: float,
    ranks: Sequence[int],
) -> dict[FitSetting, Floats]:
    """Log loss of each prompt, its models averaged, by folds that did not see it; per rank."""
    settings = [FitSetting(weight, apart, rank) for rank in ranks]
    fold = np.arange(len(features)) % N_FOLDS
    losses = {setting: np.zeros(len(features)) for setting in settings}
    for k in range(N_FOLDS):
        table = _Table(features[fold != k], outcome[fold != k])
        mode = table.mode(_Prior(born, settings[0]))
        y = outcome[fold == k]
        for setting in settings:
            kept = _Mode(mode.weights, _truncated(table, mode, setting.rank))
            p = np.clip(table.probabilities(kept, features[fold == k]), 1e-6, 1.0 - 1e-6)
            each = -(y * np.log(p) + (1.0 - y) * np.log1p(-p))
            n_known = np.maximum(np.isfinite(each).sum(axis=1), 1)
            losses[setting][fold == k] = np.nansum(each, axis=1) / n_known
    return losses


def _truncated(table: _Table, mode: _Mode, rank: int) -> Floats:
    """The departures with their mean and leading directions kept: (n_models, 1 + N_FEATURES)."""
    directions, loadings = table.directions(mode, rank)
    slopes = mode.apart[:, 1:].mean(axis=0) + loadings @ directions
    return np.hstack([mode.apart[:, :1], slopes])


def _at_mode(
    born: TaskBelief, features: Floats, outcome: Floats, setting: FitSetting
) -> TaskBelief:
    belief = TaskBelief.of_state(born.models, born.state())
    n_labels = np.isfinite(outcome).sum(axis=0)
    belief.n_labels = float(n_labels.sum())
    belief.n_requests = belief.n_labels
    belief.inverse_share = 1.0
    belief.model_columns[:, 2] = belief.n_requests
    belief.model_columns[:, 6] = n_labels
    if not len(features):
        return belief
    belief.n_prompts = float(len(features))
    table = _Table(features, outcome)
    belief.centre = table.centre
    belief.spread = features.var(axis=0)
    prior = _Prior(born, setting)
    mode = table.mode(prior)
    directions, loadings = table.directions(mode, setting.rank)
    rank = len(directions)
    weights = mode.weights.copy()
    weights[1:] += mode.apart[:, 1:].mean(axis=0)
    own = np.hstack([mode.apart[:, :1], loadings])
    table.curvature(belief, prior, mode, directions, loadings)
    weights[0] -= float(weights[1:] @ belief.centre)
    belief.weights = weights
    belief.own = np.zeros((len(belief.models), 1 + RANK))
    belief.own[:, : 1 + rank] = own
    belief.projection = belief.projection.copy()
    belief.projection[:rank] = directions
    belief.own[:, 0] -= belief.own[:, 1:] @ belief.projection @ belief.centre
    return belief


class _Prior:
    """Means and precisions of what is fitted, from the belief at birth."""

    def __init__(self, born: TaskBelief, setting: FitSetting) -> None:
        self.level = float(born.weights[0])
        self.standing = born.own[:, 0].copy()
        self.weight_precision = np.full(1 + N_FEATURES, setting.weight_precision)
        self.weight_precision[0] = 1.0 / max(float(born.weights_cov[0, 0]), 1e-6)
        self.own_precision = 1.0 / np.maximum(born.own_cov[:, 0, 0], 1e-6)
        self.apart_precision = setting.apart_precision


class _Mode(NamedTuple):
    """Shared weights (1 + N_FEATURES,) and departures (n_models, 1 + N_FEATURES), centred."""

    weights: Floats
    apart: Floats


class _Table:
    """The outcomes and the Newton steps on them. Features are centred."""

    def __init__(self, features: Floats, outcome: Floats) -> None:
        self.centre: Floats = features.mean(axis=0)
        self.known = np.isfinite(outcome)
        self.outcome = np.where(self.known, outcome, 0.0)
        self.phi = np.hstack([np.ones((len(features), 1)), features - self.centre])

    def probabilities(self, mode: _Mode, features: Floats) -> Floats:
        """P(good) of other prompts at the mode: (n_prompts, n_models)."""
        phi = np.hstack([np.ones((len(features), 1)), features - self.centre])
        p: Floats = expit(phi @ (mode.weights + mode.apart).T)
        return p

    def mode(self, prior: _Prior) -> _Mode:
        """The maximum of the posterior, by turns over the shared and the models' own part."""
        mode = _Mode(np.zeros(1 + N_FEATURES), np.zeros((self.known.shape[1], 1 + N_FEATURES)))
        mode.weights[0] = prior.level
        mode.apart[:, 0] = prior.standing
        for _ in range(_N_SWEEPS):
            moved = self._step_shared(prior, mode)
            moved = max(moved, self._step_apart(prior, mode))
            if moved < _TOLERANCE:
                break
        return mode

    def _residual(self, mode: _Mode) -> tuple[Floats, Floats]:
        p = expit(self.phi @ (mode.weights + mode.apart).T)
        curve: Floats = np.where(self.known, p * (1.0 - p), 0.0)
        residual: Floats = np.where(self.known, self.outcome - p, 0.0)
        return residual, curve

    def _step_shared(self, prior: _Prior, mode: _Mode) -> float:
        residual, curve = self._residual(mode)
        hessian = self.phi.T @ (self.phi * curve.sum(axis=1)[:, None])
        hessian += np.diag(prior.weight_precision)
        away = mode.weights.copy()
        away[0] -= prior.level
        slope = self.phi.T @ residual.sum(axis=1) - prior.weight_precision * away
        return _take(mode.weights, np.linalg.solve(hessian, slope))

    def _step_apart(self, prior: _Prior, mode: _Mode) -> float:
        """Newton on each model's departure; on its level alone where nothing else may differ."""
        residual, curve = self._residual(mode)
        away = mode.apart[:, 0] - prior.standing
        if math.isinf(prior.apart_precision):
            slope = residual.sum(axis=0) - prior.own_precision * away
            return _take(mode.apart[:, 0], slope / (curve.sum(axis=0) + prior.own_precision))
        moved = 0.0
        precision = np.full(1 + N_FEATURES, prior.apart_precision)
        for m in range(len(mode.apart)):
            precision[0] = prior.own_precision[m]
            hessian = self.phi.T @ (self.phi * curve[:, m, None]) + np.diag(precision)
            pull = mode.apart[m].copy()
            pull[0] = away[m]
            slope = self.phi.T @ residual[:, m] - precision * pull
            moved = max(moved, _take(mode.apart[m], np.linalg.solve(hessian, slope)))
        return moved

    def directions(self, mode: _Mode, most: int) -> tuple[Floats, Floats]:
        """At most so many leading directions of the departures, each of unit spread over the
        table's prompts, and the models' loadings on them: (rank, N_FEATURES), (n_models, rank).
        """
        away = mode.apart[:, 1:] - mode.apart[:, 1:].mean(axis=0)
        x = self.phi[:, 1:]
        root = np.linalg.cholesky(x.T @ x / len(x) + 1e-4 * np.eye(N_FEATURES))
        left, size, right = np.linalg.svd(away @ root, full_matrices=False)
        spread = size / math.sqrt(max(len(away), 1))
        rank = min(most, int(np.sum(spread > _LEAST_LOADING_SD)))
        return np.linalg.solve(root.T, right[:rank].T).T, left[:, :rank] * size[:rank]

    def curvature(
        self,
        belief: TaskBelief,
        prior: _Prior,
        mode: _Mode,
        directions: Floats,
        loadings: Floats,
    ) -> None:
        """Write the covariances at the mode into the belief, in uncentred features."""
        _, curve = self._residual(mode)
        hessian = self.phi.T @ (self.phi * curve.sum(axis=1)[:, None])
        hessian += np.diag(prior.weight_precision)
        belief.weights_cov = _uncentred(np.linalg.inv(hessian), belief.centre)
        g = np.hstack([self.phi[:, :1], self.phi[:, 1:] @ directions.T])
        inner = np.einsum("nm,ni,nj->mij", curve, g, g, optimize=True)
        variance = np.maximum(np.square(loadings).mean(axis=0), _LEAST_LOADING_SD**2)
        inner[:, 0, 0] += prior.own_precision
        for k in range(len(directions)):
            inner[:, 1 + k, 1 + k] += 1.0 / variance[k]
        cov = np.linalg.inv(inner)
        size = 1 + len(directions)
        n_models = len(loadings)
        belief.own_cov = np.tile(np.diag([0.0] + [LOADING_SD**2] * RANK), (n_models, 1, 1))
        at_centre = directions @ belief.centre
        for m in range(n_models):
            belief.own_cov[m, :size, :size] = _uncentred(cov[m], at_centre)


def _uncentred(cov: Floats, centre: Floats) -> Floats:
    """Covariance of (level − w·centre, w) from that of (level, w)."""
    shift = np.eye(len(cov))
    shift[0, 1:] = -centre
    moved = shift @ cov @ shift.T
    symmetric: Floats = 0.5 * (moved + moved.T)
    return symmetric


def _take(values: Floats, step: Floats) -> float:
    """Apply a Newton step in place, at most 2 in any coordinate; how far it went."""
    largest = float(np.abs(step).max(initial=0.0))
    if not math.isfinite(largest):
        return 0.0
    values += step * min(1.0, _LEVEL_STEP / max(largest, 1e-12))
    return largest
