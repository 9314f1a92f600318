"""Learns how good each model is at each task, label by label; publishes what gateways read.

Owns the tasks: each is born from the prior (outside facts of its models, and what other tasks
taught of them), then folds its own labels in order and nothing else, so that a restored task
goes on bit for bit. What a task took from others at birth is part of its state.

Labels are delayed, partial and biased. Each stands for the requests that were not labelled:
its weight is one over the probability of having been labelled, clipped, and divided by the
task's running mean of the same, so that an even share of labels leaves every weight at 1 and
the posterior is never surer than its labels.

References
----------
Horvitz, Thompson (1952); Hájek (1971) for the division by the mean of inverse weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bidding.estimators.quality_belief import VERSION, TaskBelief
from bidding.estimators.quality_fit import FitSetting, FittedTasks, TaskTable, fit_tasks
from bidding.estimators.quality_prior import (
    BASE_LOGIT,
    LEVEL_SD,
    TASKS_APART_SD,
    ModelFacts,
    Standing,
    cold_standing,
    facts_by_model,
    task_standing,
)
from bidding.estimators.quality_skill import TaskSkill
from bidding.features import GROUP_NORM, N_COUNTS, N_FEATURES, N_TEXT

Floats = NDArray[np.float64]

MAX_INVERSE_SHARE: Final = 50.0
"""A label stands for at most so many requests, whatever probability it claims."""

MAX_WEIGHT: Final = 5.0
_N_SPREAD: Final = 8
_FEATURE_LIMIT: Final = 8.0
_MIN_EVIDENCE: Final = 5.0
_LATEST_S: Final = 1e11
"""Stamps beyond this (the year 5138) are odd, like those that are no number."""

_DIFFICULTY_EVIDENCE: Final = 50.0
"""Labels from which on a task's difficulty is worth handing to a new one."""

_LEAST_SPREAD: Final = 0.3
NOVELTY_SD: Final = 0.5


class LabelBatch(NamedTuple):
    """Quality labels as columns, in log order; all of length n.

    Attributes
    ----------
    task, model : str
    outcome : in 0..1
    weight : trust in the source, in 0..1
    propensity : probability that this answer came to be labelled, given all that is known
        of it, its outcome included; 1 where every answer is, or nothing is known
    features : prompt features or None
    at_s : wall clock, seconds
    """

    task: Sequence[str]
    model: Sequence[str]
    outcome: Sequence[float]
    weight: Sequence[float]
    propensity: Sequence[float]
    features: Sequence[Sequence[float] | None]
    at_s: Sequence[float]


class QualityEstimator:
    """Many tasks; per task, models by name.

    Parameters
    ----------
    facts : iterable of ModelFacts
        The catalogue's models: those a new task starts with.
    """

    name: ClassVar[str] = "quality"
    version: ClassVar[int] = int(VERSION)

    def __init__(self, facts: Iterable[ModelFacts] = ()) -> None:
        self._facts: dict[str, ModelFacts] = dict(facts_by_model(facts))
        self._tasks: dict[str, TaskBelief] = {}

    @property
    def tasks(self) -> list[str]:
        """Tasks with a memory, sorted."""
        return sorted(self._tasks)

    def fold(self, labels: LabelBatch) -> list[str]:
        """Take in labels in log order; returns the tasks that changed, sorted.

        A label whose numbers are not usable (not finite, outcome outside 0..1, no weight)
        teaches nothing; odd features are as no features.
        """
        changed: set[str] = set()
        columns = zip(*labels, strict=True)
        for task, model, outcome, weight, propensity, features, at_s in columns:
            if not (0.0 <= outcome <= 1.0 and 0.0 < weight < math.inf):
                continue
            belief = self._task(task)
            row = belief.row(model)
            if row is None:
                row = belief.add_model(model, self._standing(task, model))
            if abs(at_s) <= _LATEST_S:
                belief.at_s = max(belief.at_s, float(at_s))
            f = usable_features(features)
            if f is not None:
                belief.see_prompt(f)
            share = _corrected_share(belief, propensity)
            belief.fold(row, float(outcome), min(float(weight), 1.0) * share, f)
            changed.add(task)
        return sorted(changed)

    def learn_tables(
        self,
        tables: Mapping[str, TaskTable],
        models: Sequence[str],
        setting: FitSetting | None = None,
    ) -> FittedTasks:
        """Replace the memory of tasks by what tables of outcomes teach; online goes on from it.

        Parameters
        ----------
        tables : mapping of str to TaskTable
            Per task its outcomes; what tasks have in common is learnt from all of them.
        models : sequence of str, (n_models,)
            Columns of every table.
        setting : FitSetting, optional
            How strongly the fit is held back; chosen within the tables when not given.
        """
        for task in tables:
            self._tasks.pop(task, None)
        born = []
        for task in tables:
            belief = TaskBelief(self._level(task))
            for model in models:
                belief.add_model(model, self._standing(task, model))
            born.append(belief)
        fitted = fit_tasks(born, list(tables.values()), setting)
        self._tasks.update(zip(tables, fitted.beliefs, strict=True))
        return fitted

    def state(self, task: str) -> list[float]:
        """The task's whole memory as finite floats, the version first. Raises `KeyError`."""
        return self._tasks[task].state()

    def models(self, task: str) -> list[str]:
        """Names of the models in `state`, in its order. Raises `KeyError`."""
        return list(self._tasks[task].models)

    def restore(self, task: str, models: Sequence[str], state: Sequence[float]) -> None:
        """Replace the task's memory. Raises `BadState` on another version or shape."""
        self._tasks[task] = TaskBelief.of_state(models, state)

    def forget(self, task: str) -> None:
        """Drop the task: its partition went to another estimator."""
        self._tasks.pop(task, None)

    def skill(self, task: str) -> TaskSkill:
        """What is published of the task. One without a memory is answered from the prior."""
        belief = self._tasks.get(task)
        if belief is None:
            belief = self._born(task)
        return published(task, belief)

    def _task(self, task: str) -> TaskBelief:
        belief = self._tasks.get(task)
        if belief is None:
            belief = self._tasks[task] = self._born(task)
        return belief

    def _born(self, task: str) -> TaskBelief:
        belief = TaskBelief(self._level(task))
        belief.take_difficulty(
            [
                other
                for name, other in sorted(self._tasks.items())
                if name != task and other.n_labels >= _DIFFICULTY_EVIDENCE and other.n_prompts > 0
            ]
        )
        for model in sorted(self._facts):
            belief.add_model(model, self._standing(task, model))
        return belief

    def _level(self, task: str) -> Standing:
        levels = [
            level_of(other)
            for name, other in sorted(self._tasks.items())
            if name != task and other.n_labels >= _MIN_EVIDENCE
        ]
        precision = 1.0 / LEVEL_SD**2
        total = BASE_LOGIT * precision
        for level in levels:
            weight = 1.0 / (LEVEL_SD**2 + level.sd**2)
            precision += weight
            total += weight * level.theta
        apart = TASKS_APART_SD if levels else LEVEL_SD
        return Standing(total / precision, math.sqrt(apart**2 + 1.0 / precision))

    def _standing(self, task: str, model: str) -> Standing:
        cold = cold_standing(self._facts.get(model), self._facts.values())
        elsewhere = [
            Standing(float(other.own[row, 0]), math.sqrt(float(other.own_cov[row, 0, 0])))
            for name, other in sorted(self._tasks.items())
            if name != task
            for row in [other.row(model)]
            if row is not None and other.model_columns[row, 6] >= _MIN_EVIDENCE
        ]
        return task_standing(cold, elsewhere)


def level_of(belief: TaskBelief) -> Standing:
    """The task's level: log-odds of an average model on its ordinary prompt."""
    phi = np.concatenate([[1.0], belief.centre])
    variance = float(phi @ belief.weights_cov @ phi)
    return Standing(float(phi @ belief.weights), math.sqrt(max(variance, 0.0)))


def published(task: str, belief: TaskBelief) -> TaskSkill:
    """The gateways' form of a belief."""
    level = level_of(belief)
    centre = belief.centre
    at_centre = np.concatenate([[1.0], belief.projection @ centre])
    theta = level.theta + belief.own @ at_centre
    own_var = belief.drifted_var() - belief.own_cov[:, 0, 0]
    own_var = own_var + np.einsum("i,mij,j->m", at_centre, belief.own_cov, at_centre)
    # What the level's being unknown leaves in doubt of every model is shared; the rest is own.
    in_doubt = level.sd**2 * np.square(1.0 + belief.tied @ at_centre)
    shared_var = float(in_doubt.min(initial=level.sd**2))
    own_var = own_var + in_doubt - shared_var
    difficulty = belief.weights[1:]
    cov = belief.weights_cov[1:, 1:]
    values, vectors = np.linalg.eigh(cov)
    top = np.sqrt(np.maximum(values[-_N_SPREAD:], 0.0))[:, None] * vectors[:, -_N_SPREAD:].T
    return TaskSkill(
        task=task,
        at_us=int(belief.at_s * 1e6),
        models=list(belief.models),
        theta=theta.tolist(),
        theta_sd=np.sqrt(np.maximum(own_var, 0.0)).tolist(),
        n_labels=belief.model_columns[:, 6].tolist(),
        level_sd=math.sqrt(shared_var),
        prompt_sd=math.sqrt(float(np.sum(np.square(difficulty) * belief.spread))),
        centre=centre.tolist(),
        inv_scale=_distance_scale(belief.spread).tolist(),
        basis=np.vstack([difficulty, belief.projection]).tolist(),
        loadings=np.hstack([np.ones((len(belief.models), 1)), belief.own[:, 1:]]).tolist(),
        spread=top.tolist(),
        novelty_sd=NOVELTY_SD,
    )


def _distance_scale(spread: Floats) -> Floats:
    """One over each feature's spread, never taken narrower than a third of the ordinary; cluster
    memberships are left out, being rare and large by nature.
    """
    n_near = N_COUNTS + N_TEXT
    group = np.repeat([N_COUNTS, N_TEXT], [N_COUNTS, N_TEXT])
    floor = _LEAST_SPREAD * GROUP_NORM**2 / group
    scale = np.zeros(N_FEATURES)
    scale[:n_near] = 1.0 / np.sqrt(np.maximum(spread[:n_near], floor))
    return scale


def usable_features(features: Sequence[float] | None) -> Floats | None:
    """Features as an array within bounds; None if missing, odd or of another length."""
    if features is None or len(features) != N_FEATURES:
        return None
    f = np.asarray(features, dtype=np.float64)
    if not np.all(np.isfinite(f)):
        return None
    return np.clip(f, -_FEATURE_LIMIT, _FEATURE_LIMIT)


def _corrected_share(belief: TaskBelief, propensity: float) -> float:
    """Weight of a label for the requests it stands for, on average 1 over the task."""
    inverse = 1.0
    if math.isfinite(propensity) and propensity > 0.0:
        inverse = min(max(1.0 / propensity, 1.0), MAX_INVERSE_SHARE)
    belief.n_requests += inverse
    step = 1.0 / min(belief.n_labels + 1.0, 1000.0)
    belief.inverse_share += step * (inverse - belief.inverse_share)
    return min(inverse / max(belief.inverse_share, 1.0), MAX_WEIGHT)
