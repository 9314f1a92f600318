"""How far models lie apart is learnt, so that the luck of the best looking is taken back."""

from __future__ import annotations

import numpy as np
import pytest

from bidding.estimators.quality import QualityEstimator
from bidding.estimators.quality_fit import TaskTable
from bidding.estimators.standing_law import learnt_law, prior_law
from bidding.features import N_FEATURES


def test_the_spread_of_models_is_found() -> None:
    rng = np.random.default_rng(3)
    apart, own, error = 0.3, 0.15, 0.2
    common = rng.normal(0.0, apart, 400)
    truth = common[:, None] + rng.normal(0.0, own, (400, 2))
    seen = truth + rng.normal(0.0, error, truth.shape)
    law = learnt_law(
        prior_law(np.zeros(400), np.full(400, 0.81), 2), seen, np.full(seen.shape, error**-2)
    )
    assert law.var.mean() == pytest.approx(apart**2, rel=0.3)
    assert law.task_var == pytest.approx(own**2, rel=0.4)


def test_a_prior_that_says_nothing_is_forgotten_and_a_true_one_kept() -> None:
    rng = np.random.default_rng(4)
    said = rng.normal(0.0, 1.0, 300)
    information = np.full((300, 1), 100.0)
    for slope in (0.0, 0.6):
        seen = slope * (said - said.mean()) + rng.normal(0.0, 0.2, 300)
        law = learnt_law(prior_law(said, np.full(300, 0.8), 1), seen[:, None], information)
        assert np.polyfit(said, law.mean, 1)[0] == pytest.approx(slope, abs=0.1)


def test_two_models_keep_the_prior_in_sight() -> None:
    law = learnt_law(
        prior_law(np.zeros(2), np.full(2, 0.81), 1), np.zeros((2, 1)), np.full((2, 1), 1e4)
    )
    assert law.var.min() > 0.1


def test_what_one_task_teaches_of_a_model_helps_on_the_other() -> None:
    rng = np.random.default_rng(5)
    models = [f"m{i}" for i in range(12)]
    standing = np.linspace(-1.5, 1.5, 12)
    rates = 1.0 / (1.0 + np.exp(-(standing + np.array([[1.5], [-1.0]]))))
    tables = {
        task: TaskTable(rng.normal(size=(n, N_FEATURES)), (rng.random((n, 12)) < rates[t]) * 1.0)
        for t, (task, n) in enumerate((("easy", 400), ("hard", 25)))
    }
    together, alone = QualityEstimator(), QualityEstimator()
    together.learn_tables(tables, models)
    alone.learn_tables({"hard": tables["hard"]}, models)
    away = [
        float(np.square(np.array(one.skill("hard").theta) - standing + 1.0).mean())
        for one in (together, alone)
    ]
    assert away[0] < 0.6 * away[1]
    assert np.mean(together.skill("easy").theta) > np.mean(together.skill("hard").theta) + 1.5
