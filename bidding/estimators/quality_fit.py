"""Learns a task from a table of outcomes at once: what history, a benchmark or a judge left behind.

The result is the same `TaskBelief` that folds labels one by one, at the mode of its posterior
with the curvature there (Laplace), so that online learning goes on from it. The directions in
which models differ are learnt here, from what shared difficulty leaves unexplained; online they
stay fixed. How many of them, and how strongly difficulty is held back, is chosen by
cross-validated log loss within the table given: two models with thousands of labels want one,
twenty-six models with five hundred want none.

References
----------
Bock, Aitkin (1981), Marginal maximum likelihood estimation of item parameters (the 2PL is the
rank-1 case); Bishop (2006), PRML, section 4.4 (Laplace).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from bidding.estimators.quality_belief import LOADING_SD, RANK, TaskBelief
from bidding.features import N_FEATURES

Floats = NDArray[np.float64]

WEIGHT_PRECISIONS: Final = (4.0, 16.0, 50.0)
RANKS: Final = (0, 1, 2)
N_FOLDS: Final = 4
_N_SWEEPS: Final = 40
_TOLERANCE: Final = 1e-5
_DIRECTION_PRECISION: Final = 10.0


class FitSetting(NamedTuple):
    """Rank of the differences between models, and the precision of the shared weights' prior."""

    rank: int
    weight_precision: float


class FittedTask(NamedTuple):
    """A belief at its posterior mode, the setting chosen, and each setting's held-out log loss."""

    belief: TaskBelief
    setting: FitSetting
    log_loss: dict[FitSetting, float]


def fit_task(
    born: TaskBelief,
    features: Floats,
    outcome: Floats,
    settings: Sequence[FitSetting] | None = None,
) -> FittedTask:
    """The belief after seeing a table of outcomes.

    Parameters
    ----------
    born : TaskBelief
        The task's prior; its models are the columns of `outcome`, in its order.
    features : ndarray, (n_prompts, N_FEATURES)
    outcome : ndarray, (n_prompts, n_models)
        In [0, 1]; NaN where there is none.
    settings : sequence of FitSetting, optional
        Those to choose from; by default every rank with every width.

    Notes
    -----
    Deterministic. Prompts are dealt to folds by position.
    """
    tried = list(
        settings or itertools.starmap(FitSetting, itertools.product(RANKS, WEIGHT_PRECISIONS))
    )
    losses: dict[FitSetting, float] = {}
    if len(tried) > 1:
        fold = np.arange(len(features)) % N_FOLDS
        for setting in tried:
            held_out = [
                _log_loss(
                    _at_mode(born, features[fold != k], outcome[fold != k], setting),
                    features[fold == k],
                    outcome[fold == k],
                )
                for k in range(N_FOLDS)
            ]
            losses[setting] = float(np.mean(held_out))
    best = min(tried, key=lambda s: (round(losses.get(s, 0.0), 4), s.rank, -s.weight_precision))
    return FittedTask(_at_mode(born, features, outcome, best, widths=True), best, losses)


def _at_mode(
    born: TaskBelief, features: Floats, outcome: Floats, setting: FitSetting, widths: bool = False
) -> TaskBelief:
    belief = TaskBelief.of_state(born.models, born.state())
    n_labels = np.isfinite(outcome).sum(axis=0)
    belief.n_labels = float(n_labels.sum())
    belief.n_requests = belief.n_labels
    belief.inverse_share = 1.0
    belief.model_columns[:, 2] = belief.n_requests
    belief.model_columns[:, 6] = n_labels
    belief.n_prompts = float(len(features))
    belief.centre = features.mean(axis=0)
    belief.spread = features.var(axis=0)
    table = _Table(features - belief.centre, outcome)
    prior = _Prior(belief, setting)
    weights, own = table.sweep(
        prior, prior.weights.copy(), prior.own[:, :1].copy(), _no_directions()
    )
    directions = _no_directions()
    if setting.rank:
        directions, loadings = table.first_directions(prior, weights, own, setting.rank)
        own = np.hstack([own, loadings])
        weights, own, directions = table.sweep_directions(prior, weights, own, directions)
    belief.weights = weights
    belief.weights[0] -= float(weights[1:] @ belief.centre)
    belief.own = np.zeros((len(belief.models), 1 + RANK))
    belief.own[:, : own.shape[1]] = own
    belief.projection = belief.projection.copy()
    belief.projection[: len(directions)] = directions
    belief.own[:, 0] -= belief.own[:, 1:] @ belief.projection @ belief.centre
    if widths:
        table.curvature(belief, prior, weights, own, directions)
    return belief


def _log_loss(belief: TaskBelief, features: Floats, outcome: Floats) -> float:
    p = np.clip(probabilities(belief, features), 1e-6, 1.0 - 1e-6)
    loss = -(outcome * np.log(p) + (1.0 - outcome) * np.log1p(-p))
    return float(np.nanmean(loss))


def probabilities(belief: TaskBelief, features: Floats) -> Floats:
    """P(good) at the mode: (n_prompts, n_models)."""
    shared = belief.weights[0] + features @ belief.weights[1:]
    apart = belief.own[:, 0] + (features @ belief.projection.T) @ belief.own[:, 1:].T
    p: Floats = expit(shared[:, None] + apart)
    return p


def _no_directions() -> Floats:
    return np.zeros((0, N_FEATURES))


class _Prior:
    """Means and precisions of what is fitted, from the belief at birth."""

    def __init__(self, belief: TaskBelief, setting: FitSetting) -> None:
        self.weights = belief.weights.copy()
        self.weight_precision = np.full(1 + N_FEATURES, setting.weight_precision)
        self.weight_precision[0] = 1.0 / max(float(belief.weights_cov[0, 0]), 1e-6)
        self.own = belief.own.copy()
        self.own_precision = 1.0 / np.maximum(belief.own_cov[:, 0, 0], 1e-6)
        self.loading_precision = _DIRECTION_PRECISION


class _Table:
    """The outcomes and the Newton steps on them. Features are centred."""

    def __init__(self, features: Floats, outcome: Floats) -> None:
        self.known = np.isfinite(outcome)
        self.outcome = np.where(self.known, outcome, 0.0)
        self.phi = np.hstack([np.ones((len(features), 1)), features])

    def sweep(
        self, prior: _Prior, weights: Floats, own: Floats, directions: Floats
    ) -> tuple[Floats, Floats]:
        """Alternate shared weights and standings until neither moves."""
        for _ in range(_N_SWEEPS):
            moved = self._step_weights(prior, weights, own, directions)
            moved = max(moved, self._step_own(prior, weights, own, directions))
            if moved < _TOLERANCE:
                break
        return weights, own

    def sweep_directions(
        self, prior: _Prior, weights: Floats, own: Floats, directions: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """The same with the directions moving too."""
        for _ in range(_N_SWEEPS // 2):
            moved = self._step_weights(prior, weights, own, directions)
            moved = max(moved, self._step_own(prior, weights, own, directions))
            moved = max(moved, self._step_directions(prior, weights, own, directions))
            if moved < 1e-3:
                break
        return weights, own, directions

    def first_directions(
        self, prior: _Prior, weights: Floats, own: Floats, rank: int
    ) -> tuple[Floats, Floats]:
        """Leading directions of what shared difficulty leaves: regress residuals, then split."""
        residual, curve = self._residual(weights, own, _no_directions())
        x = self.phi[:, 1:]
        ridge = x.T @ x * max(float(curve.mean()), 1e-6)
        ridge += prior.loading_precision * np.eye(x.shape[1])
        left, size, right = np.linalg.svd(
            np.linalg.solve(ridge, x.T @ residual), full_matrices=False
        )
        rank = min(rank, len(size))
        root = np.sqrt(size[:rank])
        return (left[:, :rank] * root).T, right[:rank].T * root

    def _residual(self, weights: Floats, own: Floats, directions: Floats) -> tuple[Floats, Floats]:
        eta = (self.phi @ weights)[:, None] + own[:, 0]
        if len(directions):
            eta = eta + (self.phi[:, 1:] @ directions.T) @ own[:, 1:].T
        p = expit(eta)
        curve: Floats = np.where(self.known, p * (1.0 - p), 0.0)
        residual: Floats = np.where(self.known, self.outcome - p, 0.0)
        return residual, curve

    def _step_weights(
        self, prior: _Prior, weights: Floats, own: Floats, directions: Floats
    ) -> float:
        residual, curve = self._residual(weights, own, directions)
        hessian = self.phi.T @ (self.phi * curve.sum(axis=1)[:, None])
        hessian += np.diag(prior.weight_precision)
        slope = self.phi.T @ residual.sum(axis=1)
        slope -= prior.weight_precision * (weights - prior.weights)
        return _take(weights, np.linalg.solve(hessian, slope))

    def _step_own(self, prior: _Prior, weights: Floats, own: Floats, directions: Floats) -> float:
        residual, curve = self._residual(weights, own, directions)
        g = self._own_design(directions)
        hessian = np.einsum("nm,ni,nj->mij", curve, g, g, optimize=True)
        hessian += self._own_precision(prior, own)
        slope = residual.T @ g
        away = own.copy()
        away[:, 0] -= prior.own[:, 0]
        slope -= np.einsum("mij,mj->mi", self._own_precision(prior, own), away)
        return _take(own, np.linalg.solve(hessian, slope[..., None])[..., 0])

    def _own_design(self, directions: Floats) -> Floats:
        return np.hstack([self.phi[:, :1], self.phi[:, 1:] @ directions.T])

    def _own_precision(self, prior: _Prior, own: Floats) -> Floats:
        precision = np.zeros((len(own), own.shape[1], own.shape[1]))
        precision[:, 0, 0] = prior.own_precision
        for k in range(1, own.shape[1]):
            precision[:, k, k] = prior.loading_precision
        return precision

    def _step_directions(
        self, prior: _Prior, weights: Floats, own: Floats, directions: Floats
    ) -> float:
        moved = 0.0
        x = self.phi[:, 1:]
        for k in range(len(directions)):
            residual, curve = self._residual(weights, own, directions)
            loading = own[:, 1 + k]
            hessian = x.T @ (x * (curve @ np.square(loading))[:, None])
            hessian += prior.loading_precision * np.eye(x.shape[1])
            slope = x.T @ (residual @ loading) - prior.loading_precision * directions[k]
            moved = max(moved, _take(directions[k], np.linalg.solve(hessian, slope)))
        return moved

    def curvature(
        self, belief: TaskBelief, prior: _Prior, weights: Floats, own: Floats, directions: Floats
    ) -> None:
        """Write the covariances at the mode into the belief, in uncentred features."""
        _, curve = self._residual(weights, own, directions)
        hessian = self.phi.T @ (self.phi * curve.sum(axis=1)[:, None])
        hessian += np.diag(prior.weight_precision)
        belief.weights_cov = _uncentred(np.linalg.inv(hessian), belief.centre)
        g = self._own_design(directions)
        inner = np.einsum("nm,ni,nj->mij", curve, g, g, optimize=True)
        cov = np.linalg.inv(inner + self._own_precision(prior, own))
        size = own.shape[1]
        belief.own_cov = np.tile(np.diag([0.0] + [LOADING_SD**2] * RANK), (len(own), 1, 1))
        at_centre = directions @ belief.centre
        for m in range(len(own)):
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
    values += step * min(1.0, 2.0 / max(largest, 1e-12))
    return largest
