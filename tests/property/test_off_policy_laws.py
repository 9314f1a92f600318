"""Off-policy estimates against markets whose truth is known, and what they refuse to claim."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bidding.columns import Floats
from bidding.off_policy import LEAST_KNOWN, Estimate, Logged, estimate

N_ARMS = 4
N_MARKETS = 150


def _logged(
    rng: np.random.Generator,
    *,
    n: int = 1500,
    old: Floats,
    new: Floats,
    model_error: float,
    doubt: float = 0.0,
    known_share: float = 0.4,
) -> tuple[Logged, float]:
    """Decisions of `old` in a market of two kinds of request, and what `new` would deliver.

    `old`, `new`: (2, N_ARMS) probabilities; the models are off by `model_error` in every arm.
    """
    rates = np.array([[0.2, 0.5, 0.7, 0.9], [0.6, 0.4, 0.3, 0.8]])
    believed = np.clip(rates + model_error, 0.0, 1.0)
    kind = rng.integers(0, 2, n)
    arm = np.array([rng.choice(N_ARMS, p=old[k]) for k in kind])
    outcome = (rng.random(n) < rates[kind, arm]).astype(np.float64)
    outcome[rng.random(n) > known_share] = math.nan
    weight = new[kind, arm] / old[kind, arm]
    unseen = new * (np.divide(new, old, out=np.full_like(new, np.inf), where=old > 0) > 20)
    logged = Logged(
        outcome=outcome,
        weight=weight,
        believed=believed[kind, arm],
        direct=(new * believed).sum(axis=1)[kind],
        unsupported=unseen.sum(axis=1)[kind],
        doubt=doubt * unseen.sum(axis=1)[kind],
        doubt_all=np.full(n, doubt),
        stratum=kind,
    )
    return logged, float((new * rates).sum(axis=1).mean())


SPREAD = np.array([[0.4, 0.3, 0.2, 0.1], [0.25, 0.25, 0.25, 0.25]])
OTHER = np.array([[0.1, 0.1, 0.3, 0.5], [0.7, 0.1, 0.1, 0.1]])


def _covered(found: list[tuple[Estimate, float]], name: str) -> float:
    inside = [getattr(e, name).low <= truth <= getattr(e, name).high for e, truth in found]
    return float(np.mean(inside))


@pytest.mark.parametrize("model_error", [0.0, 0.15, -0.2])
def test_with_support_all_three_cover_the_truth_though_the_models_are_wrong(
    model_error: float,
) -> None:
    rng = np.random.default_rng(3)
    found = []
    for _ in range(N_MARKETS):
        logged, truth = _logged(rng, old=SPREAD, new=OTHER, model_error=model_error)
        found.append((estimate(logged, low=0.0, high=1.0), truth))
    for name in ("doubly_robust", "ips", "snips"):
        assert _covered(found, name) >= 0.9, name
        mean = np.mean([getattr(e, name).value for e, _ in found])
        assert mean == pytest.approx(found[0][1], abs=0.012), name
    assert all(e.claimed for e, _ in found)
    if model_error:
        assert abs(np.mean([e.direct for e, _ in found]) - found[0][1]) > 0.05


def test_good_models_make_the_doubly_robust_interval_narrower_than_the_weights_alone() -> None:
    rng = np.random.default_rng(4)
    widths = []
    for _ in range(20):
        logged, _ = _logged(rng, old=SPREAD, new=OTHER, model_error=0.0)
        found = estimate(logged)
        widths.append([i.high - i.low for i in (found.doubly_robust, found.snips, found.ips)])
    doubly_robust, snips, ips = np.mean(widths, axis=0).tolist()
    assert doubly_robust < 0.9 * ips
    assert doubly_robust < 1.1 * snips


def test_the_same_policy_is_the_plain_mean() -> None:
    logged, _ = _logged(np.random.default_rng(5), old=SPREAD, new=SPREAD, model_error=0.1,
                        known_share=1.0)  # fmt: skip
    found = estimate(logged)
    mean = float(np.mean(logged.outcome))
    assert found.snips.value == pytest.approx(mean)
    assert found.ips.value == pytest.approx(mean)
    assert found.ess == pytest.approx(len(logged.outcome))
    assert found.supported_share == 1.0


def test_what_was_never_bought_is_the_models_word_and_not_claimed() -> None:
    old = np.array([[0.98, 0.02, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    new = np.array([[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]])
    logged, truth = _logged(
        np.random.default_rng(6), old=old, new=new, model_error=0.05, doubt=0.05
    )
    found = estimate(logged, low=0.0, high=1.0)
    assert not found.claimed
    assert "might have been bought" in found.refused
    assert found.supported_share == 0.0
    assert found.doubly_robust.value == pytest.approx(truth + 0.05, abs=0.02)
    assert found.doubly_robust.low <= truth <= found.doubly_robust.high
    assert math.isnan(found.snips.value)


def test_few_known_outcomes_are_refused_and_leave_the_models_word() -> None:
    logged, _ = _logged(
        np.random.default_rng(7), n=200, old=SPREAD, new=OTHER, model_error=0.0, doubt=0.1,
        known_share=0.02,
    )  # fmt: skip
    found = estimate(logged)
    assert found.n_known < LEAST_KNOWN
    assert not found.claimed
    assert found.doubly_robust.value == pytest.approx(found.direct)
    assert found.doubly_robust.high - found.doubly_robust.low > 2 * 1.9 * 0.1


def test_strata_with_different_shares_of_known_outcomes_do_not_bias() -> None:
    """All of one kind is labelled and a tenth of the other: a plain mean would be off."""
    rng = np.random.default_rng(8)
    errors = []
    for _ in range(60):
        logged, truth = _logged(rng, old=SPREAD, new=SPREAD, model_error=0.1, known_share=1.0)
        hidden = (logged.stratum == 1) & (rng.random(len(logged.outcome)) > 0.1)
        logged.outcome[hidden] = math.nan
        errors.append(estimate(logged).doubly_robust.value - truth)
    assert abs(np.mean(errors)) < 0.01


def test_nothing_logged_says_nothing() -> None:
    empty = np.zeros(0)
    found = estimate(Logged(*[empty] * 7, stratum=np.zeros(0, dtype=np.int64)))
    assert (found.n, found.claimed) == (0, False)
    assert found.refused
