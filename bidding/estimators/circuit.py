"""Circuits: who must not be sent traffic just now, and who may be tried again.

A `Circuit` is fed one attempt at a time with time as an argument; the estimators' process feeds
it from the log, each gateway feeds its own as things happen, because circuits must not wait for
the log. Closed until `open_after` failures in a row; open for a time that doubles from opening
to opening (jittered by a hash, capped); then half open: a few probes, of which two good ones
close it and one bad one opens it again. Capacity (429) never opens it but holds the offer for as
long as it asks, or for a growing pause.

The idea that is not obvious: attempts are evidence of when they were *sent*. A success counts
against an open circuit only if that call was sent after the opening, and ends a run of failures
only if it was sent after the last of them: calls that a seller took before it broke come back
well for as long as they take, and prove nothing. Nor does a failure of a call sent before the
latest good probe: one that hung when its seller recovered is given up long after.

References
----------
Nygard, Release It!, 2nd ed., chapter 5 (circuit breaker). Envoy, outlier detection: ejection
time times the number of ejections, capped; a largest share of hosts ejected, never the last.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Final, Literal

import numpy as np
from msgspec import Struct

from bidding.estimators.bounds import number
from bidding.estimators.decay import Bools, Floats, Ints
from bidding.outcome import Lesson

Health = Literal["closed", "open", "half_open"]

_NEVER_S: Final = -1e12
_LEAST_OPEN_S: Final = 0.05
_MASK64: Final = (1 << 64) - 1


class CircuitParams(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When circuits open and close."""

    open_after: Annotated[
        int, number(1, 1000, "failures", "failures in a row that open a circuit")
    ] = 5
    close_after: Annotated[int, number(1, 100, "successes", "good probes that close it")] = 2
    n_probes: Annotated[int, number(1, 100, "calls", "probes in flight while half open")] = 2
    open_s: Annotated[float, number(0.01, 600, "s", "length of the first opening")] = 0.25
    max_open_s: Annotated[
        float, number(0.01, 3600, "s", "longest opening; recovery is seen no later than this")
    ] = 1.0
    forgive_s: Annotated[
        float, number(0, 86_400, "s", "time closed after which openings are short again")
    ] = 30.0
    probe_timeout_s: Annotated[
        float, number(0.1, 600, "s", "a probe silent for so long no longer counts as out")
    ] = 10.0
    jitter_share: Annotated[
        float, number(0, 0.9, "share", "openings vary by up to this, so probes do not align")
    ] = 0.2
    hold_s: Annotated[
        float, number(0.01, 60, "s", "first pause after a 429 that names no time")
    ] = 0.25
    max_hold_s: Annotated[float, number(0.1, 3600, "s", "longest pause for capacity")] = 60.0


class Circuit:
    """The circuit of one offer (or provider). Times are seconds on one clock, any clock."""

    __slots__ = (
        "closed_at_s",
        "failing_at_s",
        "good_at_s",
        "held_until_s",
        "is_open",
        "n_failed",
        "n_good",
        "n_limited",
        "n_openings",
        "n_out",
        "opened_at_s",
        "params",
        "retry_at_s",
        "seed",
        "silent_at_s",
    )
    N_STATE: Final = 11

    def __init__(self, params: CircuitParams, seed: int = 0) -> None:
        self.params = params
        self.seed = seed
        self.is_open = False
        self.n_failed = 0
        self.n_good = 0
        self.n_openings = 0
        self.n_limited = 0
        self.n_out = 0
        self.opened_at_s = _NEVER_S
        self.closed_at_s = _NEVER_S
        self.retry_at_s = _NEVER_S
        self.silent_at_s = _NEVER_S
        self.held_until_s = _NEVER_S
        self.failing_at_s = _NEVER_S
        """When the latest call was sent that failed in the present run."""
        self.good_at_s = _NEVER_S
        """When the latest probe was sent that came back well."""

    def health(self, now_s: float) -> Health:
        if not self.is_open:
            return "closed"
        return "open" if now_s < self.retry_at_s else "half_open"

    def blocked_until_s(self) -> float:
        """The time from which a call may be sent; in the past if one may be now."""
        if not self.is_open:
            return self.held_until_s
        probing = self.silent_at_s if self.n_out >= self.params.n_probes else self.retry_at_s
        return max(probing, self.retry_at_s, self.held_until_s)

    def sent(self, now_s: float) -> None:
        """Note a call sent; while half open it is a probe."""
        if self.is_open and now_s >= self.retry_at_s:
            if now_s >= self.silent_at_s:
                self.n_out = 0
            self.n_out += 1
            self.silent_at_s = now_s + self.params.probe_timeout_s

    def record(
        self,
        lesson: Lesson,
        now_s: float,
        *,
        sent_at_s: float | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        """Take in how an attempt ended.

        Parameters
        ----------
        sent_at_s : float, optional
            When it was sent, same clock; unknown is taken as after the opening.
        retry_after_s : float, optional
            For capacity: the pause the provider asked for.
        """
        if self.is_open:
            self.n_out = max(self.n_out - 1, 0)
        if lesson == "success":
            self._succeed(now_s, sent_at_s)
        elif lesson == "failure":
            self._fail(now_s, sent_at_s)
        elif lesson == "capacity":
            self._hold(now_s, retry_after_s)

    def put_on_probation(self) -> None:
        """Closed on little evidence: the next failure opens it again, a success ends this."""
        self.n_failed = self.params.open_after - 1

    def _succeed(self, now_s: float, sent_at_s: float | None) -> None:
        if sent_at_s is None or sent_at_s >= self.failing_at_s:
            self.n_failed = 0
        self.n_limited = 0
        if self.is_open and (sent_at_s is None or sent_at_s >= self.opened_at_s):
            self.n_good += 1
            self.good_at_s = max(self.good_at_s, now_s if sent_at_s is None else sent_at_s)
            if self.n_good >= self.params.close_after:
                self.is_open = False
                self.closed_at_s = now_s
                self.held_until_s = _NEVER_S

    def _fail(self, now_s: float, sent_at_s: float | None) -> None:
        sent = now_s if sent_at_s is None else sent_at_s
        if sent < self.good_at_s:
            return
        self.failing_at_s = max(self.failing_at_s, sent) if self.n_failed else sent
        self.n_failed += 1
        if not self.is_open:
            if self.n_failed >= self.params.open_after:
                if now_s - self.closed_at_s > self.params.forgive_s:
                    self.n_openings = 0
                self._open(now_s, now_s)
        elif sent >= self.opened_at_s:
            self._open(now_s, sent)

    def _open(self, now_s: float, since_s: float) -> None:
        """Open until the opening's time has passed since `since_s`, when a bad probe was sent: one
        that hangs for a second has waited that second already. Calls sent after it prove anew.
        """
        p = self.params
        self.is_open = True
        self.n_good = 0
        self.n_out = 0
        length = min(p.open_s * 2.0 ** min(self.n_openings, 60), p.max_open_s)
        self.n_openings += 1
        spread = 1.0 - p.jitter_share * _unit_hash(self.seed, self.n_openings)
        self.opened_at_s = since_s
        self.retry_at_s = max(since_s + length * spread, now_s + _LEAST_OPEN_S)

    def _hold(self, now_s: float, retry_after_s: float | None) -> None:
        p = self.params
        pause = p.hold_s * 2.0 ** min(self.n_limited, 60)
        if retry_after_s is not None and math.isfinite(retry_after_s) and retry_after_s > 0:
            pause = retry_after_s
        else:
            # Told nothing, we look again as often as at a broken one: it may be well long since.
            pause = min(pause, p.max_open_s)
            pause *= 1.0 - p.jitter_share * _unit_hash(self.seed, self.n_limited)
        self.n_limited += 1
        self.held_until_s = max(self.held_until_s, now_s + min(pause, p.max_hold_s))

    def state(self) -> list[float]:
        """The circuit as finite floats; when its last calls were sent is not part of it."""
        return [
            float(self.is_open),
            float(self.n_failed),
            float(self.n_good),
            float(self.n_openings),
            float(self.n_limited),
            float(self.n_out),
            self.opened_at_s,
            self.closed_at_s,
            self.retry_at_s,
            self.silent_at_s,
            self.held_until_s,
        ]

    def restore(self, state: Sequence[float]) -> None:
        self.is_open = state[0] != 0
        self.n_failed, self.n_good, self.n_openings, self.n_limited, self.n_out = (
            int(x) for x in state[1:6]
        )
        (
            self.opened_at_s,
            self.closed_at_s,
            self.retry_at_s,
            self.silent_at_s,
            self.held_until_s,
        ) = state[6:]


class CircuitBreakers:
    """One circuit a row, and when each may be sent to again as an array.

    Examples
    --------
    >>> breakers = CircuitBreakers(CircuitParams())
    >>> breakers.grow(2)
    >>> for _ in range(5):
    ...     breakers.record(0, "failure", 10.0)
    >>> breakers.may_send(10.1).tolist(), breakers.may_send(11.0).tolist()
    ([False, True], [True, True])
    """

    def __init__(self, params: CircuitParams | None = None, seed: int = 0) -> None:
        self.params = params or CircuitParams()
        self.seed = seed
        self.circuits: list[Circuit] = []
        self.blocked_until_s: Floats = np.zeros(0)
        self.is_open: Bools = np.zeros(0, dtype=np.bool_)

    def grow(self, n_rows: int) -> None:
        for row in range(len(self.circuits), n_rows):
            self.circuits.append(Circuit(self.params, self.seed * 1_000_003 + row))
        missing = len(self.circuits) - len(self.blocked_until_s)
        self.blocked_until_s = np.append(self.blocked_until_s, np.full(missing, _NEVER_S))
        self.is_open = np.append(self.is_open, np.zeros(missing, dtype=np.bool_))

    def steer(self, params: CircuitParams) -> None:
        """Go on under other params; what stands open stays so until its time."""
        self.params = params
        for circuit in self.circuits:
            circuit.params = params

    def may_send(self, now_s: float) -> Bools:
        """Which rows may be sent a call now: closed, or half open with a probe to spare."""
        mask: Bools = self.blocked_until_s <= now_s
        return mask

    def half_open(self, now_s: float) -> Bools:
        """Which rows have an open circuit whose time is up, with a probe to spare."""
        mask: Bools = self.is_open & (self.blocked_until_s <= now_s)
        return mask

    def sent(self, row: int, now_s: float) -> None:
        self.circuits[row].sent(now_s)
        self.blocked_until_s[row] = self.circuits[row].blocked_until_s()

    def record(
        self,
        row: int,
        lesson: Lesson,
        now_s: float,
        *,
        sent_at_s: float | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        """Take in how an attempt at `row` ended; see `Circuit.record`."""
        circuit = self.circuits[row]
        circuit.record(lesson, now_s, sent_at_s=sent_at_s, retry_after_s=retry_after_s)
        self.blocked_until_s[row] = circuit.blocked_until_s()
        self.is_open[row] = circuit.is_open

    def health(self, now_s: float) -> list[Health]:
        return [circuit.health(now_s) for circuit in self.circuits]


def spared(blocked: Bools, market: Ints, badness: Floats, max_share: float) -> Bools:
    """`blocked` with the least bad set free where too many of one market would be.

    Parameters
    ----------
    blocked : ndarray of bool, (n_offers,)
    market : ndarray, (n_offers,)
        What can stand in for each other: usually the model.
    badness : ndarray, (n_offers,)
        The lower, the sooner set free: failure share, or the time of the next retry.
    max_share : float
        Largest share of a market's offers that may stay blocked; at least one is always free.

    Examples
    --------
    >>> spared(np.array([True, True, False]), np.zeros(3, int), np.array([0.9, 0.5, 0.0]), 0.4)
    array([ True, False, False])
    """
    kept = blocked.copy()
    for name in np.unique(market[blocked]):
        members = np.flatnonzero(market == name)
        most = min(math.floor(max_share * len(members)), len(members) - 1)
        down = members[blocked[members]]
        excess = len(down) - most
        if excess > 0:
            kept[down[np.argsort(badness[down], kind="stable")[:excess]]] = False
    return kept


def _unit_hash(seed: int, n: int) -> float:
    """A number in 0..1 that depends on its arguments alone (splitmix64)."""
    x = (seed * 0x9E3779B97F4A7C15 + n * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) & _MASK64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK64
    return ((x ^ (x >> 31)) >> 11) / float(1 << 53)
