"""Offline replay: all named figures for all policies, and nothing chosen on what is scored."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from analytics.embedding import load_prompt_features
from analytics.replay.beliefs import BeliefCache
from analytics.replay.cli import main
from analytics.replay.datasets import DataFolder
from analytics.replay.quality_problem import make_problem
from analytics.replay.quality_splits import cross_fitted, learning_masks, run_split

MODELS = {"small": 0.1, "middle": 0.5, "large": 4.0}
FIGURES = (
    "usd_per_1k",
    "quality",
    "attained",
    "good_and_on_time",
    "usd_vs_hull",
    "gap_closed",
    "usd_at_95",
    "usd_at_98",
    "ece",
    "regret_usd",
    "recovery_requests",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sums: long ones are hard, and only the large model is good at those."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(7)
    (root / "sums").mkdir()
    (root / "market").mkdir()
    items, outcomes = [], ["item,model,correct,out_tokens"]
    for i in range(240):
        hard = bool(rng.random() < 0.4)
        numbers = rng.integers(10, 99, 12 if hard else 2)
        prompt = " + ".join(str(n) for n in numbers)
        items.append(json.dumps({"item": f"s{i}", "prompt": prompt, "in_tokens": 4 * len(numbers)}))
        for model, chance in zip(
            MODELS, (0.15, 0.3, 0.9) if hard else (0.9, 0.93, 0.95), strict=True
        ):
            outcomes.append(f"s{i},{model},{int(rng.random() < chance)},{rng.integers(20, 60)}")
    with gzip.open(root / "sums" / "items.jsonl.gz", "wt") as file:
        file.write("\n".join(items))
    (root / "sums" / "outcomes.csv").write_text("\n".join(outcomes))
    lines = [
        "market,offer,provider,latency_model,quality_model,input_usd_per_mtok,output_usd_per_mtok"
    ]
    lines += [f"zeroeval_wide,p/{m},p,{m},{m},{usd},{3 * usd}" for m, usd in MODELS.items()]
    (root / "market" / "offers.csv").write_text("\n".join(lines))
    return root


def test_every_policy_has_every_figure(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--data", str(data), "--set", "sums", "--mode", "offline", "--seeds", "2", "--json"]
    command += ["--cache", str(tmp_path)]
    assert main(command) == 0
    first = capsys.readouterr().out
    report = json.loads(first)
    lines = {line["policy"]: line for line in report["policies"]}
    assert {"broker", "cheapest", "best", "oracle", "litellm-cost-based"} <= set(lines)
    for line in lines.values():
        assert set(FIGURES) <= set(line)
        assert line["usd_per_1k_ci95"][0] <= line["usd_per_1k_ci95"][1]
    broker = lines["broker"]
    assert broker["gap_closed"] > 0.2  # hard prompts are told by their length
    assert lines["cheapest"]["usd_per_1k"] < broker["usd_per_1k"] < lines["best"]["usd_per_1k"]
    assert lines["best-fixed-mixture"]["gap_closed"] == 0.0
    assert list(tmp_path.glob("*.npz"))
    assert main(command) == 0
    assert capsys.readouterr().out == first  # the cache changes nothing


def test_what_is_scored_chooses_nothing(data: Path) -> None:
    problem = make_problem(DataFolder(data), ["sums"], load_prompt_features())
    (mask,) = learning_masks(problem.questions.items, 1)
    outcome = problem.questions.outcome.copy()
    outcome[mask == 0] = 1.0 - outcome[mask == 0]
    other = problem._replace(questions=problem.questions._replace(outcome=outcome))
    one, two = (run_split(p, mask, 1.0 - mask, BeliefCache()) for p in (problem, other))
    assert (one.chosen, one.aim) == (two.chosen, two.aim)
    assert np.array_equal(one.beliefs.p_good, two.beliefs.p_good)
    assert np.array_equal(one.policy.cost, two.policy.cost)
    assert not np.array_equal(one.policy.quality, two.policy.quality)


def test_a_prompts_own_answers_do_not_move_what_chooses_its_price(data: Path) -> None:
    problem = make_problem(DataFolder(data), ["sums"], load_prompt_features())
    outcome = problem.questions.outcome.copy()
    outcome[7] = 1.0 - outcome[7]
    other = problem._replace(questions=problem.questions._replace(outcome=outcome))
    before, after = (cross_fitted(p, BeliefCache()).p_good for p in (problem, other))
    assert np.array_equal(before[7], after[7])
    assert not np.array_equal(before[8], after[8])


def test_prompts_of_another_folder_are_scored(
    data: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    (other / "sums").mkdir(parents=True)
    text = (data / "sums" / "outcomes.csv").read_text().replace("\ns", "\nt")
    (other / "sums" / "outcomes.csv").write_text(text)
    with gzip.open(data / "sums" / "items.jsonl.gz", "rt") as file:
        items = file.read().replace('"item": "s', '"item": "t')
    with gzip.open(other / "sums" / "items.jsonl.gz", "wt") as file:
        file.write(items)
    command = ["--data", str(data), "--test-data", str(other), "--set", "sums"]
    command += ["--mode", "offline", "--json", "--cache", str(tmp_path / "cache")]
    assert main(command) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["n_splits"] == 1
    assert report["n_prompts"] == 480


def test_a_set_that_is_only_in_the_other_folder_is_split(
    data: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    known = tmp_path / "known"
    (known / "market").mkdir(parents=True)
    (known / "market" / "offers.csv").write_text((data / "market" / "offers.csv").read_text())
    command = ["--data", str(known), "--test-data", str(data), "--set", "sums", "--seeds", "1"]
    assert main([*command, "--mode", "offline", "--json", "--cache", str(tmp_path / "c")]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["n_prompts"], report["n_splits"], report["market"]) == (240, 1, "zeroeval_wide")
