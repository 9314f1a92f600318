"""How often an offer fails or is full, and whether its circuit stands open.

Failures and refusals for capacity are counted apart (a 429 says full, not broken), over a short
and a long memory; a buyer who hangs up teaches nothing. The short memory is read against the
long one as a prior, so a handful of recent failures counts and a quiet offer goes back to what
is usual for it. A status page's report moves what is usual, as far as attempts since then bear it
out (`report`).

Circuits run from the log as in a gateway. Offers that never failed since their last success
cost nothing: only rows whose circuit can move are walked attempt by attempt.

References
----------
Wilson (1927), the score interval, for outliers among few sellers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Final, NamedTuple

import numpy as np
from msgspec import Struct, field

from bidding.estimators.bounds import number
from bidding.estimators.circuit import Circuit, CircuitParams, Health, spared
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
from bidding.estimators.report import Report, Reports
from bidding.outcome import (
    LESSON_IS_CAPACITY,
    LESSON_IS_FAILURE,
    LESSON_IS_NOTHING,
    OutcomeBatch,
)

_SUMS: Final = 4
_LEAST_BELIEF: Final = 0.01
_FAILED, _TRIED, _FULL, _ASKED = range(_SUMS)
OWN_TRUST: Final = 0.5
"""Attempts trusted less than this (pushed telemetry) never move a circuit."""


class ReliabilityParams(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How failures are learned and circuits judged."""

    slow_half_life_s: Annotated[
        float, number(60, 2_592_000, "s", "memory of an offer's usual failure share")
    ] = 21_600.0
    fast_half_life_s: Annotated[
        float, number(1, 86_400, "s", "memory of an offer's failures just now")
    ] = 15.0
    prior_fail_share: Annotated[
        float, number(1e-4, 0.5, "share", "failure share of an offer never tried")
    ] = 0.02
    prior_n: Annotated[float, number(0.5, 1000, "attempts", "weight of that prior")] = 10.0
    usual_n: Annotated[
        float, number(1, 1000, "attempts", "most that the long memory weighs against just now")
    ] = 15.0
    status_n: Annotated[
        float,
        number(0, 100, "attempts", "weight of the failure share that a believed report suggests"),
    ] = 3.0
    status_belief: Annotated[
        float,
        number(0, 1, "share", "chance that an incident concerns the offers it names; 0: not heard"),
    ] = 0.25
    status_minor_share: Annotated[
        float, number(0, 1, "share", "failures that a minor incident suggests")
    ] = 0.1
    status_major_share: Annotated[
        float, number(0, 1, "share", "failures that a major incident suggests")
    ] = 0.35
    status_critical_share: Annotated[
        float, number(0, 1, "share", "failures that a critical incident suggests")
    ] = 0.7
    status_maintenance_share: Annotated[
        float, number(0, 1, "share", "failures that maintenance under way suggests")
    ] = 0.15
    status_memory_n: Annotated[
        float,
        number(1, 1000, "attempts", "most attempts since a report that count for or against it"),
    ] = 40.0
    status_half_life_s: Annotated[
        float, number(1, 86_400, "s", "age at which an attempt since a report counts half")
    ] = 600.0
    outlier_margin: Annotated[
        float, number(0.01, 1, "share", "failure share above the others' that marks an outlier")
    ] = 0.15
    max_ejected_share: Annotated[
        float, number(0, 1, "share", "largest share of a market's offers that may be ejected")
    ] = 0.67
    circuit: CircuitParams = field(default_factory=CircuitParams)


_LIVES: Final = (ReliabilityParams().slow_half_life_s, ReliabilityParams().fast_half_life_s)


class ReliabilityColumns(NamedTuple):
    """Reliability of each offer, arrays and lists of length n_rows.

    `fail_share` is the posterior mean chance that an attempt fails, `fail_n` the attempts
    behind it; `capacity_share` the chance of being turned away as full; `retry_at_s` wall-clock
    seconds, 0 unless the circuit is open; `ejected` marks what should not be sent traffic now.
    """

    fail_share: Floats
    fail_n: Floats
    capacity_share: Floats
    health: list[Health]
    retry_at_s: Floats
    ejected: Bools


class ReliabilityEstimator:
    """Failure and capacity shares and circuits of every offer; an `OfferEstimator`."""

    name: ClassVar[str] = "reliability"
    version: ClassVar[int] = 2

    def __init__(self, params: ReliabilityParams | None = None) -> None:
        self.params = p = params or ReliabilityParams()
        self.clock = RowClock()
        self.slow = DecayedSums(_SUMS, self.params.slow_half_life_s)
        self.fast = DecayedSums(_SUMS, self.params.fast_half_life_s)
        self.circuits: list[Circuit] = []
        self.is_open: Bools = np.zeros(0, dtype=np.bool_)
        self.n_failed: Ints = np.zeros(0, dtype=np.int64)
        self.reports = Reports(
            weight_n=p.status_n, memory_n=p.status_memory_n, half_life_s=p.status_half_life_s
        )
        self.market: Ints = np.zeros(0, dtype=np.int64)

    @property
    def n_rows(self) -> int:
        return len(self.circuits)

    def steer(self, params: ReliabilityParams) -> None:
        """Go on under other params: what was learned stays, and is forgotten at their rates."""
        present = self.clock.present_s()
        self.slow.retune(params.slow_half_life_s, present)
        self.fast.retune(params.fast_half_life_s, present)
        for circuit in self.circuits:
            circuit.params = params.circuit
        self.reports.steer(
            weight_n=params.status_n,
            memory_n=params.status_memory_n,
            half_life_s=params.status_half_life_s,
        )
        self.params = params

    def grow(self, n_rows: int) -> None:
        """Make room for `n_rows` offers; new rows start from the prior, in market 0."""
        self.clock.grow(n_rows)
        self.slow.grow(n_rows)
        self.fast.grow(n_rows)
        for row in range(len(self.circuits), n_rows):
            self.circuits.append(Circuit(self.params.circuit, row))
        self.is_open = grown(self.is_open, n_rows)
        self.n_failed = grown(self.n_failed, n_rows)
        self.reports.grow(n_rows)
        self.market = grown(self.market, n_rows)

    def set_market(self, row: int, market: int) -> None:
        """Say which offers stand in for each other (usually: of the same model)."""
        self.market[row] = market

    def report(self, row: int, severity: str, chance: float, report_id: float) -> bool:
        """Hear a status page's incident on an offer; whether that changes anything.

        Parameters
        ----------
        severity : as on the page; "none", or one we do not know, is no report
        chance : in 0..1, what the page's word is worth now: 1 for one read just now
        report_id : tells incidents apart, not 0
        """
        p = self.params
        share = {
            "minor": p.status_minor_share,
            "major": p.status_major_share,
            "critical": p.status_critical_share,
            "maintenance": p.status_maintenance_share,
        }.get(severity, 0.0)
        believed = p.status_belief * chance
        if share <= 0.0 or believed < _LEAST_BELIEF:
            return self.reports.put(row, None)
        return self.reports.put(row, Report(report_id, share, believed))

    def fold(self, batch: OutcomeBatch) -> None:
        """Take in a batch of outcomes, in log order."""
        if not len(batch):
            return
        order = Order(batch.row)
        tau = self.clock.read(order, batch.at_s)
        code = batch.failure[order.index]
        known = (code >= 0) & (code < len(LESSON_IS_FAILURE))
        code = np.where(known, code, 0)
        trust = np.nan_to_num(np.clip(batch.trust[order.index], 0.0, 1.0), nan=0.0)
        trust = np.where(known & ~LESSON_IS_NOTHING[code], trust, 0.0)
        failed, full = LESSON_IS_FAILURE[code], LESSON_IS_CAPACITY[code]
        self._count(order, tau, failed, full, trust)
        self.reports.count(order.row, tau, failed, np.where(full, 0.0, trust))
        counts = (trust >= OWN_TRUST) & ~full
        took_ms = batch.total_ms[order.index]
        took_s = np.where((took_ms >= 0) & (took_ms < 1e7), took_ms, 0.0) * 1e-3
        self._move_circuits(order.row[counts], tau[counts], failed[counts], took_s[counts])

    def _count(self, order: Order, tau: Floats, failed: Bools, full: Bools, trust: Floats) -> None:
        columns = np.stack([trust * failed, trust * ~full, trust * full, trust])
        moves = np.zeros(len(tau), dtype=np.bool_)
        for sums in (self.slow, self.fast):
            cell = sums.cells(tau)
            moves[1:] |= cell[1:] != cell[:-1]
        for at in order.rounds(moves):
            row, now = order.row[at], tau[at]
            first = np.flatnonzero(np.concatenate([[True], row[1:] != row[:-1]]))
            for sums in (self.slow, self.fast):
                sums.advance(row[first], now[first])
                sums.add(row, columns[:, at] * sums.weights(row, now))

    def _move_circuits(self, row: Ints, tau: Floats, failed: Bools, took_s: Floats) -> None:
        if not len(row):
            return
        first = np.flatnonzero(np.concatenate([[True], row[1:] != row[:-1]]))
        rows = row[first]
        ends = np.append(first[1:], len(row))
        n_before: Ints = np.cumsum(failed) - failed
        carried = np.repeat(self.n_failed[rows] - n_before[first], ends - first)
        at_success = np.where(failed, -1, np.arange(len(row)))
        at_success[first] = np.maximum(at_success[first], -1)
        last_success = np.maximum.accumulate(at_success)
        within = last_success >= np.repeat(first, ends - first)
        run: Ints = (
            n_before + failed - np.where(within, n_before[np.maximum(last_success, 0)], -carried)
        )
        can_open = np.maximum.reduceat(run, first) >= self.params.circuit.open_after
        walked = can_open | self.is_open[rows]
        self.n_failed[rows[~walked]] = run[ends - 1][~walked]
        for k in np.flatnonzero(walked):
            span = slice(int(first[k]), int(ends[k]))
            self._walk(
                int(rows[k]), tau[span].tolist(), failed[span].tolist(), took_s[span].tolist()
            )

    def _walk(self, row: int, tau: list[float], failed: list[bool], took_s: list[float]) -> None:
        circuit = self.circuits[row]
        circuit.n_failed = int(self.n_failed[row])
        for now, bad, took in zip(tau, failed, took_s, strict=True):
            # Runs of failures are counted in log order here, as where rows are not walked.
            circuit.failing_at_s = -math.inf
            circuit.record("failure" if bad else "success", now, sent_at_s=now - took)
        self.n_failed[row] = circuit.n_failed
        self.is_open[row] = circuit.is_open

    def quotes(self, now_s: float) -> ReliabilityColumns:
        """What is believed at wall-clock `now_s` of all offers."""
        p = self.params
        rows = np.arange(self.n_rows)
        tau = self.clock.now_s(now_s)
        slow, fast = self.slow.at(rows, tau), self.fast.at(rows, tau)
        usual = (slow[_FAILED] + p.prior_n * p.prior_fail_share) / (slow[_TRIED] + p.prior_n)
        usual_n = np.minimum(slow[_TRIED] + p.prior_n, p.usual_n)
        fail_n = fast[_TRIED] + usual_n
        failed = fast[_FAILED] + usual_n * self.reports.expected(tau, usual)
        usual_full = slow[_FULL] / (slow[_ASKED] + p.prior_n)
        capacity = (fast[_FULL] + usual_n * usual_full) / (fast[_ASKED] + usual_n)
        fail_share = failed / fail_n

        wall = tau + self.clock.shift_s
        health = [c.health(float(t)) for c, t in zip(self.circuits, tau, strict=True)]
        retry = np.array([c.retry_at_s for c in self.circuits])
        blocked = np.array([h == "open" for h in health], dtype=np.bool_)
        # One whose latest attempt went well may bid again, at what its failures make it cost.
        failing = outliers(fast[_FAILED], fast[_TRIED], self.market, p.outlier_margin)
        blocked |= failing & (self.n_failed > 0)
        return ReliabilityColumns(
            fail_share=fail_share,
            fail_n=fail_n,
            capacity_share=capacity,
            health=health,
            retry_at_s=np.where(self.is_open, retry + wall - tau, 0.0),
            ejected=spared(blocked, self.market, fail_share, p.max_ejected_share),
        )

    def state(self, row: int) -> list[float]:
        """The row's whole memory as finite floats, the first being `version`."""
        circuit = self.circuits[row]
        circuit.n_failed = int(self.n_failed[row])
        return [
            float(self.version),
            *self.clock.state(row),
            *self.slow.state(row),
            *self.fast.state(row),
            *circuit.state(),
            *self.reports.state(row),
            *kept_lives(_LIVES, (self.slow.half_life_s, self.fast.half_life_s)),
        ]

    def restore(self, row: int, state: Sequence[float]) -> None:
        """Replace the row's memory. Raises `BadState` on another version or shape."""
        sizes = [1, RowClock.N_STATE, 1 + _SUMS, 1 + _SUMS, Circuit.N_STATE, Reports.N_STATE]
        if len(state) == sum(sizes[:-1]) and state[0] == 1.0:
            # Version 1 knew no reports; all else is as it was.
            state = [float(self.version), *state[1:], *([0.0] * Reports.N_STATE)]
        state, (slow_s, fast_s) = lives_of(state, sum(sizes), _LIVES)
        parts = split_state(self.name, self.version, state, sizes)
        _, clock, slow, fast, circuit, reports = parts
        self.clock.restore(row, clock)
        tau = float(self.clock.present_s()[row])
        self.slow.restore_from(row, slow, slow_s, tau)
        self.fast.restore_from(row, fast, fast_s, tau)
        self.circuits[row].restore(circuit)
        self.reports.restore(row, reports)
        self.n_failed[row] = self.circuits[row].n_failed
        self.is_open[row] = self.circuits[row].is_open


def outliers(failed: Floats, tried: Floats, market: Ints, margin: float) -> Bools:
    """Offers that fail surely more than the others of their market, even among two to four.

    An offer is an outlier if the lower end of its Wilson interval (95 %) lies more than
    `margin` above the upper end of the others' taken together.

    Examples
    --------
    >>> outliers(np.array([12.0, 0.0]), np.array([20.0, 20.0]), np.zeros(2, int), 0.15).tolist()
    [True, False]
    """
    _, members = np.unique(market, return_inverse=True)
    all_failed = np.bincount(members, weights=failed)[members]
    all_tried = np.bincount(members, weights=tried)[members]
    low, _ = _wilson(failed, tried)
    _, high = _wilson(np.maximum(all_failed - failed, 0.0), np.maximum(all_tried - tried, 0.0))
    mask: Bools = low > high + margin
    return mask


def _wilson(failed: Floats, tried: Floats, z: float = 1.96) -> tuple[Floats, Floats]:
    n = np.maximum(tried, 1e-9)
    share = np.clip(failed / n, 0.0, 1.0)
    centre = (share + z * z / (2.0 * n)) / (1.0 + z * z / n)
    half = z * np.sqrt(share * (1.0 - share) / n + z * z / (4.0 * n * n)) / (1.0 + z * z / n)
    return centre - half, centre + half
