"""From decisions and feedback to skills: what is learned of tasks, behind one door.

Owns per task the quality model, answer lengths and class prices, and up to where the task's
log is folded in. A fact at or below a task's own position was folded in before and is passed
over. What is published of a task is all that a gateway knows of quality and its price.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct

from bidding.errors import BadState
from bidding.estimators.quality import LabelBatch, QualityEstimator
from bidding.estimators.tokens import AnswerBatch, TokenTask
from bidding.facts import facts_of
from bidding.found_tasks import UNNAMED_TASK, TaskFinder, root_of
from bidding.market import Catalogue
from bidding.pacing import ClassPricer, Prices
from bidding.params import Params
from bidding.quote import Position
from bidding.skill import Skill
from bidding.trial import NO_TRIALS, TrialPacing


class Settled(Struct, frozen=True, kw_only=True):
    """What a settled decision teaches of its task. None where it was not known or not asked."""

    task: str
    sla_class: str
    at_us: int
    model: str | None
    output_tokens: int
    cut: bool
    target_quality: float | None
    target_on_time: float | None
    p_good: float | None
    p_on_time: float | None
    on_time: bool | None
    free: bool
    paid_nusd: Prices = (None, None)
    features: tuple[float, ...] = ()


class Label(Struct, frozen=True, kw_only=True):
    """A quality score of an answer, with what was believed of it when it was bought."""

    task: str
    sla_class: str
    at_us: int
    model: str
    quality: float
    weight: float
    labelled_share: float
    features: tuple[float, ...]
    p_good: float | None


class Appraisal(Struct, kw_only=True):
    """A skill to publish, and the state to resume its task from."""

    skill: Skill
    positions: list[Position]
    state: dict[str, list[float]]
    classes: dict[str, list[float]]
    models: list[str]
    quality_models: list[str]


class _Task:
    def __init__(self, params: Params, trials: Mapping[str, TrialPacing]) -> None:
        self.tokens = TokenTask(params.tokens)
        self.models: list[str] = []
        self.pricer = ClassPricer(params.pacing)
        self.pricer.steer(params.pacing, trials)
        self.positions: dict[tuple[str, int], Position] = {}

    def row(self, model: str) -> int:
        if model not in self.models:
            self.models.append(model)
            self.tokens.grow(len(self.models))
        return self.models.index(model)

    def is_new(self, position: Position) -> bool:
        """Whether the fact at `position` is not folded in yet; notes it as folded."""
        at = (position.topic, position.partition)
        known = self.positions.get(at)
        if known is not None and known.log == position.log and position.offset <= known.offset:
            return False
        self.positions[at] = position
        return True


class Appraiser:
    """Folds settled decisions and labels into skills. Pure: time is an argument."""

    def __init__(self, catalogue: Catalogue, params: Params | None = None) -> None:
        self.params = params or Params()
        self.quality = QualityEstimator(facts_of(catalogue))
        self.finder = TaskFinder()
        self._tasks: dict[str, _Task] = {}
        self._trials: Mapping[str, TrialPacing] = NO_TRIALS
        self._changed: set[str] = set()
        self.n_decisions = 0
        self.n_labels = 0
        self.n_repeated = 0

    def steer(self, params: Params, trials: Mapping[str, TrialPacing] = NO_TRIALS) -> None:
        """Go on under other params; every skill may look different by them. `trials` are those
        that run, by arm: classes of others are forgotten.
        """
        self.params = params
        self._trials = trials
        for task in self._tasks.values():
            task.tokens.steer(params.tokens)
            task.pricer.steer(params.pacing, trials)
        self._changed.update(self._tasks)

    def fold_decision(self, settled: Settled, position: Position) -> None:
        """Take in a settled decision."""
        task = self._task(settled.task)
        if not task.is_new(position):
            self.n_repeated += 1
            return
        self.n_decisions += 1
        self._changed.add(settled.task)
        self._find_task(settled, position)
        if settled.model is not None and settled.output_tokens > 0:
            task.tokens.fold(
                AnswerBatch(
                    row=np.array([task.row(settled.model)], dtype=np.int64),
                    at_s=np.array([settled.at_us * 1e-6]),
                    output_tokens=np.array([float(settled.output_tokens)]),
                    cut=np.array([settled.cut]),
                    trust=np.ones(1),
                )
            )
        task.pricer.fold_decision(
            settled.sla_class,
            target_quality=settled.target_quality,
            target_on_time=settled.target_on_time,
            p_good=settled.p_good,
            p_on_time=settled.p_on_time,
            on_time=settled.on_time,
            free=settled.free,
            paid_nusd=settled.paid_nusd,
        )

    def _find_task(self, settled: Settled, position: Position) -> None:
        """Let a prompt whose app named no task be found a kind. All of those are in one partition,
        in order, so the unnamed task's position says what the clusters have seen.
        """
        if root_of(settled.task) != UNNAMED_TASK:
            return
        if settled.task == UNNAMED_TASK or self._task(UNNAMED_TASK).is_new(position):
            self.finder.fold(settled.features)
            self._changed.add(UNNAMED_TASK)

    def fold_label(self, label: Label, position: Position) -> None:
        """Take in a quality score."""
        task = self._task(label.task)
        if not task.is_new(position):
            self.n_repeated += 1
            return
        self.n_labels += 1
        self._changed.add(label.task)
        self.quality.fold(
            LabelBatch(
                task=[label.task],
                model=[label.model],
                outcome=[label.quality],
                weight=[label.weight],
                propensity=[label.labelled_share],
                features=[label.features or None],
                at_s=[label.at_us * 1e-6],
            )
        )
        if label.p_good is not None:
            task.pricer.fold_label(
                label.sla_class, quality=label.quality, p_good=label.p_good, weight=label.weight
            )

    def restore(
        self,
        task_name: str,
        state: Mapping[str, Sequence[float]],
        classes: Mapping[str, Sequence[float]],
        models: Sequence[str],
        quality_models: Sequence[str],
        positions: Sequence[Position],
    ) -> None:
        """Resume a task from what was published; a part that cannot be read starts afresh."""
        task = self._tasks[task_name] = _Task(self.params, self._trials)
        task.positions = {(p.topic, p.partition): p for p in positions}
        try:
            task.pricer.restore(classes)
        except BadState:
            task.pricer = ClassPricer(self.params.pacing)
            task.pricer.steer(self.params.pacing, self._trials)
        try:
            for model in models:
                row = task.row(model)
                task.tokens.restore(row, state[f"tokens:{model}"])
        except (BadState, KeyError):
            task.tokens, task.models = TokenTask(self.params.tokens), []
        if task_name == UNNAMED_TASK and "found" in state:
            try:
                self.finder.restore(state["found"])
            except BadState:
                self.finder = TaskFinder()
        if "quality" in state:
            try:
                self.quality.restore(task_name, quality_models, state["quality"])
            except BadState:
                self.quality.forget(task_name)

    def skills(self, now_us: int, *, everything: bool = False) -> list[Appraisal]:
        """Tasks that changed since the last call (or all), as believed at `now_us`."""
        names = sorted(self._tasks if everything else self._changed)
        self._changed.clear()
        return [self._appraisal(name, now_us) for name in names]

    def _appraisal(self, name: str, now_us: int) -> Appraisal:
        task = self._tasks[name]
        mean, sd, _ = task.tokens.log_law(now_us * 1e-6)
        state = {f"tokens:{m}": task.tokens.state(row) for row, m in enumerate(task.models)}
        has_labels = name in self.quality.tasks
        if has_labels:
            state["quality"] = self.quality.state(name)
        is_unnamed = name == UNNAMED_TASK
        if is_unnamed and self.finder.n_prompts:
            state["found"] = self.finder.state()
        return Appraisal(
            skill=Skill(
                task=name,
                at_us=now_us,
                quality=self.quality.skill(name),
                models=list(task.models),
                out_log_tokens=mean.tolist(),
                out_log_sd=sd.tolist(),
                classes=task.pricer.prices(),
                found=self.finder.tasks() if is_unnamed else [],
            ),
            positions=list(task.positions.values()),
            state=state,
            classes=task.pricer.state(),
            models=list(task.models),
            quality_models=self.quality.models(name) if has_labels else [],
        )

    def _task(self, name: str) -> _Task:
        task = self._tasks.get(name)
        if task is None:
            task = self._tasks[name] = _Task(self.params, self._trials)
        return task
