"""Params that change in mid-flight: what was learned stays, and is forgotten at the new rates."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from bidding.appraisal import Appraiser, Settled
from bidding.errors import BadState
from bidding.estimators.decay import DecayedSums
from bidding.estimators.latency import LatencyEstimator
from bidding.estimators.latency_params import LatencyParams
from bidding.estimators.reliability import ReliabilityEstimator, ReliabilityParams
from bidding.estimators.tokens import AnswerBatch, TokenParams, TokenTask
from bidding.outcome import FailureClass, Outcome
from bidding.params import Params
from bidding.quote import Position
from bidding.quoting import Quoter
from tests.fakes.markets import catalogue

NOON_S = 1_713_268_800.0
DAY_S = 86_400.0


def _told(quoter: Quoter, n: int) -> None:
    outcomes = [
        Outcome(
            offer="p0/m0",
            at_us=round((NOON_S + i) * 1e6),
            failure=FailureClass.OK if i % 4 else FailureClass.SERVER_ERROR,
            ttft_ms=300.0 if i % 4 else None,
            total_ms=900.0 if i % 4 else None,
            input_tokens=500,
            output_tokens=50,
        )
        for i in range(n)
    ]
    quoter.fold(outcomes, [Position("log", "market.attempts", 0, i) for i in range(n)])


def _answers(task: TokenTask, n: int) -> None:
    task.grow(1)
    task.fold(
        AnswerBatch(
            row=np.zeros(n, dtype=np.int64),
            at_s=NOON_S + np.arange(n),
            output_tokens=np.full(n, 80.0),
            cut=np.zeros(n, dtype=bool),
            trust=np.ones(n),
        )
    )


def test_sums_keep_what_they_hold_and_fade_by_the_new_half_life() -> None:
    sums = DecayedSums(2, 100.0)
    sums.grow(2)
    rows, tau = np.array([0, 1]), np.array([NOON_S, 2.0])
    sums.advance(rows, tau)
    sums.put(0, rows, tau, np.array([8.0, 3.0]))
    sums.retune(10.0, tau)
    assert sums.at(rows, tau)[0] == pytest.approx([8.0, 3.0], rel=1e-9)
    assert sums.at(rows, tau + 10.0)[0] == pytest.approx([4.0, 1.5], rel=1e-9)
    assert (sums.at(rows, tau)[1] == 0.0).all()


def test_a_quote_stays_at_the_change_and_then_forgets_at_the_new_rate() -> None:
    quoter, still = Quoter(), Quoter()
    _told(quoter, 200)
    _told(still, 200)
    now_us = round((NOON_S + 200) * 1e6)
    quick = Params().patched(
        {"latency": {"slow_half_life_s": 3_600.0}, "reliability": {"slow_half_life_s": 3_600.0}},
        version=1,
    )
    quoter.quotes(now_us)
    quoter.steer(quick)
    (after,) = quoter.quotes(now_us)  # it changed with the params, no attempt needed
    (before,) = still.quotes(now_us)
    assert after.ttft_n == pytest.approx(before.ttft_n, rel=0.05)
    later = now_us + round(DAY_S * 1e6)
    (faded,), (kept,) = (q.quotes(later, everything=True) for q in (quoter, still))
    assert faded.ttft_n < 0.1 * kept.ttft_n


def test_a_restored_state_goes_on_under_other_params() -> None:
    for made, params in (
        (LatencyEstimator(LatencyParams(slow_half_life_s=7_200.0)), LatencyParams()),
        (ReliabilityEstimator(ReliabilityParams(fast_half_life_s=60.0)), ReliabilityParams()),
    ):
        quoter = Quoter()
        if isinstance(made, LatencyEstimator):
            quoter.latency = made
        else:
            quoter.reliability = made
        quoter._estimators = (quoter.latency, quoter.reliability)
        _told(quoter, 40)
        state = made.state(0)
        kind: Any = type(made)
        same, other = kind(made.params), kind(params)
        for estimator in (same, other):
            estimator.grow(1)
            estimator.restore(0, state)
        assert same.state(0) == state
        now_s = NOON_S + 40.0
        held, there = same.quotes(now_s), other.quotes(now_s)
        name = "ttft_n" if isinstance(made, LatencyEstimator) else "fail_n"
        assert getattr(there, name)[0] == pytest.approx(getattr(held, name)[0], rel=0.05)
        with pytest.raises(BadState):
            other.restore(0, [*state[:-1], -1.0])


def test_a_state_kept_by_the_usual_half_lives_looks_as_it_always_did() -> None:
    task = TokenTask()
    _answers(task, 5)
    usual = task.state(0)
    task.steer(TokenParams(half_life_s=3_600.0))
    assert len(task.state(0)) == len(usual) + 1
    task.steer(TokenParams())
    assert len(task.state(0)) == len(usual)


def test_the_margin_moves_a_class_price_from_the_change_on() -> None:
    appraiser = Appraiser(catalogue())
    settled = Settled(
        task="math",
        sla_class="c",
        at_us=1,
        model="m1",
        output_tokens=10,
        cut=False,
        target_quality=0.9,
        target_on_time=None,
        p_good=0.92,
        p_on_time=None,
        on_time=None,
        free=True,
    )
    seen = []
    for i in range(60):
        if i == 30:
            margin = Params().patched({"pacing": {"quality_margin": 0.1}}, version=1)
            appraiser.steer(margin)
            assert appraiser.skills(1)  # published anew without any decision
        appraiser.fold_decision(
            msgspec.structs.replace(settled, at_us=i + 1), Position("l", "market.decisions", 0, i)
        )
        (made,) = appraiser.skills(i + 1)
        seen.append(made.skill.classes[0].quality_price_nusd)
    assert seen[29] < seen[0]
    assert seen[59] > seen[29]
