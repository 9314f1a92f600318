"""Learns tasks from tables of outcomes at once: what history, a benchmark or a judge left behind.

The result is the same `TaskBelief` per task that folds labels one by one, at the mode of its
posterior with the curvature there (Laplace), so that online learning goes on from it. Fitted is a
hierarchy over the tasks given: each task's level, difficulty shared by all models and tasks, each
model's standing on each task, and each model's own departure from the shared difficulty,

    logit P(good) = level_t + f·w + standing_mt + f·b_m,    w ~ N(0, 1/weight),  b_m ~ N(0, 1/apart)

with f centred within its task. The law of the standings is learnt too (`standing_law`); given
it the fit is convex, so that there is one answer and no start to choose. The departures' leading
directions become the beliefs', and stay fixed online. How strongly either part is held back, and
how many directions are kept, is chosen by cross-validated log loss within the tables given:
departures must beat none by more standard errors over prompts the more models there are, since one
that is noise makes the buyer pay for differences that are not there (docs/decisions/0011, 0038).

References
----------
Gelman, Hill (2007), Data analysis using regression and multilevel models, chapter 14.
De Boeck, Wilson (2004), Explanatory item response models (difficulty from item features).
Hastie, Tibshirani, Friedman (2009), section 7.10 (standard errors of cross-validation).
Boucheron, Lugosi, Massart (2013), Concentration inequalities, theorem 2.5 (the best of n by luck).
Bishop (2006), PRML, section 4.4 (Laplace).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from bidding.estimators.quality_belief import RANK, TaskBelief
from bidding.estimators.standing_law import StandingLaw, learnt_law, prior_law
from bidding.features import N_FEATURES

Floats = NDArray[np.float64]

WEIGHT_PRECISIONS: Final = (100.0, 50.0)
APART_PRECISIONS: Final = (1000.0, 300.0, 100.0, 50.0)
RANKS: Final = (1, RANK)

N_FOLDS: Final = 4
_N_SWEEPS: Final = 40
_TOLERANCE: Final = 1e-3
_LEAST_PROMPTS: Final = 20
"""Below so many prompts nothing is chosen: the most restrained setting is taken."""

_LEAST_LOADING_SD: Final = 0.01
_UNSURE_LOADING_SD: Final = 0.1
"""Of directions that tables did not surely tell: narrower than before any table was seen."""

_LEVEL_STEP: Final = 2.0
_MIDDLE_PRECISION: Final = 50.0
_N_LAWS: Final = 4


class FitSetting(NamedTuple):
    """Precisions of the priors of shared difficulty and of each model's departure from it, and
    the directions kept of the latter; rank 0: models differ in their level alone.
    """

    weight_precision: float
    apart_precision: float = math.inf
    rank: int = 0


class TaskTable(NamedTuple):
    """Outcomes of a task.

    Attributes
    ----------
    features : (n_prompts, N_FEATURES)
    outcome : (n_prompts, n_models)
        In [0, 1]; NaN where there is none.
    """

    features: Floats
    outcome: Floats


class FittedTasks(NamedTuple):
    """Beliefs at their posterior mode, one a task; the setting chosen, each one's held-out log
    loss, and the law of the standings.
    """

    beliefs: list[TaskBelief]
    setting: FitSetting
    log_loss: dict[FitSetting, float]
    law: StandingLaw


def fit_tasks(
    born: Sequence[TaskBelief], tables: Sequence[TaskTable], setting: FitSetting | None = None
) -> FittedTasks:
    """The beliefs after seeing each task's table.

    Parameters
    ----------
    born : sequence of TaskBelief
        The tasks' priors; the same models in the same order, the columns of every `outcome`.
    tables : sequence of TaskTable
    setting : FitSetting, optional
        Taken instead of choosing one.

    Notes
    -----
    Deterministic. Prompts are dealt to folds by position.
    """
    losses: dict[FitSetting, float] = {}
    whole = _Tables(tables)
    if setting is None:
        setting = FitSetting(WEIGHT_PRECISIONS[0])
        if len(whole.features) >= _LEAST_PROMPTS:
            setting, losses = _chosen(born, whole)
    law = _law(born, whole)
    return FittedTasks(_at_mode(born, whole, setting, law), setting, losses, law)


def _law(born: Sequence[TaskBelief], tables: _Tables) -> StandingLaw:
    """The law of the standings, learnt with difficulty in its middle width."""
    law = _prior_law(born)
    if not len(tables.features) or not len(law.mean):
        return law
    prior = _Prior(born, FitSetting(_MIDDLE_PRECISION), law)
    for _ in range(_N_LAWS):
        mode = tables.mode(prior)
        estimate, information = tables.standings(mode)
        law = learnt_law(_prior_law(born), estimate, information)
        prior = prior.under(law)
    return law


def _prior_law(born: Sequence[TaskBelief]) -> StandingLaw:
    standing = np.mean([belief.own[:, 0] for belief in born], axis=0)
    var = np.mean([belief.own_cov[:, 0, 0] for belief in born], axis=0)
    return prior_law(standing, var, len(born))


def _chosen(
    born: Sequence[TaskBelief], tables: _Tables
) -> tuple[FitSetting, dict[FitSetting, float]]:
    """The best width of difficulty, and departures where they surely tell more."""
    folds = _Folds(born, tables)
    loss: dict[FitSetting, Floats] = {}
    for weight in WEIGHT_PRECISIONS:
        loss |= folds.losses(weight, math.inf, (0,))
    plain = min(loss, key=lambda s: float(loss[s].mean()))
    for apart in APART_PRECISIONS:
        loss |= folds.losses(plain.weight_precision, apart, RANKS)
    best = min(loss, key=lambda s: float(loss[s].mean()))
    errors = _luck_of_the_best(tables.known.shape[1])
    chosen = best if _better_by(errors, loss[best], loss[plain]) else plain
    return chosen, {s: float(column.mean()) for s, column in loss.items()}


def _luck_of_the_best(n_models: int) -> float:
    """How many standard deviations the best of so many models stands out by luck: √(2 ln n).

    The buyer takes the best looking of all, so what departures say by noise costs more the more
    models say it: 1.2 for two, 2.1 for ten, 2.6 for 26.
    """
    return math.sqrt(2.0 * math.log(max(n_models, 2)))


def _better_by(errors: float, loss: Floats, plain: Floats) -> bool:
    """Whether the mean of `loss` is below that of `plain` by over so many standard errors."""
    less = plain - loss
    return float(less.mean()) > errors * float(less.std()) / math.sqrt(len(less))


class _Folds:
    """Held-out log losses; each fold's law is learnt once, on the others."""

    def __init__(self, born: Sequence[TaskBelief], tables: _Tables) -> None:
        self._born, self._tables = born, tables
        self._fold = np.arange(len(tables.features)) % N_FOLDS
        self._learning = [tables.taken(self._fold != k) for k in range(N_FOLDS)]
        self._laws = [_law(born, learning) for learning in self._learning]

    def losses(self, weight: float, apart: float, ranks: Sequence[int]) -> dict[FitSetting, Floats]:
        """Log loss of each prompt, its models averaged, by folds that did not see it; per rank."""
        settings = [FitSetting(weight, apart, rank) for rank in ranks]
        losses = {setting: np.zeros(len(self._fold)) for setting in settings}
        for k, (learning, law) in enumerate(zip(self._learning, self._laws, strict=True)):
            held = self._tables.taken(self._fold == k)
            mode = learning.mode(_Prior(self._born, settings[0], law))
            y = np.where(held.known, held.outcome, np.nan)
            for setting in settings:
                kept = mode._replace(apart=learning.truncated(mode, setting.rank))
                p = learning.probabilities(kept, held)
                p = np.clip(p, 1e-6, 1.0 - 1e-6)
                each = -(y * np.log(p) + (1.0 - y) * np.log1p(-p))
                n_known = np.maximum(np.isfinite(each).sum(axis=1), 1)
                losses[setting][self._fold == k] = np.nansum(each, axis=1) / n_known
        return losses


def _at_mode(
    born: Sequence[TaskBelief], tables: _Tables, setting: FitSetting, law: StandingLaw
) -> list[TaskBelief]:
    prior = _Prior(born, setting, law)
    mode = tables.mode(prior)
    directions, loadings = tables.directions(mode, setting.rank)
    curved = tables.curvature(prior, mode, directions, loadings)
    return [
        _belief(one, tables, t, mode, directions, loadings, curved) for t, one in enumerate(born)
    ]


def _belief(
    born: TaskBelief,
    tables: _Tables,
    t: int,
    mode: _Mode,
    directions: Floats,
    loadings: Floats,
    curved: _Curvature,
) -> TaskBelief:
    """Task `t`'s belief, in uncentred features."""
    belief = TaskBelief.of_state(born.models, born.state())
    here = tables.task == t
    n_labels = tables.known[here].sum(axis=0)
    belief.n_labels = float(n_labels.sum())
    belief.n_requests = belief.n_labels
    belief.inverse_share = 1.0
    belief.model_columns[:, 2] = belief.n_requests
    belief.model_columns[:, 6] = n_labels
    if not here.any():
        return belief
    belief.n_prompts = float(here.sum())
    belief.centre = tables.centre[t].copy()
    belief.spread = tables.features[here].var(axis=0)
    rank = len(directions)
    belief.weights = np.concatenate([[mode.levels[t]], mode.weights + mode.apart.mean(axis=0)])
    belief.weights[0] -= float(belief.weights[1:] @ belief.centre)
    place = [t, *range(len(mode.levels), len(curved.shared))]
    belief.weights_cov = _uncentred(curved.shared[np.ix_(place, place)], belief.centre)
    belief.projection = belief.projection.copy()
    belief.projection[:rank] = directions
    belief.own = np.zeros((len(belief.models), 1 + RANK))
    belief.own[:, 0] = mode.standing[:, t]
    belief.own[:, 1 : 1 + rank] = loadings
    belief.own[:, 0] -= belief.own[:, 1:] @ belief.projection @ belief.centre
    belief.own_cov = np.tile(
        np.diag([0.0] + [_UNSURE_LOADING_SD**2] * RANK), (len(belief.models), 1, 1)
    )
    at_centre = directions @ belief.centre
    for m, cov in enumerate(curved.own[t]):
        belief.own_cov[m, : 1 + rank, : 1 + rank] = _uncentred(cov, at_centre)
    return belief


class _Prior:
    """Means and precisions of what is fitted, from the beliefs at birth and the standings' law."""

    def __init__(self, born: Sequence[TaskBelief], setting: FitSetting, law: StandingLaw) -> None:
        self.level = np.array([float(belief.weights[0]) for belief in born])
        level_var = np.array([float(belief.weights_cov[0, 0]) for belief in born])
        self.shared_precision = np.concatenate(
            [1.0 / np.maximum(level_var, 1e-6), np.full(N_FEATURES, setting.weight_precision)]
        )
        self.law = law
        self.standing_precision = law.precision()
        self.apart_precision = setting.apart_precision

    def under(self, law: StandingLaw) -> _Prior:
        """The same with another law of the standings."""
        other = copy.copy(self)
        other.law, other.standing_precision = law, law.precision()
        return other


class _Mode(NamedTuple):
    """Levels (n_tasks,), shared weights (N_FEATURES,), standings (n_models, n_tasks) and
    departures (n_models, N_FEATURES), of features centred within their task.
    """

    levels: Floats
    weights: Floats
    standing: Floats
    apart: Floats


class _Curvature(NamedTuple):
    """Covariances at the mode: of levels and weights, and per task and model of (standing,
    loadings): (n_tasks, n_models, 1 + rank, 1 + rank).
    """

    shared: Floats
    own: Floats


class _Tables:
    """The outcomes of all tasks below each other, and the Newton steps on them."""

    def __init__(self, tables: Sequence[TaskTable]) -> None:
        self.task = np.repeat(np.arange(len(tables)), [len(t.features) for t in tables])
        self.features = np.concatenate([np.asarray(t.features, np.float64) for t in tables])
        outcome = np.concatenate([t.outcome for t in tables])
        self.known = np.isfinite(outcome)
        self.outcome = np.where(self.known, outcome, 0.0)
        self.n_tasks = len(tables)
        self._centred()

    def taken(self, rows: NDArray[np.bool_]) -> _Tables:
        """These prompts; every task stays, though it may be empty."""
        other = copy.copy(self)
        other.task, other.features = self.task[rows], self.features[rows]
        other.known, other.outcome = self.known[rows], self.outcome[rows]
        other._centred()
        return other

    def _centred(self) -> None:
        self.member = np.eye(self.n_tasks)[self.task]
        n = np.maximum(self.member.sum(axis=0), 1.0)
        self.centre: Floats = (self.member.T @ self.features) / n[:, None]
        self.x: Floats = self.features - self.centre[self.task]

    def probabilities(self, mode: _Mode, asked: _Tables) -> Floats:
        """P(good) of other prompts of the same tasks at the mode: (n_prompts, n_models)."""
        x = asked.features - self.centre[asked.task]
        return _probabilities(mode, asked.task, x)

    def standings(self, mode: _Mode) -> tuple[Floats, Floats]:
        """What the outcomes alone say of the standings, all else as at the mode, and how surely:
        (n_models, n_tasks) each.
        """
        residual, curve = self._residual(mode)
        information = (self.member.T @ curve).T
        step = (self.member.T @ residual).T / np.maximum(information, 1e-6)
        return mode.standing + np.clip(step, -_LEVEL_STEP, _LEVEL_STEP), information

    def mode(self, prior: _Prior) -> _Mode:
        """The maximum of the posterior, by turns over the shared and the models' own part."""
        n_models = self.known.shape[1]
        standing = np.repeat(prior.law.mean[:, None], self.n_tasks, axis=1)
        mode = _Mode(
            prior.level.copy(), np.zeros(N_FEATURES), standing, np.zeros((n_models, N_FEATURES))
        )
        for _ in range(_N_SWEEPS):
            moved = self._step_shared(prior, mode)
            moved = max(moved, self._step_own(prior, mode))
            if moved < _TOLERANCE:
                break
        return mode

    def _residual(self, mode: _Mode) -> tuple[Floats, Floats]:
        p = _probabilities(mode, self.task, self.x)
        curve: Floats = np.where(self.known, p * (1.0 - p), 0.0)
        residual: Floats = np.where(self.known, self.outcome - p, 0.0)
        return residual, curve

    def _shared_hessian(self, prior: _Prior, curve: Floats) -> Floats:
        phi = np.hstack([self.member, self.x])
        hessian: Floats = phi.T @ (phi * curve.sum(axis=1)[:, None])
        return hessian + np.diag(prior.shared_precision)

    def _step_shared(self, prior: _Prior, mode: _Mode) -> float:
        residual, curve = self._residual(mode)
        away = np.concatenate([mode.levels - prior.level, mode.weights])
        phi = np.hstack([self.member, self.x])
        slope = phi.T @ residual.sum(axis=1) - prior.shared_precision * away
        step = np.linalg.solve(self._shared_hessian(prior, curve), slope)
        together = np.concatenate([mode.levels, mode.weights])
        moved = _take(together, step)
        mode.levels[:], mode.weights[:] = together[: self.n_tasks], together[self.n_tasks :]
        return moved

    def _step_own(self, prior: _Prior, mode: _Mode) -> float:
        """Newton on each model's standings, and on its departure where it may depart."""
        residual, curve = self._residual(mode)
        t = self.n_tasks
        away = mode.standing - prior.law.mean[:, None]
        pull = np.einsum("mtu,mu->mt", prior.standing_precision, away)
        slope = (self.member.T @ residual).T - pull
        information = (self.member.T @ curve).T
        hessian = prior.standing_precision + information[:, :, None] * np.eye(t)
        if math.isinf(prior.apart_precision):
            return _take(mode.standing, np.linalg.solve(hessian, slope[:, :, None])[:, :, 0])
        moved = 0.0
        phi = np.hstack([self.member, self.x])
        for m in range(len(mode.apart)):
            both = phi.T @ (phi * curve[:, m, None])
            both[:t, :t] = hessian[m]
            both[t:, t:] += prior.apart_precision * np.eye(N_FEATURES)
            down = self.x.T @ residual[:, m] - prior.apart_precision * mode.apart[m]
            together = np.concatenate([mode.standing[m], mode.apart[m]])
            step = np.linalg.solve(both, np.concatenate([slope[m], down]))
            moved = max(moved, _take(together, step))
            mode.standing[m], mode.apart[m] = together[:t], together[t:]
        return moved

    def truncated(self, mode: _Mode, rank: int) -> Floats:
        """The departures with their mean and leading directions kept: (n_models, N_FEATURES)."""
        directions, loadings = self.directions(mode, rank)
        kept: Floats = mode.apart.mean(axis=0) + loadings @ directions
        return kept

    def directions(self, mode: _Mode, most: int) -> tuple[Floats, Floats]:
        """At most so many leading directions of the departures, each of unit spread over the
        tables' prompts, and the models' loadings on them: (rank, N_FEATURES), (n_models, rank).
        """
        if not most or not mode.apart.any():
            return np.zeros((0, N_FEATURES)), np.zeros((len(mode.apart), 0))
        away = mode.apart - mode.apart.mean(axis=0)
        root = np.linalg.cholesky(self.x.T @ self.x / len(self.x) + 1e-4 * np.eye(N_FEATURES))
        left, size, right = np.linalg.svd(away @ root, full_matrices=False)
        spread = size / math.sqrt(max(len(away), 1))
        rank = min(most, int(np.sum(spread > _LEAST_LOADING_SD)))
        return np.linalg.solve(root.T, right[:rank].T).T, left[:, :rank] * size[:rank]

    def curvature(
        self, prior: _Prior, mode: _Mode, directions: Floats, loadings: Floats
    ) -> _Curvature:
        """Covariances at the mode, of features centred within their task."""
        _, curve = self._residual(mode)
        information = (self.member.T @ curve).T
        eye = np.eye(self.n_tasks)
        joint = np.linalg.inv(prior.standing_precision + information[:, :, None] * eye)
        variance = np.maximum(np.square(loadings).mean(axis=0), _LEAST_LOADING_SD**2)
        own = []
        for t in range(self.n_tasks):
            rows = self.task == t
            g = np.hstack([np.ones((int(rows.sum()), 1)), self.x[rows] @ directions.T])
            inner = np.einsum("nm,ni,nj->mij", curve[rows], g, g, optimize=True)
            # What prior and other tasks add to this task's own labels.
            elsewhere = 1.0 / np.maximum(joint[:, t, t], 1e-9) - information[:, t]
            inner[:, 0, 0] += np.maximum(elsewhere, 1e-6)
            for k in range(len(directions)):
                inner[:, 1 + k, 1 + k] += 1.0 / variance[k]
            own.append(np.linalg.inv(inner))
        shared: Floats = np.linalg.inv(self._shared_hessian(prior, curve)).astype(np.float64)
        return _Curvature(shared, np.array(own))


def _probabilities(mode: _Mode, task: NDArray[np.int64], x: Floats) -> Floats:
    p: Floats = expit(
        mode.levels[task][:, None] + mode.standing[:, task].T + x @ (mode.weights + mode.apart).T
    )
    return p


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
