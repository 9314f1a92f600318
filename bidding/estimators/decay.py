"""Sums that forget, kept per row, in constant time and to the last bit.

Owns the three things every estimator of offers needs: a clock per row that bad stamps cannot
break, sums with forward decay, and the order in which a batch is folded. The idea that is not
obvious: an event's weight is computed relative to a landmark that lies on a fixed grid of
64 half-lives, as a mantissa that depends on the event alone times a power of two. Moving the
landmark is then an exact scaling, and adding is strictly sequential, so that folding gives the
same bits wherever the batches were cut, and a restored state goes on as if never interrupted.

References
----------
Cormode, Shkapenyuk, Srivastava, Xu: Forward decay, a practical time decay model for streaming
systems, ICDE 2009, section III (exponential g, landmark renormalisation).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from bidding.errors import BadState

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
T = TypeVar("T", bound=np.generic)

HALF_LIVES_PER_CELL: Final = 64
"""Landmark spacing: weights stay within 2**64, far from overflow and underflow."""

LATE_TOLERANCE_S: Final = 300.0
"""Events up to this much out of order are simply older; beyond, the stamp is odd."""

GAP_TOLERANCE_S: Final = 4 * 86_400.0
"""Leaps up to this are taken as quiet time; beyond, the stamp is odd."""

ODD_BEFORE_STEP: Final = 3
"""So many odd stamps in a row and it is the clock that stepped, not one event that lies."""

_MAX_ABS_S: Final = 1e11


class RowClock:
    """Each row's time, from wall-clock stamps that may leap, step back or be missing.

    A stamp out of the tolerances, or not finite, is read as the row's present, so that one bad
    clock neither ages a row's whole memory nor is given no weight. Three odd stamps in a row
    are believed: the row's time then goes on from where it was (a step back) or ages by
    `GAP_TOLERANCE_S` (a leap).
    """

    N_STATE: Final = 4

    def __init__(self) -> None:
        self.seen = np.zeros(0, dtype=np.bool_)
        self.high_s: Floats = np.zeros(0)
        self.shift_s: Floats = np.zeros(0)
        self.n_odd: Floats = np.zeros(0)

    def grow(self, n_rows: int) -> None:
        self.seen = grown(self.seen, n_rows)
        self.high_s = grown(self.high_s, n_rows)
        self.shift_s = grown(self.shift_s, n_rows)
        self.n_odd = grown(self.n_odd, n_rows)

    def present_s(self) -> Floats:
        """Each row's own present: its latest event, in its own time; 0 if it has none."""
        return np.where(self.seen, self.high_s - self.shift_s, 0.0)

    def now_s(self, now_s: float) -> Floats:
        """Wall-clock `now_s` in each row's time, never before its latest event."""
        wall = now_s if np.isfinite(now_s) else -_MAX_ABS_S
        return np.where(self.seen, np.maximum(wall, self.high_s) - self.shift_s, 0.0)

    def read(self, order: Order, at_s: Floats) -> Floats:
        """Row times of a batch's stamps (in `order`'s row-sorted order), moving the clocks."""
        at = at_s[order.index]
        row = order.row
        if not len(row):
            return at
        rows, first = order.rows, order.first
        usable = np.abs(at) < _MAX_ABS_S
        at[~usable] = 0.0
        low = np.minimum.reduceat(at, first)
        top = np.maximum.reduceat(at, first)
        step = np.diff(at, prepend=at[0])
        step[first] = 0.0
        smallest = np.minimum.reduceat(step, first)
        largest = np.maximum.reduceat(step, first)
        high = np.where(self.seen[rows], self.high_s[rows], at[first])
        plain = np.logical_and.reduceat(usable, first) & (self.n_odd[rows] == 0)
        plain &= low >= high - LATE_TOLERANCE_S
        plain &= np.abs(at[first] - high) <= GAP_TOLERANCE_S
        plain &= ((smallest >= 0) & (largest <= GAP_TOLERANCE_S)) | (top - low <= LATE_TOLERANCE_S)
        tau = at - self.shift_s[row]
        calm = rows[plain]
        self.high_s[calm] = np.maximum(high, top)[plain]
        self.seen[calm] = True
        ends = np.append(first[1:], len(row))
        for k in np.flatnonzero(~plain):
            for i in range(int(first[k]), int(ends[k])):
                tau[i] = self._read_one(int(row[i]), float(at[i]), bool(usable[i]))
        return tau

    def _read_one(self, row: int, at_s: float, usable: bool) -> float:
        if not self.seen[row]:
            if not usable:
                return 0.0
            self.seen[row] = True
            self.high_s[row] = at_s
            return float(at_s - self.shift_s[row])
        high = float(self.high_s[row])
        if not usable:
            return float(high - self.shift_s[row])
        if high - LATE_TOLERANCE_S <= at_s <= high + GAP_TOLERANCE_S:
            self.n_odd[row] = 0
            self.high_s[row] = max(high, at_s)
            return float(at_s - self.shift_s[row])
        self.n_odd[row] += 1
        if self.n_odd[row] >= ODD_BEFORE_STEP:
            aged = GAP_TOLERANCE_S if at_s > high else 0.0
            self.shift_s[row] += at_s - high - aged
            self.high_s[row] = at_s
            self.n_odd[row] = 0
        return float(self.high_s[row] - self.shift_s[row])

    def state(self, row: int) -> list[float]:
        columns = (self.seen, self.high_s, self.shift_s, self.n_odd)
        return [float(column[row]) for column in columns]

    def restore(self, row: int, state: Sequence[float]) -> None:
        self.seen[row] = state[0] != 0
        self.high_s[row], self.shift_s[row], self.n_odd[row] = state[1:4]


class Order:
    """A batch sorted by row, keeping log order within each row.

    Attributes
    ----------
    index : where each sorted event sits in the batch
    row : rows of the sorted events
    rows, first : the distinct rows, and where each one's events begin
    """

    def __init__(self, row: Ints) -> None:
        self.index: Ints = np.argsort(row, kind="stable")
        self.row: Ints = row[self.index]
        starts = np.ones(len(row), dtype=np.bool_)
        starts[1:] = self.row[1:] != self.row[:-1]
        self.first: Ints = np.flatnonzero(starts)
        self.rows: Ints = self.row[self.first]

    def rounds(self, breaks: Bools) -> Iterator[Ints]:
        """Blocks to fold one after another: positions (in sorted order) of each round's events.

        `breaks` marks events that begin a new block of their row. The r-th round holds the
        r-th block of every row, so a round never holds two blocks of one row.
        """
        if not len(self.row):
            return
        inner = breaks.copy()
        inner[self.first] = False
        if not inner.any():
            yield np.arange(len(self.row))
            return
        n_before: Ints = np.cumsum(inner)
        counts = np.diff(np.append(self.first, len(self.row)))
        ordinal: Ints = n_before - np.repeat(n_before[self.first], counts)
        by_round = np.argsort(ordinal, kind="stable")
        edges = np.flatnonzero(np.diff(ordinal[by_round])) + 1
        yield from np.split(by_round, edges)


class DecayedSums:
    """`n_sums` exponentially decayed sums a row, all with one half-life.

    `sums` has shape (n_sums, n_rows); what it holds is relative to the row's landmark `cell`,
    so read it through `at`.
    """

    def __init__(self, n_sums: int, half_life_s: float) -> None:
        self.n_sums = n_sums
        self.half_life_s = half_life_s
        self.sums: Floats = np.zeros((n_sums, 0))
        self.cell: Ints = np.zeros(0, dtype=np.int64)

    def grow(self, n_rows: int) -> None:
        self.sums = grown(self.sums, n_rows)
        self.cell = grown(self.cell, n_rows)

    def cells(self, tau_s: Floats) -> Ints:
        """The landmark cell of each time."""
        span_s = self.half_life_s * HALF_LIVES_PER_CELL
        return np.floor(tau_s / span_s).astype(np.int64)

    def advance(self, rows: Ints, tau_s: Floats) -> None:
        """Move the landmarks of distinct `rows` up to the cells of `tau_s`; exact."""
        cell = np.maximum(self.cells(tau_s), self.cell[rows])
        moved = cell > self.cell[rows]
        if moved.any():
            rows, cell = rows[moved], cell[moved]
            down = _exponent(HALF_LIVES_PER_CELL * (self.cell[rows] - cell))
            self.sums[:, rows] = np.ldexp(self.sums[:, rows], down)
            self.cell[rows] = cell

    def weights(self, row: Ints, tau_s: Floats) -> Floats:
        """Forward weights of events relative to their rows' landmarks."""
        lives = tau_s / self.half_life_s
        whole = np.floor(lives)
        exponent = whole.astype(np.int64) - HALF_LIVES_PER_CELL * self.cell[row]
        return np.ldexp(np.exp2(lives - whole), _exponent(exponent))

    def add(self, row: Ints, values: Floats) -> None:
        """Add weighted `values`, shape (n_sums, len(row)), strictly one after another."""
        for sums, column in zip(self.sums, values, strict=True):
            np.add.at(sums, row, column)

    def add_one(self, k: Ints, row: Ints, values: Floats) -> None:
        """Add each of `values` to the sum `k` of its own, strictly one after another."""
        np.add.at(self.sums.reshape(-1), k * self.sums.shape[1] + row, values)

    def put(self, k: int, rows: Ints, tau_s: Floats, values: Floats) -> None:
        """Make sum `k` of distinct `rows` weigh `values` at `tau_s`."""
        age = tau_s / self.half_life_s - HALF_LIVES_PER_CELL * self.cell[rows]
        self.sums[k, rows] = values * np.exp2(age)

    def at(self, rows: Ints, tau_s: Floats) -> Floats:
        """The sums as they weigh at `tau_s`: shape (n_sums, len(rows))."""
        age = tau_s / self.half_life_s - HALF_LIVES_PER_CELL * self.cell[rows]
        # Stamps before the epoch lie before the first landmark; they must not overflow.
        return self.sums[:, rows] * np.exp2(-np.clip(age, -900.0, 2000.0))

    def retune(self, half_life_s: float, tau_s: Floats) -> None:
        """Forget at another rate from `tau_s`, (n_rows,), on; what is held there stays."""
        if half_life_s == self.half_life_s:
            return
        held = self.at(np.arange(len(tau_s)), tau_s)
        self.half_life_s = half_life_s
        self.cell = self.cells(tau_s)
        self.sums = held * np.exp2(tau_s / half_life_s - HALF_LIVES_PER_CELL * self.cell)

    def restore_from(
        self, row: int, state: Sequence[float], half_life_s: float, tau: float
    ) -> None:
        """Restore a row that was kept with another half-life, and was at `tau` seconds then."""
        kept = DecayedSums(self.n_sums, half_life_s)
        kept.grow(1)
        kept.restore(0, state)
        kept.retune(self.half_life_s, np.array([tau]))
        self.restore(row, kept.state(0))

    def state(self, row: int) -> list[float]:
        return [float(self.cell[row]), *self.sums[:, row].tolist()]

    def restore(self, row: int, state: Sequence[float]) -> None:
        self.cell[row] = int(state[0])
        self.sums[:, row] = state[1:]


def _exponent(exponent: Ints) -> NDArray[np.int32]:
    return np.clip(exponent, -2200, 1000).astype(np.int32)


def split_state(
    name: str, version: int, state: Sequence[float], sizes: Sequence[int]
) -> list[list[float]]:
    """A stored state in parts of `sizes`. Raises `BadState` if it is not of this version."""
    if len(state) != sum(sizes) or not all(math.isfinite(x) for x in state):
        raise BadState(f"{name}: {len(state)} numbers where {sum(sizes)} finite ones belong")
    if state[0] != version:
        raise BadState(f"{name}: version {state[0]}, this is {version}; start the series afresh")
    parts, at = [], 0
    for size in sizes:
        parts.append([float(x) for x in state[at : at + size]])
        at += size
    return parts


def kept_lives(usual: Sequence[float], lives: Sequence[float]) -> Sequence[float]:
    """What a state says of the half-lives it was kept with: nothing where they are the usual."""
    return () if tuple(lives) == tuple(usual) else lives


def lives_of(
    state: Sequence[float], size: int, usual: Sequence[float]
) -> tuple[Sequence[float], Sequence[float]]:
    """A state of `size` numbers without its half-lives, and those.

    Raises
    ------
    BadState
        One of them is not a time.
    """
    if len(state) != size + len(usual):
        return state, usual
    lives = state[size:]
    if not all(0.0 < life < math.inf for life in lives):
        raise BadState(f"half-lives {list(lives)} s")
    return state[:size], lives


def grown(array: NDArray[T], n_rows: int) -> NDArray[T]:
    """`array` with its last axis extended by zeros up to `n_rows`; never shorter."""
    missing = n_rows - array.shape[-1]
    if missing <= 0:
        return array
    widths = [(0, 0)] * (array.ndim - 1) + [(0, missing)]
    return np.pad(array, widths)
