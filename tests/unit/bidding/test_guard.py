"""A canary's guard: ends what is surely worse, lets pass what is not, over seeds."""

from __future__ import annotations

import numpy as np
import pytest

from bidding.guard import MOST_CLASSES, Guard, Seen, Worse


def run(seed: int, n: int = 6000, **worse: float) -> Worse | None:
    """A minute of requests, a tenth in the canary; the guard looks every second."""
    rng = np.random.default_rng(seed)
    guard = Guard()
    for i in range(n):
        inside = bool(rng.random() < 0.1)
        more = worse if inside else {}
        usd = float(rng.lognormal(-7.0, 0.8))
        other_good = float(rng.uniform(0.88, 0.99))
        good = other_good - more.get("less_good", 0.0) + float(rng.normal(0.0, 0.01))
        guard.take(
            Seen(
                in_canary=inside,
                failed=bool(rng.random() < 0.005 + more.get("failed", 0.0)),
                on_time=bool(rng.random() < 0.96 - more.get("late", 0.0)),
                target_on_time=0.95,
                target_quality=0.93,
                cost_usd=usd,
                p_good=good,
                expected_usd=usd * (1.0 + more.get("dearer", 0.0) * float(rng.random() < 0.5)),
                other_p_good=other_good if inside else None,
                other_usd=usd if inside else None,
            )
        )
        if rng.random() < 0.3:
            quality = float(rng.random() < good)
            guard.score(in_canary=inside, quality=quality, target=0.93)
        if i % 100 == 99 and (breach := guard.breach()) is not None:
            return breach
    return None


def test_two_arms_alike_are_let_be_in_twenty_of_twenty() -> None:
    assert [run(seed) for seed in range(20)] == [None] * 20


@pytest.mark.parametrize(
    ("what", "by"), [("failed", 0.15), ("late", 0.3), ("less_good", 0.08), ("dearer", 1.0)]
)
def test_what_is_surely_worse_is_ended_and_named(what: str, by: float) -> None:
    for seed in range(3):
        breach = run(seed, **{what: by})
        assert breach is not None, what
        assert breach.what == what or (what, breach.what) == ("less_good", "bad")
        assert breach.least > breach.tolerated


def test_a_promise_overfulfilled_less_is_kept() -> None:
    """P(good) falls by a point and a half on average and stays over what was promised."""
    guard = Guard()
    for i in range(4000):
        guard.take(
            Seen(
                in_canary=i % 2 == 0,
                failed=False,
                on_time=None,
                target_on_time=None,
                target_quality=0.9,
                cost_usd=1e-4,
                p_good=0.95,
                expected_usd=1e-4,
                other_p_good=0.99,
                other_usd=1e-4,
            )
        )
    worse = {w.what: w for w in guard.compared()}["less_good"]
    assert worse.least > worse.tolerated
    assert not worse.surely
    assert guard.breach() is None


def test_a_class_that_is_given_less_than_promised_does_not_hide_behind_one_given_more() -> None:
    rng = np.random.default_rng(4)
    guard = Guard()
    for i in range(1500):
        generous = i % 2 == 0
        good = (0.97 if generous else 0.84) + float(rng.normal(0.0, 0.02))
        guard.take(
            Seen(
                in_canary=i % 10 < 5,
                failed=False,
                on_time=None,
                target_on_time=None,
                target_quality=0.8 if generous else 0.9,
                cost_usd=1e-4,
                sla_class="t|easy|q0.8" if generous else "t|hard|q0.9",
                p_good=good,
                expected_usd=1e-4,
                other_p_good=good if generous else good + 0.09,
                other_usd=1e-4,
            )
        )
    breach = guard.breach()
    assert breach is not None
    assert (breach.what, breach.sla_class) == ("less_good", "t|hard|q0.9")
    together = next(w for w in guard.compared() if w.what == "less_good" and not w.sla_class)
    assert together.least > together.tolerated
    assert together.short is not None
    assert together.short < 0.0


def test_classes_without_end_are_compared_together_and_take_no_more_room() -> None:
    guard = Guard()
    for i in range(2 * MOST_CLASSES):
        guard.score(in_canary=i % 2 == 0, quality=1.0, target=0.9, sla_class=f"t|task{i}|q0.9")
    assert len(guard._classes) == MOST_CLASSES
    assert [w.what for w in guard.compared()] == ["bad"]


def test_a_shortfall_that_is_over_is_not_held_against_a_canary() -> None:
    """Both arms begin short of it; the canary stays a little worse, and keeps it now."""
    rng = np.random.default_rng(8)
    guard = Guard()
    for i in range(2400):
        other = (0.8 if i < 800 else 0.97) + float(rng.normal(0.0, 0.02))
        guard.take(
            Seen(
                in_canary=i % 2 == 0,
                failed=False,
                on_time=None,
                target_on_time=None,
                target_quality=0.92,
                cost_usd=1e-4,
                p_good=other - (0.0 if i < 800 else 0.03),
                expected_usd=1e-4,
                other_p_good=other,
                other_usd=1e-4,
            )
        )
        assert guard.breach() is None, i
    worse = {w.what: w for w in guard.compared()}["less_good"]
    assert worse.least > worse.tolerated
