"""How long an answer will be: expected output tokens by task and model.

A task owns one `TokenTask`, whose rows are models; the memory of a row depends on that model's
answers to that task alone. A prediction borrows in two steps: from the same task's other
models (some tasks are long whoever answers) and from the prior. Lengths are log-normal; what is
returned is the mean, not the median, since that is what is paid for, and never above the
request's own limit. An answer cut off by its limit was longer than it looks, and is folded so.

References
----------
Efron, Morris (1975), Data analysis using Stein's estimator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Final, NamedTuple

import numpy as np
from msgspec import Struct
from scipy.special import ndtr

from bidding.estimators.bounds import number
from bidding.estimators.decay import (
    Bools,
    DecayedSums,
    Floats,
    Ints,
    Order,
    RowClock,
    grown,
    kept_lives,
    lives_of,
    split_state,
)

_SUMS: Final = 3
_MAX_TOKENS: Final = 1e7


class TokenParams(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How answer lengths are learned. Logs are natural logs of tokens."""

    half_life_s: Annotated[float, number(60, 31_536_000, "s", "memory of answer lengths")] = (
        604_800.0
    )
    prior_tokens: Annotated[
        float, number(1, 100_000, "tokens", "median answer to a task never seen")
    ] = 200.0
    task_log_sd: Annotated[float, number(0.01, 5, "log", "spread of tasks' medians")] = 1.0
    model_log_sd: Annotated[
        float, number(0.01, 5, "log", "spread of models' medians within a task")
    ] = 0.35
    noise_log_sd: Annotated[
        float, number(0.01, 5, "log", "spread of one model's answers, a priori")
    ] = 0.6
    noise_n: Annotated[
        float, number(0.5, 1000, "answers", "how strongly that spread is believed")
    ] = 10.0
    cut_log: Annotated[
        float, number(0, 3, "log", "how much longer than its limit a cut answer is taken to be")
    ] = 0.5


_LIVES: Final = (TokenParams().half_life_s,)


class AnswerBatch(NamedTuple):
    """Answers to one task as columns, in log order; every array (n,).

    `row` is the model's row in the task, `at_s` wall-clock seconds, `output_tokens` what was
    used, `cut` whether the limit ended it, `trust` in 0..1.
    """

    row: Ints
    at_s: Floats
    output_tokens: Floats
    cut: Bools
    trust: Floats


class TokenTask:
    """Answer lengths of one task; rows are models."""

    name: ClassVar[str] = "tokens"
    version: ClassVar[int] = 1

    def __init__(self, params: TokenParams | None = None) -> None:
        self.params = params or TokenParams()
        self.clock = RowClock()
        self.sums = DecayedSums(_SUMS, self.params.half_life_s)
        self.n_dirty: Floats = np.zeros(0)

    @property
    def n_rows(self) -> int:
        return len(self.n_dirty)

    def grow(self, n_rows: int) -> None:
        """Make room for `n_rows` models."""
        self.clock.grow(n_rows)
        self.sums.grow(n_rows)
        self.n_dirty = grown(self.n_dirty, n_rows)

    def steer(self, params: TokenParams) -> None:
        """Go on under other params: what was learned stays, and is forgotten at their rate."""
        self.sums.retune(params.half_life_s, self.clock.present_s())
        self.params = params

    def fold(self, batch: AnswerBatch) -> None:
        """Take in a batch of answers, in log order; lengths below 1 or absurd are counted out."""
        if not len(batch.row):
            return
        order = Order(batch.row)
        tau = self.clock.read(order, batch.at_s)
        tokens = batch.output_tokens[order.index]
        good = (tokens >= 1.0) & (tokens <= _MAX_TOKENS)
        trust = np.nan_to_num(np.clip(batch.trust[order.index], 0.0, 1.0), nan=0.0)
        trust = np.where(good, trust, 0.0)
        np.add.at(self.n_dirty, order.row, (~good).astype(np.float64))
        x = np.log(np.where(good, tokens, 1.0)) + self.params.cut_log * batch.cut[order.index]
        cell = self.sums.cells(tau)
        moves = np.zeros(len(cell), dtype=np.bool_)
        moves[1:] = cell[1:] != cell[:-1]
        for at in order.rounds(moves):
            row = order.row[at]
            first = np.flatnonzero(np.concatenate([[True], row[1:] != row[:-1]]))
            self.sums.advance(row[first], tau[at][first])
            w = trust[at] * self.sums.weights(row, tau[at])
            self.sums.add(row, np.stack([w, w * x[at], w * x[at] * x[at]]))

    def log_law(self, now_s: float) -> tuple[Floats, Floats, Floats]:
        """Mean, sd and evidence (answers) of log output tokens per model, each (n_rows,)."""
        p = self.params
        n, x, xx = self.sums.at(np.arange(self.n_rows), self.clock.now_s(now_s))
        own = x / np.maximum(n, 1e-12)
        rest = np.maximum(xx - x * own, 0.0)
        var = (p.noise_n * p.noise_log_sd**2 + rest) / (p.noise_n + n)
        near, far = p.model_log_sd**2, p.task_log_sd**2
        weight = np.where(n > 0.0, 1.0 / (var / np.maximum(n, 1e-12) + near), 0.0)
        others = np.maximum(weight.sum() - weight, 0.0) + 1.0 / far
        borrowed = (weight * own).sum() - weight * own + np.log(p.prior_tokens) / far
        prior, prior_var = borrowed / others, near + 1.0 / others
        precision = n / var + 1.0 / prior_var
        mean = (own * n / var + prior / prior_var) / precision
        return mean, np.sqrt(var + 1.0 / precision), n

    def predict(self, now_s: float, max_output_tokens: float | None = None) -> Floats:
        """Expected output tokens of the next answer per model, (n_rows,).

        Parameters
        ----------
        max_output_tokens : float, optional
            The request's limit: the expectation is of the answer as cut there.
        """
        mean, sd, _ = self.log_law(now_s)
        return expected_tokens(mean, sd, max_output_tokens)

    def state(self, row: int) -> list[float]:
        """The row's whole memory as finite floats, the first being `version`."""
        return [
            float(self.version),
            *self.clock.state(row),
            *self.sums.state(row),
            float(self.n_dirty[row]),
            *kept_lives(_LIVES, (self.sums.half_life_s,)),
        ]

    def restore(self, row: int, state: Sequence[float]) -> None:
        """Replace the row's memory. Raises `BadState` on another version or shape."""
        sizes = [1, RowClock.N_STATE, 1 + _SUMS, 1]
        state, (half_life_s,) = lives_of(state, sum(sizes), _LIVES)
        _, clock, sums, dirty = split_state(self.name, self.version, state, sizes)
        self.clock.restore(row, clock)
        self.sums.restore_from(row, sums, half_life_s, float(self.clock.present_s()[row]))
        self.n_dirty[row] = dirty[0]


def expected_tokens(mean: Floats, sd: Floats, max_output_tokens: float | None = None) -> Floats:
    """Mean of a log-normal length, cut at `max_output_tokens`: at least one token.

    Examples
    --------
    >>> expected_tokens(np.log([100.0]), np.array([0.5]), None).round(1).tolist()
    [113.3]
    >>> expected_tokens(np.log([100.0]), np.array([0.5]), 20.0).round(1).tolist()
    [20.0]
    """
    whole = np.exp(np.minimum(mean + 0.5 * sd * sd, np.log(_MAX_TOKENS)))
    if max_output_tokens is None:
        return np.maximum(whole, 1.0)
    limit = max(max_output_tokens, 1.0)
    z = (np.log(limit) - mean) / np.maximum(sd, 1e-9)
    cut: Floats = np.clip(whole * ndtr(z - sd) + limit * ndtr(-z), 1.0, limit)
    return cut
