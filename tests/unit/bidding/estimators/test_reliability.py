"""Failure shares, outliers and circuits from the log."""

from __future__ import annotations

import numpy as np
import pytest

from bidding.estimators.circuit import Circuit, CircuitBreakers, CircuitParams, spared
from bidding.estimators.reliability import ReliabilityEstimator, outliers
from bidding.outcome import FailureClass, Outcome, OutcomeBatch

NOON = 1_713_268_800.0


def fold(
    estimator: ReliabilityEstimator,
    failures: list[FailureClass],
    start_s: float,
    every_s: float = 0.1,
    row: int = 0,
) -> float:
    outcomes = [
        Outcome(offer="p/m", at_us=round((start_s + i * every_s) * 1e6), failure=f)
        for i, f in enumerate(failures)
    ]
    estimator.fold(OutcomeBatch.of(outcomes, [row] * len(outcomes)))
    return start_s + len(outcomes) * every_s


@pytest.fixture
def sound() -> ReliabilityEstimator:
    """Two offers of one model, the first with 300 good attempts."""
    estimator = ReliabilityEstimator()
    estimator.grow(2)
    fold(estimator, [FailureClass.OK] * 300, NOON)
    return estimator


def test_full_is_not_broken(sound: ReliabilityEstimator) -> None:
    before = sound.quotes(NOON + 30)
    now_s = fold(sound, [FailureClass.RATE_LIMITED] * 60, NOON + 30)
    after = sound.quotes(now_s)
    assert after.fail_share[0] - before.fail_share[0] <= 0.01
    assert after.capacity_share[0] > 0.1
    assert after.health[0] == "closed"


def test_a_buyer_who_hangs_up_teaches_nothing(sound: ReliabilityEstimator) -> None:
    before = sound.quotes(NOON + 30).fail_share[0]
    fold(sound, [FailureClass.CANCELLED] * 100, NOON + 29, every_s=0.0)
    assert sound.quotes(NOON + 30).fail_share[0] == pytest.approx(before, abs=1e-12)


def test_thirty_percent_failures_are_priced_within_forty_attempts(
    sound: ReliabilityEstimator,
) -> None:
    some = [
        FailureClass.SERVER_ERROR if i % 10 in (1, 4, 7) else FailureClass.OK for i in range(40)
    ]
    now_s = fold(sound, some, NOON + 30, every_s=0.05)
    assert 0.05 < sound.quotes(now_s).fail_share[0] < 0.3


def test_five_failures_in_a_row_open_the_circuit_and_two_probes_close_it(
    sound: ReliabilityEstimator,
) -> None:
    now_s = fold(sound, [FailureClass.CONNECT] * 5, NOON + 30)
    quotes = sound.quotes(now_s - 0.1)
    assert quotes.health[0] == "open"
    assert quotes.ejected.tolist() == [True, False]
    assert now_s - 0.1 < quotes.retry_at_s[0] < now_s + 2.0
    now_s = fold(sound, [FailureClass.OK] * 2, now_s + 2.0)
    assert sound.quotes(now_s).health[0] == "closed"


@pytest.mark.parametrize("severity", ["minor", "major", "critical"])
@pytest.mark.parametrize("every_s", [0.05, 0.5, 5.0, 60.0])
def test_a_false_report_is_overruled_within_tens_of_attempts_whatever_the_traffic(
    sound: ReliabilityEstimator, severity: str, every_s: float
) -> None:
    plain = sound.quotes(NOON + 300).fail_share[0]
    assert sound.report(0, severity, 1.0, NOON)
    raised = sound.quotes(NOON + 300).fail_share[0]
    assert raised > plain + 0.01
    now_s = fold(sound, [FailureClass.OK] * 30, NOON + 300, every_s=every_s)
    assert sound.quotes(now_s).fail_share[0] < plain + 0.25 * (raised - plain)
    assert sound.report(0, "none", 1.0, NOON)
    assert sound.quotes(now_s).fail_share[0] < 0.02


@pytest.mark.parametrize("every_s", [0.05, 5.0, 60.0])
def test_an_all_green_page_does_not_save_a_failing_offer(
    sound: ReliabilityEstimator, every_s: float
) -> None:
    sound.report(0, "none", 1.0, 0.0)
    some = [FailureClass.SERVER_ERROR if i % 2 else FailureClass.OK for i in range(40)]
    now_s = fold(sound, some, NOON + 300, every_s=every_s)
    assert sound.quotes(now_s).fail_share[0] > (0.3 if every_s < 1 else 0.05)


@pytest.mark.parametrize("every_s", [0.05, 5.0, 60.0])
def test_a_true_report_is_borne_out_and_a_turn_for_the_better_is_followed(
    sound: ReliabilityEstimator, every_s: float
) -> None:
    told, silent = sound, ReliabilityEstimator()
    silent.grow(2)
    fold(silent, [FailureClass.OK] * 300, NOON)
    told.report(0, "major", 1.0, NOON)
    some = [FailureClass.SERVER_ERROR if i % 3 == 1 else FailureClass.OK for i in range(30)]
    for estimator in (told, silent):
        now_s = fold(estimator, some, NOON + 300, every_s=every_s)
    later_s = now_s + 120
    believed = told.quotes(later_s).fail_share[0]
    assert 0.2 < believed < 0.6
    assert believed > 2 * silent.quotes(later_s).fail_share[0]
    now_s = fold(told, [FailureClass.OK] * 60, later_s, every_s=every_s)
    assert told.quotes(now_s).fail_share[0] < 0.1


def test_an_offer_nobody_tries_stays_as_the_page_says(sound: ReliabilityEstimator) -> None:
    sound.report(1, "critical", 1.0, NOON)
    now, later = (sound.quotes(NOON + t).fail_share[1] for t in (300.0, 9_000.0))
    assert now == later
    assert 0.15 < now < 0.25
    stale = [0.0 if not sound.report(1, "critical", c, NOON) else c for c in (0.5, 0.25, 0.0)]
    assert stale == [0.5, 0.25, 0.0]
    assert sound.quotes(NOON + 9_000.0).fail_share[1] == pytest.approx(0.02, abs=1e-6)


def test_evidence_on_a_report_survives_a_restart_and_ends_with_the_incident(
    sound: ReliabilityEstimator,
) -> None:
    sound.report(0, "critical", 1.0, NOON)
    now_s = fold(sound, [FailureClass.OK] * 30, NOON + 300, every_s=5.0)
    resumed = ReliabilityEstimator()
    resumed.grow(2)
    for row in range(2):
        resumed.restore(row, sound.state(row))
    resumed.report(0, "critical", 1.0, NOON)
    assert resumed.quotes(now_s).fail_share[0] == sound.quotes(now_s).fail_share[0]
    assert resumed.report(0, "critical", 1.0, NOON + 1)
    assert resumed.quotes(now_s).fail_share[0] > sound.quotes(now_s).fail_share[0] + 0.1


def test_batch_borders_do_not_matter_to_a_report_either() -> None:
    rng = np.random.default_rng(3)
    failures = [FailureClass.SERVER_ERROR if x < 0.3 else FailureClass.OK for x in rng.random(200)]
    whole, singly = ReliabilityEstimator(), ReliabilityEstimator()
    for estimator in (whole, singly):
        estimator.grow(2)
        estimator.report(0, "major", 1.0, NOON)
    fold(whole, failures, NOON, every_s=0.25)
    for i, failure in enumerate(failures):
        fold(singly, [failure], NOON + i * 0.25)
    assert whole.state(0) == singly.state(0)


def test_a_state_of_the_version_before_is_taken_up(sound: ReliabilityEstimator) -> None:
    old = [1.0, *sound.state(0)[1:-4]]
    resumed = ReliabilityEstimator()
    resumed.grow(1)
    resumed.restore(0, old)
    assert resumed.state(0) == sound.state(0)


def test_pushed_telemetry_alone_opens_no_circuit() -> None:
    estimator = ReliabilityEstimator()
    estimator.grow(1)
    pushed = [
        Outcome(offer="p/m", at_us=round(NOON * 1e6), failure=FailureClass.CONNECT, trust=0.1)
    ]
    estimator.fold(OutcomeBatch.of(pushed * 100, [0] * 100))
    assert estimator.quotes(NOON).health[0] == "closed"


def test_an_outlier_is_found_among_two_and_never_both() -> None:
    market = np.zeros(2, dtype=np.int64)
    assert outliers(np.array([12.0, 0.0]), np.array([20.0, 20.0]), market, 0.15).any()
    assert not outliers(np.array([12.0, 12.0]), np.array([20.0, 20.0]), market, 0.15).any()
    assert not outliers(np.array([1.0, 0.0]), np.array([2.0, 20.0]), market, 0.15).any()


@pytest.mark.parametrize("n", [1, 2, 3, 4, 10])
def test_the_last_one_is_never_ejected(n: int) -> None:
    blocked = spared(
        np.ones(n, dtype=bool), np.zeros(n, dtype=np.int64), np.arange(float(n)) * 0.1, 1.0
    )
    assert not blocked[0]
    assert blocked.sum() == n - 1


def test_openings_double_up_to_the_cap_and_recovery_takes_two_seconds_at_most() -> None:
    circuit = Circuit(CircuitParams(), seed=3)
    now_s, lengths = 100.0, []
    for _ in range(5):
        circuit.record("failure", now_s)
    for _ in range(8):
        lengths.append(circuit.retry_at_s - circuit.opened_at_s)
        now_s = circuit.retry_at_s
        circuit.sent(now_s)
        circuit.record("failure", now_s, sent_at_s=now_s)
    assert lengths[0] <= 0.25
    assert lengths[-1] <= 1.5
    assert lengths[3] > 2 * lengths[0]
    recovered_s, probes = now_s, 0
    while circuit.is_open:
        now_s = max(now_s, circuit.blocked_until_s())
        circuit.sent(now_s)
        circuit.record("success", now_s + 0.05, sent_at_s=now_s)
        now_s += 0.05
        probes += 1
    assert now_s - recovered_s <= 2.0
    assert probes <= 3


def test_only_so_many_probes_are_out_at_once_and_silent_ones_expire() -> None:
    breakers = CircuitBreakers(CircuitParams(n_probes=2))
    breakers.grow(1)
    for _ in range(5):
        breakers.record(0, "failure", 10.0)
    assert not breakers.may_send(10.0)[0]
    for _ in range(2):
        assert breakers.may_send(12.0)[0]
        breakers.sent(0, 12.0)
    assert not breakers.may_send(12.1)[0]
    assert breakers.may_send(23.0)[0]


def test_what_was_sent_before_the_opening_proves_nothing() -> None:
    circuit = Circuit(CircuitParams())
    for _ in range(5):
        circuit.record("failure", 10.0)
    for _ in range(9):
        circuit.record("success", 10.1, sent_at_s=9.0)
    assert circuit.is_open


def test_a_429_holds_for_as_long_as_it_asks() -> None:
    breakers = CircuitBreakers()
    breakers.grow(1)
    breakers.record(0, "capacity", 10.0, retry_after_s=30.0)
    assert not breakers.may_send(39.0)[0]
    assert breakers.may_send(40.0)[0]
    assert breakers.health(20.0) == ["closed"]


def test_same_seed_same_jitter() -> None:
    retries = []
    for _ in range(2):
        circuit = Circuit(CircuitParams(), seed=7)
        for _ in range(5):
            circuit.record("failure", 1.0)
        retries.append(circuit.retry_at_s)
    assert retries[0] == retries[1]
