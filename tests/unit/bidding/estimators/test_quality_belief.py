"""The belief against the filter it stands for: one that keeps every covariance."""

from __future__ import annotations

import math

import numpy as np

from bidding.estimators.quality_belief import Floats, TaskBelief, posterior_mode
from bidding.estimators.quality_prior import Standing
from bidding.features import N_FEATURES

N_MODELS = 5


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


def test_level_and_standings_are_as_if_all_covariances_were_kept() -> None:
    rng = np.random.default_rng(5)
    truth = rng.normal(1.0, 0.8, N_MODELS)
    belief = TaskBelief(Standing(1.0, 1.0))
    for m in range(N_MODELS):
        belief.add_model(str(m), Standing(0.0, 0.9))
    mean = np.array([1.0] + [0.0] * N_MODELS)
    cov = np.diag([1.0] + [0.81] * N_MODELS)
    for n in range(400):
        m = int(rng.integers(2 if n < 150 else N_MODELS))
        outcome = float(rng.random() < _sigmoid(float(truth[m])))
        belief.fold(m, outcome, 1.0, None)
        h = np.zeros(1 + N_MODELS)
        h[[0, 1 + m]] = 1.0
        var, logit = float(h @ cov @ h), float(h @ mean)
        mode = posterior_mode(logit, var, outcome, 1.0)
        curvature = _sigmoid(mode) * (1.0 - _sigmoid(mode))
        gain = cov @ h
        mean = mean + (mode - logit) / var * gain
        cov = cov - curvature / (1.0 + curvature * var) * np.outer(gain, gain)
    level_var = float(belief.weights_cov[0, 0])
    own_var = belief.own_cov[:, 0, 0] + belief.tied[:, 0] ** 2 * level_var
    np.testing.assert_allclose(belief.weights[0], mean[0], atol=1e-9)
    np.testing.assert_allclose(belief.own[:, 0], mean[1:], atol=1e-9)
    np.testing.assert_allclose(own_var, np.diag(cov)[1:], rtol=1e-3)


def test_what_one_model_teaches_of_the_level_does_not_move_one_known_well() -> None:
    belief = TaskBelief(Standing(1.0, 1.0))
    known, other = (belief.add_model(name, Standing(0.0, 0.9)) for name in ("known", "other"))
    for n in range(300):
        belief.fold(known, float(n % 4 != 0), 1.0, None)
    before = belief.p_of(known, None)
    for _ in range(300):
        belief.fold(other, 0.0, 1.0, None)
    assert abs(belief.p_of(known, None) - before) < 0.01
    assert belief.p_of(other, None) < 0.1


def test_a_few_hundred_labels_tell_easy_prompts_from_hard_ones() -> None:
    """As far apart as grade-school and competition mathematics lie: 2.7 log-odds."""
    rng = np.random.default_rng(7)
    kind = rng.normal(size=N_FEATURES)
    kind *= 0.5 * math.sqrt(12.0) / float(np.linalg.norm(kind))
    belief = TaskBelief(Standing(1.0, 1.0))
    for m in range(N_MODELS):
        belief.add_model(str(m), Standing(0.0, 0.6))

    def asked(side: float) -> Floats:
        return side * kind + rng.normal(scale=0.2, size=N_FEATURES)

    for n in range(200):
        side = 1.0 if rng.random() < 0.5 else -1.0
        features = asked(side)
        belief.see_prompt(features)
        good = rng.random() < _sigmoid(1.0 + 1.35 * side)
        belief.fold(n % N_MODELS, float(good), 1.0, features)
    for side, truth in ((1.0, _sigmoid(2.35)), (-1.0, _sigmoid(-0.35))):
        believed = [belief.p_of(m, asked(side)) for m in range(N_MODELS) for _ in range(40)]
        assert abs(float(np.mean(believed)) - truth) < 0.08
