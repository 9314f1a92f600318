"""Do tasks found from prompts recover the sets they came from, and do they help to choose?

Apps that name no task send prompts of several sets, mixed. Half of the prompts (by hash) is a
stream with labels of models drawn at random, from which clusters and quality are learned as they
would be live; the other half is scored. Side by side: one task for all (`unnamed`), the task
found from the prompt (`found`), and the set itself, as if the app had named it (`named`). All
three see the same labels and the same prompt features; costs are predicted alike for all.

    python -m analytics.replay.found_task_replay --data DIR [--seeds N]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from analytics.embedding import load_prompt_features
from analytics.replay.datasets import DataFolder, learning_half
from analytics.replay.files import Floats
from analytics.replay.frontier import gap_closed, hull_of, purchases
from analytics.replay.quality_problem import Problem, facts, make_problem, predicted_cost
from bidding.estimators.quality import LabelBatch, QualityEstimator
from bidding.estimators.quality_skill import logits, p_good, skill_arrays
from bidding.found_tasks import FoundTasks, TaskFinder

PUBLISH_EVERY: Final = 100
N_LABELS: Final = (300, 1_000, 4_000)
UNNAMED: Final = "unnamed"

Tasks = Callable[[Sequence[int], bool], list[str]]


def shared_information(a: Sequence[str], b: Sequence[str]) -> float:
    """Normalised mutual information of two labellings: 1 the same, 0 nothing in common.

    Examples
    --------
    >>> shared_information(["x", "x", "y"], ["u", "u", "v"])
    1.0
    >>> shared_information(["x", "x", "x"], ["u", "u", "v"])
    0.0
    """
    _, rows = np.unique(a, return_inverse=True)
    _, columns = np.unique(b, return_inverse=True)
    joint = np.zeros((rows.max() + 1, columns.max() + 1))
    np.add.at(joint, (rows, columns), 1.0 / len(rows))
    entropies = [_entropy(joint.sum(axis=1)), _entropy(joint.sum(axis=0))]
    if min(entropies) <= 0.0:
        return 0.0
    shared = sum(entropies) - _entropy(joint.ravel())
    return round(shared / float(np.sqrt(np.prod(entropies))), 12)


def purity(found: Sequence[str], truth: Sequence[str]) -> float:
    """Share of prompts whose cluster's most frequent set is their own."""
    n = 0
    for cluster in set(found):
        inside = [t for f, t in zip(found, truth, strict=True) if f == cluster]
        n += max(inside.count(t) for t in set(inside))
    return n / len(truth)


def one_run(problem: Problem, seed: int, n_labels: int) -> dict[str, Any]:
    """One stream and what came of it."""
    rng = np.random.default_rng(seed)
    half = learning_half(problem.questions.items, f"found{seed}")
    learning, scored = problem.take(half), problem.take(~half)
    stream = rng.integers(0, len(learning.features), n_labels)
    models = rng.integers(0, len(problem.questions.models), n_labels)
    finder, seen = TaskFinder(), FoundTasks([])
    as_found: list[str] = []
    for i, row in enumerate(stream.tolist()):
        features = learning.features[row].tolist()
        if i % PUBLISH_EVERY == 0:
            seen = FoundTasks(finder.tasks())
        as_found.append(seen.assign(features) or UNNAMED)
        finder.fold(features)
    seen = FoundTasks(finder.tasks())
    sets = [learning.questions.task[row] for row in stream.tolist()]
    tests = [seen.assign(f.tolist()) or UNNAMED for f in scored.features]
    truth = scored.questions.task
    cost = predicted_cost(learning, scored)
    told: dict[str, Any] = {
        "n_found": len(seen.tasks),
        "shared_information": shared_information(tests, truth),
        "purity": purity(tests, truth),
    }
    for name, given, asked in (
        ("unnamed", [UNNAMED] * n_labels, [UNNAMED] * len(truth)),
        ("found", as_found, tests),
        ("named", sets, truth),
    ):
        promised = _learn(learning, scored, given, asked, stream.tolist(), models.tolist())
        told |= {
            f"{name}_{word}": figure for word, figure in _figures(promised, cost, scored).items()
        }
    return told


def _learn(
    learning: Problem,
    scored: Problem,
    given: Sequence[str],
    asked: Sequence[str],
    stream: Sequence[int],
    bought: Sequence[int],
) -> Floats:
    """P(good) of the scored prompts after the stream's labels, each under its task."""
    quality = QualityEstimator(facts(learning))
    names = learning.questions.models
    quality.fold(
        LabelBatch(
            task=list(given),
            model=[names[m] for m in bought],
            outcome=[
                float(learning.questions.outcome[r, m]) for r, m in zip(stream, bought, strict=True)
            ],
            weight=[1.0] * len(given),
            propensity=[1.0] * len(given),
            features=[learning.features[r].tolist() for r in stream],
            at_s=[0.0] * len(given),
        )
    )
    arrays = {task: skill_arrays(quality.skill(task), names) for task in set(asked)}
    return np.array(
        [p_good(*logits(arrays[t], f)) for t, f in zip(asked, scored.features, strict=True)]
    )


def _figures(promised: Floats, cost: Floats, scored: Problem) -> dict[str, float]:
    outcome = scored.questions.outcome
    mass = np.full(len(outcome), 1.0 / len(outcome))
    p = np.clip(promised, 1e-6, 1.0 - 1e-6)
    log_loss = -float(np.mean(outcome * np.log(p) + (1.0 - outcome) * np.log1p(-p)))
    hull = hull_of(outcome, scored.cost, mass)
    oracle = purchases(outcome, scored.cost, scored.cost, outcome, scored.prices)
    ours = purchases(promised, cost, scored.cost, outcome, scored.prices)
    return {"log_loss": log_loss, "gap_closed": gap_closed(ours, oracle, hull, mass).linear}


def _entropy(p: Floats) -> float:
    return -float(np.sum(p[p > 0] * np.log(p[p > 0])))


def main(arguments: Sequence[str]) -> None:
    """Print mean and 95 % interval over seeds as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", default="gsm,math-l5")
    parser.add_argument("--seeds", type=int, default=20)
    asked = parser.parse_args(arguments)
    source = load_prompt_features()
    problem = make_problem(DataFolder(asked.data), asked.sets.split(","), source, "zeroeval_wide")
    for n in N_LABELS:
        runs = [one_run(problem, seed, n) for seed in range(asked.seeds)]
        for name in ("found", "named"):
            for word in ("log_loss", "gap_closed"):
                for run in runs:
                    run[f"{name}_less_unnamed_{word}"] = (
                        run[f"{name}_{word}"] - run[f"unnamed_{word}"]
                    )
        told = {
            key: [
                round(float(f(np.array([run[key] for run in runs]))), 4) for f in (np.mean, _half)
            ]
            for key in runs[0]
        }
        sys.stdout.write(json.dumps({"n_labels": n, "n_seeds": asked.seeds, **told}) + "\n")
        sys.stdout.flush()


def _half(values: Floats) -> float:
    """Half the width of the 95 % interval of the mean over seeds."""
    return float(1.96 * values.std(ddof=1) / np.sqrt(len(values)))


if __name__ == "__main__":
    main(sys.argv[1:])
