"""Departures of models from shared difficulty are kept where they are surely no noise."""

from __future__ import annotations

import numpy as np
import pytest

from bidding.estimators.quality_belief import TaskBelief
from bidding.estimators.quality_fit import TaskTable, _luck_of_the_best, fit_tasks
from bidding.estimators.quality_prior import Standing
from bidding.features import N_FEATURES

N_PROMPTS = 500


def _rank_kept(n_models: int, apart: float, seed: int) -> int:
    """Directions kept of models that lean `apart` log-odds to either side along one feature."""
    rng = np.random.default_rng(seed)
    belief = TaskBelief(Standing(0.0, 1.0))
    for m in range(n_models):
        belief.add_model(f"m{m}", Standing(0.0, 0.6))
    features = rng.normal(0.0, 0.5, (N_PROMPTS, N_FEATURES))
    lean = np.where(np.arange(n_models) % 2 == 0, apart, -apart)
    logit = 0.5 + 2.0 * features[:, :1] * lean
    good = rng.random((N_PROMPTS, n_models)) < 1.0 / (1.0 + np.exp(-logit))
    outcome = good.astype(np.float64)
    return fit_tasks([belief], [TaskTable(features, outcome)]).setting.rank


def test_the_bar_is_what_the_best_of_so_many_reaches_by_luck() -> None:
    rng = np.random.default_rng(7)
    for n_models in (2, 10, 26):
        best = rng.standard_normal((20_000, n_models)).max(axis=1).mean()
        assert best < _luck_of_the_best(n_models) < best + 0.8
    assert _luck_of_the_best(1) == _luck_of_the_best(2) == pytest.approx(1.177, abs=1e-3)


def test_two_models_that_differ_are_told_apart_and_two_that_do_not_are_not() -> None:
    assert [_rank_kept(2, 0.9, seed) for seed in range(4)] == [1, 1, 1, 1]
    assert sum(_rank_kept(2, 0.0, seed) > 0 for seed in range(4)) <= 1


def test_a_dozen_alike_are_not_told_apart() -> None:
    assert [_rank_kept(12, 0.0, seed) for seed in range(2)] == [0, 0]
