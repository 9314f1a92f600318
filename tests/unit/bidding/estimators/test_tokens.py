"""Answer lengths: learned by task and model, borrowed where there is little, bounded."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bidding.errors import BadState
from bidding.estimators.tokens import AnswerBatch, TokenTask, expected_tokens

NOON = 1_713_268_800.0


def answers(row: int, tokens: list[float], cut: bool = False) -> AnswerBatch:
    n = len(tokens)
    return AnswerBatch(
        row=np.full(n, row),
        at_s=NOON + np.arange(n, dtype=float),
        output_tokens=np.array(tokens),
        cut=np.full(n, cut),
        trust=np.ones(n),
    )


def take(batch: AnswerBatch, part: np.ndarray) -> AnswerBatch:
    row, at_s, tokens, cut, trust = batch
    return AnswerBatch(row[part], at_s[part], tokens[part], cut[part], trust[part])


def task(n_rows: int = 3) -> TokenTask:
    made = TokenTask()
    made.grow(n_rows)
    return made


def test_learns_the_mean_of_a_skewed_length() -> None:
    rng = np.random.default_rng(0)
    tokens = np.exp(rng.normal(5.0, 0.8, 2_000))
    made = task()
    made.fold(answers(0, tokens.tolist()))
    assert made.predict(NOON + 2_000)[0] == pytest.approx(tokens.mean(), rel=0.06)


def test_a_model_never_seen_borrows_from_the_task() -> None:
    made = task()
    cold = made.predict(NOON)[2]
    for row in (0, 1):
        made.fold(answers(row, [2_000.0] * 50))
    assert made.predict(NOON + 50)[2] > 3.0 * cold


def test_never_more_than_the_limit_nor_less_than_one() -> None:
    made = task()
    made.fold(answers(0, [5_000.0] * 50))
    assert (made.predict(NOON + 50, 64.0) <= 64.0).all()
    assert (made.predict(NOON + 50, 0.0) == 1.0).all()
    assert np.isfinite(expected_tokens(np.array([700.0]), np.array([30.0]))).all()


def test_a_cut_answer_was_longer_than_it_looks() -> None:
    whole, cut = task(), task()
    whole.fold(answers(0, [100.0] * 50))
    cut.fold(answers(0, [100.0] * 50, cut=True))
    assert cut.predict(NOON + 50)[0] > 1.2 * whole.predict(NOON + 50)[0]


def test_bad_lengths_are_counted_and_teach_nothing() -> None:
    made = task()
    before = made.predict(NOON + 10)[0]
    made.fold(answers(0, [0.0, -5.0, math.nan, math.inf, 1e300]))
    assert made.n_dirty[0] == 5.0
    assert made.predict(NOON + 10)[0] == before


def test_borders_and_restarts_do_not_matter_to_the_bit() -> None:
    rng = np.random.default_rng(2)
    batch = AnswerBatch(
        row=rng.integers(0, 3, 500),
        at_s=NOON + np.cumsum(rng.exponential(50_000.0, 500)),
        output_tokens=np.exp(rng.normal(5, 1, 500)),
        cut=rng.random(500) < 0.1,
        trust=rng.random(500),
    )
    whole, pieces = task(), task()
    whole.fold(batch)
    for part in np.array_split(np.arange(500), 23):
        pieces.fold(take(batch, part))
        resumed = task()
        for row in range(3):
            resumed.restore(row, pieces.state(row))
        pieces = resumed
    assert [whole.state(r) for r in range(3)] == [pieces.state(r) for r in range(3)]


def test_a_foreign_state_is_refused() -> None:
    with pytest.raises(BadState):
        task().restore(0, [1.0, 2.0])
