"""Kinds of work found among prompts whose app names none: streaming clusters of their features.

Owns the clusters, which are few whatever comes; turning a prompt into features is another's work,
and no prompt is ever seen here. A prompt joins the nearest cluster, or begins one of its own where
none is near; when there are too many, the two whose merger loses least (Ward) become one. So a
lone oddity does not last, a new kind of work gets a cluster as soon as it comes, and memory is
constant. Old prompts count for less: a kind that is no longer asked for is merged away.

A cluster keeps its number for life, and a number is never used again, so that what was learned
under its name is never taken for another's. Names are made of what the clusters' mean features
say (much code, many digits, long), a fixed list of words, and never of anything that was asked.

References
----------
Ward (1963) for the merger; Aggarwal et al., CluStream (VLDB 2003) for few weighted clusters kept
over a stream.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from msgspec import Struct

from bidding.columns import Floats
from bidding.errors import BadState
from bidding.features import COUNT_NAMES, GROUP_NORM, N_COUNTS, N_FEATURES, N_TEXT

UNNAMED_TASK: Final = "general"
"""The task of requests whose app names none."""

N_BASE: Final = N_COUNTS + N_TEXT
MAX_CLUSTERS: Final = 12
FAR: Final = 10.0
"""Squared distance from the nearest centre at which a prompt begins a cluster. Prompts of a set
lie 4 to 8 from its middle on average, middles of sets 4 to 7 apart (docs/decisions/0034)."""

SETTLED: Final = 100.0
"""Prompts a cluster must stand for before requests are told apart by it."""

HALF_LIFE: Final = 20_000.0
STATE_VERSION: Final = 1.0
_HELD: Final = 8.0
_TELLING: Final = 0.5
_PER_COUNT: Final = GROUP_NORM / math.sqrt(N_COUNTS)
_MEANINGS: Final[dict[str, tuple[str, str]]] = {
    "code_marks": ("code", ""),
    "tex_marks": ("formulas", ""),
    "operators": ("calculations", ""),
    "digits": ("figures", ""),
    "numbers": ("figures", ""),
    "beyond_ascii": ("other-scripts", ""),
    "lines": ("lists", ""),
    "question_marks": ("questions", "instructions"),
    "commas": ("prose", ""),
    "full_stops": ("prose", ""),
    "capitals": ("names", ""),
}
_LENGTH: Final = COUNT_NAMES.index("characters")


class FoundTask(Struct, frozen=True, kw_only=True):
    """A kind of work that was found: its number, its name for people (which may change as it
    moves), how many prompts stand behind it (old ones decayed), and where it lies, shape (N_BASE,).
    """

    number: int
    name: str
    n: float
    centre: list[float]

    @property
    def task(self) -> str:
        """What its requests' task is called wherever one is recorded."""
        return f"{UNNAMED_TASK}/{self.number}"


class FoundTasks:
    """What a gateway reads: settled clusters. `assign` is a pure function of it and a prompt."""

    __slots__ = ("_centres", "_half_norms", "_n", "_names", "tasks")

    def __init__(self, tasks: Sequence[FoundTask] = ()) -> None:
        fit = [t for t in tasks if len(t.centre) == N_BASE and np.all(np.isfinite(t.centre))]
        self.tasks = tuple(fit)
        self._names = [t.task for t in fit]
        self._n = np.array([t.n for t in fit])
        self._centres = np.array([t.centre for t in fit]).reshape(len(fit), N_BASE)
        self._half_norms = 0.5 * np.square(self._centres).sum(axis=1)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FoundTasks) and self.tasks == other.tasks

    def __hash__(self) -> int:
        return hash(self.tasks)

    def assign(self, features: Sequence[float], least_n: float = SETTLED) -> str | None:
        """The task of the nearest that stands for `least_n` prompts; None where there is none, or
        the features cannot be placed.

        Notes
        -----
        One product of a small matrix: a few µs.
        """
        if not self._names or len(features) != N_FEATURES:
            return None
        scores = self._centres @ np.array(features[:N_BASE]) - self._half_norms
        scores[self._n < least_n] = -math.inf
        best = int(scores.argmax())
        return self._names[best] if math.isfinite(scores[best]) else None


class TaskFinder:
    """Folds prompts' features into clusters. Pure: what comes out depends on the order alone."""

    def __init__(self) -> None:
        self._centres = np.zeros((0, N_BASE))
        self._n = np.zeros(0)
        self._numbers: list[int] = []
        self._next = 1

    @property
    def n_prompts(self) -> float:
        """Prompts folded in, old ones decayed."""
        return float(self._n.sum())

    def fold(self, features: Sequence[float]) -> None:
        """Take in one prompt's features; of another length or not finite they say nothing."""
        if len(features) != N_FEATURES:
            return
        x = np.clip(np.asarray(features[:N_BASE], dtype=np.float64), -_HELD, _HELD)
        if not np.all(np.isfinite(x)):
            return
        self._n *= 0.5 ** (1.0 / HALF_LIFE)
        if len(self._n):
            distance = np.square(self._centres - x).sum(axis=1)
            nearest = int(distance.argmin())
            if distance[nearest] <= FAR:
                self._n[nearest] += 1.0
                self._centres[nearest] += (x - self._centres[nearest]) / self._n[nearest]
                return
        self._centres = np.vstack([self._centres, x])
        self._n = np.append(self._n, 1.0)
        self._numbers.append(self._next)
        self._next += 1
        if len(self._n) > MAX_CLUSTERS:
            self._merge()

    def tasks(self) -> list[FoundTask]:
        """Clusters that stand for enough prompts, oldest first."""
        return [
            FoundTask(
                number=number,
                name=name_of(centre),
                n=float(n),
                centre=centre.round(4).tolist(),
            )
            for number, n, centre in zip(self._numbers, self._n, self._centres, strict=True)
            if n >= SETTLED
        ]

    def state(self) -> list[float]:
        """All memory as floats, the version first."""
        rows = np.column_stack([np.array(self._numbers), self._n, self._centres])
        return [STATE_VERSION, float(self._next), *rows.ravel().tolist()]

    def restore(self, state: Sequence[float]) -> None:
        """Replace all memory. Raises `BadState` on another version or shape."""
        n_each = N_BASE + 2
        if len(state) < 2 or state[0] != STATE_VERSION or (len(state) - 2) % n_each:
            raise BadState("found tasks: version or shape unknown")
        numbers = np.array(state[1:], dtype=np.float64)
        rows = numbers[1:].reshape(-1, n_each)
        if not np.all(np.isfinite(numbers)) or len(rows) > MAX_CLUSTERS or np.any(rows[:, 1] <= 0):
            raise BadState("found tasks: not numbers that clusters can have")
        self._next = int(numbers[0])
        self._numbers = [int(number) for number in rows[:, 0]]
        self._n = rows[:, 1].copy()
        self._centres = rows[:, 2:].copy()

    def _merge(self) -> None:
        """The pair whose merger loses least becomes one, under the heavier's number."""
        n = self._n
        apart = np.square(self._centres[:, None] - self._centres[None]).sum(axis=2)
        loss = apart * (n[:, None] * n[None] / (n[:, None] + n[None]))
        loss[np.diag_indices(len(n))] = math.inf
        i, j = divmod(int(loss.argmin()), len(n))
        keep, drop = (i, j) if n[i] >= n[j] else (j, i)
        both = n[keep] + n[drop]
        self._centres[keep] += (self._centres[drop] - self._centres[keep]) * (n[drop] / both)
        n[keep] = both
        self._centres = np.delete(self._centres, drop, axis=0)
        self._n = np.delete(n, drop)
        del self._numbers[drop]


def root_of(task: str) -> str:
    """The task an app named, or `UNNAMED_TASK` for those found from prompts.

    Examples
    --------
    >>> root_of("general/7"), root_of("math"), root_of("acme/7")
    ('general', 'math', 'acme/7')
    """
    return UNNAMED_TASK if task.startswith(_FOUND) else task


_FOUND: Final = f"{UNNAMED_TASK}/"


def name_of(centre: Floats) -> str:
    """What a cluster is called: what its prompts have most of, beside ordinary ones, and whether
    they are short or long.

    Parameters
    ----------
    centre : ndarray, (N_BASE,)

    Examples
    --------
    >>> much_code = np.zeros(N_BASE)
    >>> much_code[COUNT_NAMES.index("code_marks")] = 1.0
    >>> name_of(much_code), name_of(np.zeros(N_BASE))
    ('code', 'mixed')
    """
    z = np.asarray(centre[:N_COUNTS]) / _PER_COUNT
    words: list[tuple[float, str]] = []
    for name, (much, little) in _MEANINGS.items():
        value = float(z[COUNT_NAMES.index(name)])
        if abs(value) >= _TELLING:
            words.append((abs(value), much if value > 0.0 else little))
    told = [word for _, word in sorted(words, reverse=True) if word]
    length = float(z[_LENGTH])
    size = "long" if length >= _TELLING else "short" if length <= -_TELLING else ""
    return "-".join(word for word in (size, told[0] if told else "mixed") if word)
