"""What-if reports against what the changes then do, on one market (`make whatif-truth`: ten)."""

from __future__ import annotations

import pytest

from analytics.whatif import Drives
from analytics.whatif_report import report
from bidding.params_change import with_changes
from broker.rehearsal.whatif_truth import HARSH, Market

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def market() -> Market:
    return Market(5, n_window=800, n_before=2500)


def test_driving_through_the_params_in_force_gives_what_was_recorded(market: Market) -> None:
    said = market.said({"exploration.safety_sd": 1.0000001})
    assert said.changed_share < 0.05
    assert said.good is not None
    assert said.good.then.claimed
    assert said.good.then.doubly_robust.value == pytest.approx(said.good.now, abs=0.01)
    assert not said.called
    assert said.n_missing == 0


def test_what_is_shared_between_changes_changes_no_report(market: Market) -> None:
    """The second report on a window is made from what the first found of its decisions."""
    change = {"pacing.quality_margin": -0.02}
    shared = market.said(change)
    alone = Drives(market.params, with_changes(market.params, change, version=1))
    for flown in market.recorded:
        alone.take(flown.moment)
    assert report(alone) == shared


def test_usual_changes_are_foreseen_and_hardly_raise_an_alarm(market: Market) -> None:
    changes = [
        {"pacing.quality_margin": -0.02},
        {"exploration.share": 0.1},
        {"choice.optimism_sd": 0.7},
        {"choice.failover_price_usd": 0.001},
    ]
    trials = [market.trial(change) for change in changes]
    assert not any(t.broken for t in trials), trials
    assert sum(t.called for t in trials) <= 1, trials
    for trial in trials:
        # One market's luck is in all of its trials: coverage is for `make whatif-truth` to count.
        for outcome in ("good", "on_time"):
            off = abs(trial.said[outcome][0] - trial.truth[outcome])
            assert trial.covered[outcome] or off < 0.03, trial


def test_a_change_that_breaks_a_promise_is_called_before_it_is_made(market: Market) -> None:
    trials = [market.trial(change) for change in HARSH[:5]]
    breaking = [trial for trial in trials if trial.broken]
    assert len(breaking) >= 2, trials
    assert all(trial.called for trial in breaking), breaking


def test_numbers_of_the_estimators_are_named_as_not_covered(market: Market) -> None:
    said = market.said({"reliability.circuit.open_after": 9, "choice.optimism_sd": 0.9})
    assert said.not_covered == ["reliability.circuit.open_after"]
