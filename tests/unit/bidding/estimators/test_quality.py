"""The quality estimator: what labels teach, what a birth inherits, what a restart keeps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from bidding.errors import BadState
from bidding.estimators.quality import LabelBatch, QualityEstimator
from bidding.estimators.quality_prior import ModelFacts
from bidding.estimators.quality_skill import TaskSkill, logits, p_good, skill_arrays
from bidding.features import N_FEATURES

FACTS = [
    ModelFacts(model="small", family="a", prior_quality=0.6, output_usd_per_mtok=0.1),
    ModelFacts(model="large", family="a", prior_quality=0.9, output_usd_per_mtok=10.0),
]


def batch(
    rows: Sequence[tuple[str, float]],
    *,
    task: str = "t",
    propensity: float | Sequence[float] = 1.0,
    features: Sequence[Sequence[float] | None] | None = None,
) -> LabelBatch:
    n = len(rows)
    shares = [propensity] * n if isinstance(propensity, float) else list(propensity)
    return LabelBatch(
        task=[task] * n,
        model=[model for model, _ in rows],
        outcome=[outcome for _, outcome in rows],
        weight=[1.0] * n,
        propensity=shares,
        features=features or [None] * n,
        at_s=[0.0] * n,
    )


def p_of(skill: TaskSkill, model: str, features: Sequence[float] | None = None) -> float:
    arrays = skill_arrays(skill, [model])
    return float(p_good(*logits(arrays, features))[0])


def coin(p: float, n: int, seed: int) -> list[float]:
    return [float(x) for x in np.random.default_rng(seed).random(n) < p]


def test_labels_move_a_model_to_its_share_of_good_answers() -> None:
    quality = QualityEstimator(FACTS)
    quality.fold(batch([("small", y) for y in coin(0.3, 400, 1)]))
    quality.fold(batch([("large", y) for y in coin(0.95, 400, 2)]))
    skill = quality.skill("t")
    assert p_of(skill, "small") == pytest.approx(0.3, abs=0.06)
    assert p_of(skill, "large") == pytest.approx(0.95, abs=0.03)


def test_published_scores_order_models_before_any_label() -> None:
    skill = QualityEstimator(FACTS).skill("new")
    assert p_of(skill, "small") < p_of(skill, "large")
    assert min(skill.theta_sd) > 0.4
    assert skill.level_sd > 0.9


def test_a_new_task_inherits_standing_from_others_and_is_wide() -> None:
    quality = QualityEstimator([ModelFacts(model="x"), ModelFacts(model="y")])
    quality.fold(batch([("x", y) for y in coin(0.95, 300, 3)], task="old"))
    quality.fold(batch([("y", y) for y in coin(0.40, 300, 4)], task="old"))
    old, new = quality.skill("old"), quality.skill("new")
    assert p_of(new, "x") > p_of(new, "y") + 0.2
    assert new.level_sd > 2 * old.level_sd
    assert min(new.theta_sd) > min(old.theta_sd)


def test_what_was_inherited_is_in_the_state() -> None:
    quality = QualityEstimator(FACTS)
    quality.fold(batch([("large", 0.0)] * 50, task="old"))
    quality.fold(batch([("small", 1.0)], task="born"))
    before = quality.state("born")
    quality.fold(batch([("small", 0.0)] * 50, task="old"))
    assert quality.state("born") == before


def test_difficulty_is_shared_by_models() -> None:
    rng = np.random.default_rng(5)
    quality = QualityEstimator(FACTS)
    hard = [0.0] * N_FEATURES
    hard[0] = 1.0
    easy = [-x for x in hard]
    rows, features = [], []
    for _ in range(600):
        is_hard = rng.random() < 0.5
        rows.append(("small", float(rng.random() < (0.2 if is_hard else 0.9))))
        features.append(hard if is_hard else easy)
    quality.fold(batch(rows, features=features))
    skill = quality.skill("t")
    assert p_of(skill, "small", hard) < 0.35
    assert p_of(skill, "small", easy) > 0.75
    assert p_of(skill, "large", hard) < p_of(skill, "large", easy) - 0.2


def test_a_new_task_starts_from_what_is_hard_elsewhere() -> None:
    """Before any label of its own; its level stays as unsure as before."""
    quality = QualityEstimator([ModelFacts(model="x")])
    hard, easy = ([side] + [0.0] * (N_FEATURES - 1) for side in (1.0, -1.0))
    untaught = quality.skill("new")
    for outcome, features in ((0.0, hard), (1.0, easy)):
        quality.fold(batch([("x", outcome)] * 60, task="old", features=[features] * 60))
    new = quality.skill("new")
    assert p_of(untaught, "x", easy) == pytest.approx(p_of(untaught, "x", hard), abs=1e-9)
    assert p_of(new, "x", easy) > p_of(new, "x", hard) + 0.05
    assert new.level_sd > untaught.level_sd


def test_prompts_unlike_any_seen_widen() -> None:
    rng = np.random.default_rng(6)
    quality = QualityEstimator(FACTS)
    features = rng.normal(0.0, 0.2, (300, N_FEATURES)).tolist()
    quality.fold(batch([("small", y) for y in coin(0.7, 300, 7)], features=features))
    arrays = skill_arrays(quality.skill("t"), ["small", "large"])
    _, near = logits(arrays, features[0])
    _, far = logits(arrays, [2.0] * N_FEATURES)
    assert np.all(far > 1.5 * near)


def test_feedback_mostly_on_bad_answers_with_its_propensity_does_not_fool() -> None:
    rng = np.random.default_rng(8)
    quality = QualityEstimator([ModelFacts(model="m", prior_quality=0.5)])
    rows, shares = [], []
    for _ in range(12_000):
        good = rng.random() < 0.9
        share = 0.04 if good else 0.4
        if rng.random() < share:
            rows.append(("m", float(good)))
            shares.append(share)
    naive = sum(y for _, y in rows) / len(rows)
    quality.fold(batch(rows, propensity=shares))
    assert naive < 0.6
    assert p_of(quality.skill("t"), "m") == pytest.approx(0.9, abs=0.04)


def test_an_even_share_of_labels_weighs_as_one_label_each() -> None:
    labels = [("large", y) for y in coin(0.8, 200, 9)]
    full, part = QualityEstimator(FACTS), QualityEstimator(FACTS)
    full.fold(batch(labels))
    part.fold(batch(labels, propensity=0.2))
    assert p_of(part.skill("t"), "large") == pytest.approx(p_of(full.skill("t"), "large"), abs=0.02)
    assert part.skill("t").theta_sd == pytest.approx(full.skill("t").theta_sd, abs=0.03)


def test_a_model_that_degrades_is_noticed() -> None:
    quality = QualityEstimator(FACTS)
    quality.fold(batch([("small", y) for y in coin(0.9, 3000, 10)]))
    quality.fold(batch([("small", y) for y in coin(0.5, 150, 11)]))
    assert p_of(quality.skill("t"), "small") < 0.7


def test_variance_returns_while_a_model_is_not_asked() -> None:
    quality = QualityEstimator(FACTS)
    quality.fold(batch([("small", y) for y in coin(0.9, 500, 12)]))
    before = quality.skill("t")
    quality.fold(batch([("large", y) for y in coin(0.9, 4000, 13)], propensity=0.02))
    after = quality.skill("t")
    i = before.models.index("small")
    assert after.theta_sd[i] > before.theta_sd[i]


@pytest.mark.parametrize(
    "label",
    [
        {"outcome": math.nan},
        {"outcome": 1.5},
        {"outcome": -0.1},
        {"weight": 0.0},
        {"weight": math.nan},
        {"weight": math.inf},
    ],
)
def test_labels_that_cannot_be_used_teach_nothing(label: dict[str, float]) -> None:
    quality = QualityEstimator(FACTS)
    quality.fold(batch([("small", 1.0)]))
    before = quality.state("t")
    outcome, weight = label.get("outcome", 1.0), label.get("weight", 1.0)
    odd = batch([("small", 1.0)])._replace(outcome=[outcome], weight=[weight])
    assert quality.fold(odd) == []
    assert quality.state("t") == before


def test_odd_features_propensities_and_stamps_are_survived() -> None:
    quality = QualityEstimator(FACTS)
    odd = batch([("small", 1.0)] * 4)._replace(
        features=[[math.nan] * N_FEATURES, [1.0], [1e300] * N_FEATURES, None],
        propensity=[math.nan, -1.0, 0.0, 1e-300],
        at_s=[math.nan, -1e300, math.inf, 5.0],
    )
    quality.fold(odd)
    assert all(math.isfinite(x) for x in quality.state("t"))


def test_a_restored_task_goes_on_bit_for_bit() -> None:
    rng = np.random.default_rng(14)
    labels = [("small" if rng.random() < 0.5 else "large", float(rng.random())) for _ in range(60)]
    features: list[list[float] | None] = [rng.normal(size=N_FEATURES).tolist() for _ in labels]
    whole = QualityEstimator(FACTS)
    whole.fold(batch(labels, features=features))
    first, second = QualityEstimator(FACTS), QualityEstimator()
    first.fold(batch(labels[:23], features=features[:23]))
    second.restore("t", first.models("t"), first.state("t"))
    second.fold(batch(labels[23:], features=features[23:]))
    assert second.state("t") == whole.state("t")


def test_a_foreign_state_is_refused() -> None:
    quality = QualityEstimator(FACTS)
    quality.fold(batch([("small", 1.0)]))
    state, models = quality.state("t"), quality.models("t")
    for wrong in ([], state[:-1], [99.0, *state[1:]], [*state[:-1], math.nan]):
        with pytest.raises(BadState):
            QualityEstimator().restore("t", models, wrong)


def test_a_skill_survives_json() -> None:
    skill = QualityEstimator(FACTS).skill("t")
    assert msgspec.json.decode(msgspec.json.encode(skill), type=TaskSkill) == skill
