"""Laws of the quality estimator: batch borders do not matter, nothing but finite numbers leaves."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bidding.estimators.quality import LabelBatch, QualityEstimator
from bidding.estimators.quality_belief import posterior_mode
from bidding.estimators.quality_prior import ModelFacts
from bidding.estimators.quality_skill import logits, p_good, skill_arrays
from bidding.features import N_FEATURES

any_float = st.floats(allow_nan=True, allow_infinity=True)
vectors = st.one_of(
    st.none(),
    st.lists(any_float, max_size=3),
    st.lists(st.floats(-9, 9), min_size=N_FEATURES, max_size=N_FEATURES),
)
labels = st.lists(
    st.tuples(
        st.sampled_from(["t", "u"]),
        st.sampled_from(["a", "b", "c"]),
        st.one_of(st.floats(0, 1), any_float),
        st.one_of(st.just(1.0), any_float),
        st.one_of(st.floats(0.01, 1), any_float),
        vectors,
        any_float,
    ),
    max_size=12,
)


def _batch(rows: list[tuple[object, ...]]) -> LabelBatch:
    columns = list(zip(*rows, strict=True)) or [()] * 7
    return LabelBatch(*columns)


@settings(max_examples=60, deadline=None)
@given(labels, st.integers(0, 12), vectors)
def test_whatever_is_fed_only_finite_numbers_leave_and_borders_do_not_matter(
    rows: list[tuple[object, ...]], cut: int, features: list[float] | None
) -> None:
    facts = [ModelFacts(model="a", prior_quality=0.7), ModelFacts(model="b")]
    whole, parts = QualityEstimator(facts), QualityEstimator(facts)
    whole.fold(_batch(rows))
    parts.fold(_batch(rows[:cut]))
    parts.fold(_batch(rows[cut:]))
    for task in whole.tasks:
        state = whole.state(task)
        assert all(math.isfinite(x) for x in state)
        assert parts.state(task) == state
        mean, sd = logits(skill_arrays(whole.skill(task), ["a", "b", "zz"]), None)
        p = p_good(mean, sd)
        assert np.all((p > 0) & (p < 1))
        assert np.all(sd >= 0)


@given(st.floats(-10, 10), st.floats(1e-6, 20), st.floats(0, 1), st.floats(1e-3, 50))
@example(mean=9.0, var=15.0, outcome=0.0, weight=24.0)
def test_the_mode_lies_between_the_prior_and_the_label(
    mean: float, var: float, outcome: float, weight: float
) -> None:
    mode = posterior_mode(mean, var, outcome, weight)
    p = 1 / (1 + math.exp(-mean))
    assert (mode - mean) * (outcome - p) >= -1e-6
    at_mode = 1 / (1 + math.exp(-mode))
    slope = weight * (outcome - at_mode) - (mode - mean) / var
    assert abs(slope) < 2e-3 * (1 + weight + 1 / var)
