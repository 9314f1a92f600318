"""What is published of an offer and of a task: numbers for gateways, state to resume from.

A quote is the fold of an offer's facts; a skill is the fold of a task's. Both are published on
compacted topics, so the newest record of a key is the estimator's whole memory of it: `state`
holds each estimator's numbers, `position` says up to where the log is folded in. Nothing is
counted twice after a crash: whoever takes over restores the state and resumes after `position`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Protocol

from msgspec import Struct, field

from bidding.outcome import OutcomeBatch

Health = Literal["closed", "open", "half_open"]


class Position(Struct, frozen=True, array_like=True):
    """Up to where a log is folded in: `offset` is the last one included; -1 is none."""

    log: str
    topic: str
    partition: int
    offset: int


class Quote(Struct, frozen=True, kw_only=True):
    """What the market believes of an offer now.

    Latency is log-normal: `*_log_ms` and `*_log_sd` are mean and standard deviation of the
    natural log of milliseconds of the *next* call (uncertainty of the mean included), `*_n`
    the decayed number of observations behind it. TTFT is time to first token, TPOT the time
    per further output token. `fail_share` is the posterior mean of a failed attempt.
    The means hold for 500 input tokens, 100 output tokens and nothing in flight; the slopes
    `*_per_log_*` carry them elsewhere (`bidding.estimators.on_time`). `capacity_share` is the
    share of attempts refused for lack of capacity.
    """

    offer: str
    at_us: int
    ttft_log_ms: float
    ttft_log_sd: float
    ttft_n: float
    tpot_log_ms: float
    tpot_log_sd: float
    tpot_n: float
    fail_share: float
    fail_n: float
    ttft_per_log_input: float = 0.0
    ttft_per_log_inflight: float = 0.0
    tpot_per_log_output: float = 0.0
    tpot_per_log_inflight: float = 0.0
    health: Health = "closed"
    retry_at_us: int = 0
    capacity_share: float = 0.0
    positions: list[Position] = []
    state: dict[str, list[float]] = field(default_factory=dict)


class Calibration(Struct, frozen=True, kw_only=True):
    """How often standardised log residuals really stay below z, pooled over offers.

    Three parallel lists; `bidding.estimators.latency_pool.LatencyColumns` says more.
    """

    at_us: int
    z_grid: list[float]
    ttft_cdf: list[float]
    total_cdf: list[float]


class OfferEstimator(Protocol):
    """An estimator of offers: arrays over rows, one row an offer.

    A row's state depends on that offer's own events, in order, and on nothing else, so that a
    restart resumes bit for bit whatever the batches were; what is pooled over offers is
    computed when quotes are made, from the rows' states.
    """

    name: ClassVar[str]
    version: ClassVar[int]

    def grow(self, n_rows: int) -> None:
        """Make room for `n_rows` offers; new rows start from the prior."""
        ...

    def fold(self, batch: OutcomeBatch) -> None:
        """Take in a batch of outcomes, in log order."""
        ...

    def state(self, row: int) -> list[float]:
        """The row's whole memory as finite floats, the first being `version`."""
        ...

    def restore(self, row: int, state: Sequence[float]) -> None:
        """Replace the row's memory. Raises `BadState` on another version or shape."""
        ...
