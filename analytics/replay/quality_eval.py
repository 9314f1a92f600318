"""Offline figures of the quality model: `python -m analytics.replay.quality_eval --data DIR`.

Each question is a joint set of prompts and its market (`quality_problem`), scored on prompts not
learnt from (`quality_splits`) and on kinds of task never seen (`unseen_task`). With
`--test-data` everything under `--data` is learnt and the other folder's prompts are scored.
Settings of the model are chosen within each learning half, by its own cross-validation; nothing
here is tuned on what it is scored on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from analytics.embedding import PromptFeatures, load_prompt_features
from analytics.replay.datasets import DataFolder, join
from analytics.replay.errors import DatasetMissing
from analytics.replay.quality_problem import Problem, make_problem
from analytics.replay.quality_splits import figures, learning_masks, run_split
from analytics.replay.unseen_task import new_kinds, new_set

QUESTIONS: Final = (("gsm", "math-l5"), ("alpaca_eval_v1",), ("routellm_mmlu",))
MIN_KINDS: Final = 3


def evaluate(problem: Problem, n_splits: int) -> dict[str, Any]:
    """All figures of one question, split by prompt."""
    masks = learning_masks(problem.questions.items, n_splits)
    results = [run_split(problem, mask, 1.0 - mask) for mask in masks]
    return _described(problem, figures(results, len(problem.questions.items)), n_splits)


def evaluate_against(known: Problem, test: Problem) -> dict[str, Any]:
    """All figures of prompts in another folder, having learnt every prompt of the first."""
    both = joined(known, test)
    n_known = len(known.questions.items)
    learning = (np.arange(len(both.questions.items)) < n_known).astype(np.float64)
    result = run_split(both, learning, 1.0 - learning)
    return _described(both, figures([result], len(both.questions.items)), 1)


def _described(problem: Problem, found: dict[str, Any], n_splits: int) -> dict[str, Any]:
    questions = problem.questions
    return {
        "set": questions.name,
        "n_prompts": len(questions.items),
        "n_models": len(questions.models),
        "n_splits": n_splits,
        "statistic": "mean over splits, 95 % bootstrap interval over prompts",
        "figures": {name: figure._asdict() for name, figure in found.items()},
    }


def joined(known: Problem, test: Problem) -> Problem:
    models = [m for m in known.questions.models if m in test.questions.models]
    if len(models) < 2:
        raise DatasetMissing(f"{test.questions.name}: fewer than two models are known from before")
    sides = [_only(known, models), _only(test, models)]
    return sides[0]._replace(
        questions=join([side.questions for side in sides]),
        features=np.concatenate([side.features for side in sides]),
        cost=np.concatenate([side.cost for side in sides]),
    )


def _only(problem: Problem, models: Sequence[str]) -> Problem:
    columns = [problem.questions.models.index(model) for model in models]
    return problem._replace(
        questions=problem.questions.only_models(models),
        input_usd=None if problem.input_usd is None else problem.input_usd[columns],
        output_usd=None if problem.output_usd is None else problem.output_usd[columns],
        cost=problem.cost[:, columns],
    )


def unseen(
    folder: DataFolder, names: Sequence[str], source: PromptFeatures
) -> list[dict[str, Any]]:
    """Every ordered pair of sets that share ten models, and left-out kinds within each set."""
    found: list[dict[str, Any]] = []
    problems = {name: _try_problem(folder, [name], source) for name in names}
    whole = {name: problem for name, problem in problems.items() if problem is not None}
    for first, known in whole.items():
        for second, other in whole.items():
            shared = [m for m in known.questions.models if m in other.questions.models]
            if first == second or len(shared) < 10 or known.input_usd is None:
                continue
            result = new_set(_only(known, shared), _only(other, shared))
            found.append({"learnt": first, "unseen": second, **result._asdict()})
    for name, problem in whole.items():
        if len(set(problem.questions.kinds)) >= MIN_KINDS:
            shortfall, gap, ece = new_kinds(problem)
            found.append(
                {
                    "learnt": f"{name}, other kinds",
                    "unseen": f"{name}, kinds left out",
                    "shortfall_before": shortfall,
                    "gap_before": gap,
                    "ece_before": ece,
                }
            )
    return found


def _try_problem(
    folder: DataFolder, names: Sequence[str], source: PromptFeatures
) -> Problem | None:
    try:
        return make_problem(folder, names, source)
    except DatasetMissing as reason:
        sys.stderr.write(f"left out: {reason}\n")
        return None


def _questions(folder: DataFolder, asked: str | None) -> list[tuple[str, ...]]:
    if asked:
        return [tuple(group.split("+")) for group in asked.split(",")]
    known = folder.quality_sets()
    return [group for group in QUESTIONS if all(name in known for name in group)]


def main() -> None:
    """Print the figures as text or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--test-data", type=Path)
    parser.add_argument("--set", help="groups such as gsm+math-l5,alpaca_eval_v1")
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    source = load_prompt_features()
    folder = DataFolder(arguments.data)
    report: dict[str, Any] = {"sets": [], "unseen": []}
    groups = _questions(folder, arguments.set)
    for names in groups:
        problem = _try_problem(folder, names, source)
        if problem is None:
            continue
        if arguments.test_data is None:
            report["sets"].append(evaluate(problem, arguments.splits))
            continue
        test = _try_problem(DataFolder(arguments.test_data, folder), names, source)
        if test is not None:
            report["sets"].append(evaluate_against(problem, test))
    report["unseen"] = unseen(folder, [name for names in groups for name in names], source)
    if arguments.json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        sys.stdout.write(_text(report))


def _text(report: dict[str, Any]) -> str:
    lines: list[str] = []
    for question in report["sets"]:
        lines.append(
            f"{question['set']}: {question['n_prompts']} prompts, {question['n_models']} models, "
            f"{question['n_splits']} splits"
        )
        for name, figure in question["figures"].items():
            span = f"{figure['low']:.3f} … {figure['high']:.3f}"
            lines.append(f"  {name:32} {figure['mean']:8.4f}   {span}")
    for row in report["unseen"]:
        numbers = ", ".join(f"{k} {v:.3f}" for k, v in row.items() if isinstance(v, float))
        lines.append(f"{row['learnt']} → {row['unseen']}: {numbers}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
