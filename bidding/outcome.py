"""What one attempt delivered, and what that teaches.

`FailureClass` is the one list of ways an attempt can end; each says whether another offer may
be tried and what it teaches of the offer: *failure* (its fault), *capacity* (it is full, not
broken), *nothing* (the caller's doing). `OutcomeBatch` is the same facts as columns, the form
in which estimators fold them.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Lesson = Literal["success", "failure", "capacity", "nothing"]


class FailureClass(enum.StrEnum):
    """How an attempt ended. Values are what is written to the log and to ClickHouse."""

    OK = "ok"
    CONNECT = "connect"
    TLS = "tls"
    TIMEOUT_TTFT = "timeout_ttft"
    TIMEOUT_GAP = "timeout_gap"
    TIMEOUT_TOTAL = "timeout_total"
    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    SERVER_ERROR = "server_error"
    MALFORMED = "malformed"
    TRUNCATED = "truncated"
    AUTH = "auth"
    QUOTA = "quota"
    MODEL_MISSING = "model_missing"
    CONTEXT_TOO_LONG = "context_too_long"
    REFUSED = "refused"
    BAD_REQUEST = "bad_request"
    CANCELLED = "cancelled"
    HEDGE_LOST = "hedge_lost"


_CAPACITY = {FailureClass.RATE_LIMITED, FailureClass.OVERLOADED, FailureClass.QUOTA}
_NOTHING = {
    FailureClass.BAD_REQUEST,
    FailureClass.CANCELLED,
    FailureClass.HEDGE_LOST,
    FailureClass.REFUSED,
    FailureClass.CONTEXT_TOO_LONG,
}
_FINAL = {
    FailureClass.OK,
    FailureClass.BAD_REQUEST,
    FailureClass.CANCELLED,
    FailureClass.HEDGE_LOST,
}
CENSORED = frozenset(
    {FailureClass.TIMEOUT_TTFT, FailureClass.TIMEOUT_GAP, FailureClass.TIMEOUT_TOTAL}
)

FAILURE_CODES: dict[FailureClass, int] = {f: i for i, f in enumerate(FailureClass)}
FAILURE_BY_CODE: tuple[FailureClass, ...] = tuple(FailureClass)


def lesson(failure: FailureClass) -> Lesson:
    """What this ending teaches about the offer."""
    if failure is FailureClass.OK:
        return "success"
    if failure in _CAPACITY:
        return "capacity"
    return "nothing" if failure in _NOTHING else "failure"


def tries_next_offer(failure: FailureClass) -> bool:
    """Whether the next-ranked offer should be tried after this ending."""
    return failure not in _FINAL


LESSON_IS_FAILURE = np.array([lesson(f) == "failure" for f in FAILURE_BY_CODE])
LESSON_IS_CAPACITY = np.array([lesson(f) == "capacity" for f in FAILURE_BY_CODE])
LESSON_IS_NOTHING = np.array([lesson(f) == "nothing" for f in FAILURE_BY_CODE])
IS_CENSORED = np.array([f in CENSORED for f in FAILURE_BY_CODE])


class Outcome(Struct, frozen=True, kw_only=True):
    """One attempt at one offer. Times are milliseconds; None means not measured.

    `at_us` is the wall-clock end of the attempt (µs since the epoch, UTC). For a timeout
    `waited_ms` is how long we waited in vain: a censored observation, not a dropped one.
    `ttft_promised` is the chance that the quote we bought on gave to a first token no later than
    the one seen (or than the wait): what closes the loop on promises (`on_time.promised_share`).
    `pusher` names who told us of a call that was not ours, whose word weighs `trust`.
    """

    offer: str
    at_us: int
    failure: FailureClass = FailureClass.OK
    ttft_ms: float | None = None
    total_ms: float | None = None
    waited_ms: float | None = None
    ttft_promised: float | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost_nusd: int = 0
    n_inflight: int = 0
    trust: float = 1.0
    task: str = ""
    pusher: str = ""


NOT_PROMISED: NDArray[np.float64] = np.zeros(0)


class OutcomeBatch(NamedTuple):
    """Outcomes as columns, in log order. Every array has shape (n,).

    Attributes
    ----------
    row : int64, index of the offer in the estimator's arrays
    at_s : float64, wall-clock end, seconds since the epoch
    failure : int64, code from `FAILURE_CODES`
    ttft_ms, total_ms, waited_ms : float64, NaN where not measured
    input_tokens, output_tokens : float64
    n_inflight : float64, our own calls open at that offer when this one was sent
    trust : float64 in 0..1, 1 for our own attempts, less for pushed telemetry
    ttft_promised : float64 in 0..1, see `Outcome`; NaN where unknown, empty if all are
    """

    row: NDArray[np.int64]
    at_s: NDArray[np.float64]
    failure: NDArray[np.int64]
    ttft_ms: NDArray[np.float64]
    total_ms: NDArray[np.float64]
    waited_ms: NDArray[np.float64]
    input_tokens: NDArray[np.float64]
    output_tokens: NDArray[np.float64]
    n_inflight: NDArray[np.float64]
    trust: NDArray[np.float64]
    ttft_promised: NDArray[np.float64] = NOT_PROMISED

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], rows: Sequence[int]) -> OutcomeBatch:
        """Columns of `outcomes`, whose offers sit at `rows` of the estimator's arrays."""
        nan = float("nan")
        return cls(
            row=np.array(rows, dtype=np.int64),
            at_s=np.array([o.at_us for o in outcomes], dtype=np.float64) * 1e-6,
            failure=np.array([FAILURE_CODES[o.failure] for o in outcomes], dtype=np.int64),
            ttft_ms=np.array([nan if o.ttft_ms is None else o.ttft_ms for o in outcomes], float),
            total_ms=np.array([nan if o.total_ms is None else o.total_ms for o in outcomes], float),
            waited_ms=np.array(
                [nan if o.waited_ms is None else o.waited_ms for o in outcomes], float
            ),
            input_tokens=np.array([o.input_tokens for o in outcomes], dtype=np.float64),
            output_tokens=np.array([o.output_tokens for o in outcomes], dtype=np.float64),
            n_inflight=np.array([o.n_inflight for o in outcomes], dtype=np.float64),
            trust=np.array([o.trust for o in outcomes], dtype=np.float64),
            ttft_promised=np.array(
                [nan if o.ttft_promised is None else o.ttft_promised for o in outcomes], float
            ),
        )

    def take(self, index: NDArray[np.int64]) -> OutcomeBatch:
        """The outcomes at `index`, in that order."""
        return OutcomeBatch(
            self.row[index],
            self.at_s[index],
            self.failure[index],
            self.ttft_ms[index],
            self.total_ms[index],
            self.waited_ms[index],
            self.input_tokens[index],
            self.output_tokens[index],
            self.n_inflight[index],
            self.trust[index],
            self.ttft_promised[index] if len(self.ttft_promised) else NOT_PROMISED,
        )

    def timed(
        self,
        ttft_ms: NDArray[np.float64],
        total_ms: NDArray[np.float64],
        waited_ms: NDArray[np.float64],
    ) -> OutcomeBatch:
        """The same outcomes with other times."""
        return OutcomeBatch(
            self.row,
            self.at_s,
            self.failure,
            ttft_ms,
            total_ms,
            waited_ms,
            self.input_tokens,
            self.output_tokens,
            self.n_inflight,
            self.trust,
            self.ttft_promised,
        )

    def __len__(self) -> int:
        return len(self.row)
