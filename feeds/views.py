"""What a gateway's view was made of, written down so that it can be made again.

A view is the book, which is what certain records on the log made of it, and the gateway's own
columns over it. So a few offsets and a few numbers tell all of it: those that changed since the
last view that was written down, and every so often all of them. Only views that a decision has
read are written down, at the first such decision, which costs it some 10 µs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bidding.quote import Position
from feeds.market_records import ViewRecord

FULL_EVERY: Final = 64
"""Views written down as changes between two that are written down whole."""

Overlay = Mapping[str, NDArray[np.generic]]
_Key = tuple[str, str]


class Made(NamedTuple):
    """What one view was made of: the records since the view in force, and its columns."""

    number: int
    at_us: int
    overlay: Overlay
    later: Mapping[_Key, Position]


class ViewLog:
    """Keeps what the view in force was made of. One thread; `made` with every new view, and
    `put_in_force` when decisions begin to read it: records may come in between.

    Parameters
    ----------
    catalogue : digest of the catalogue the book was made from
    defaults : the params that this build starts with, as JSON
    """

    def __init__(self, *, catalogue: str, defaults: str, full_every: int = FULL_EVERY) -> None:
        self._catalogue = catalogue
        self._defaults = defaults
        self._full_every = full_every
        self._in_force: dict[_Key, Position] = {}
        self._changed: dict[_Key, Position] = {}
        self._later: dict[_Key, Position] = {}
        self._overlay: Overlay = {}
        self._written: Overlay = {}
        self._number = self._base = 0
        self._at_us = 0
        self._n_changes = 0

    def took(self, key: str, position: Position) -> None:
        """A record has moved the book; the next view will show it."""
        at = (position.topic, key)
        self._later.pop(at, None)
        self._later[at] = position

    def made(self, number: int, at_us: int, overlay: Overlay) -> Made:
        """A view was made of the book as it is now. The columns must not change afterwards."""
        return Made(number, at_us, overlay, dict(self._later))

    def put_in_force(self, made: Made) -> None:
        """From now on decisions read this view. One made earlier may not follow it."""
        for at, position in made.later.items():
            if self._later.get(at) == position:
                del self._later[at]
            self._in_force.pop(at, None)
            self._in_force[at] = position
            self._changed.pop(at, None)
            self._changed[at] = position
        self._number, self._at_us, self._overlay = made.number, made.at_us, made.overlay

    def used(self) -> ViewRecord | None:
        """The record of the view in force; None when it is written down already."""
        if self._number == self._base:
            return None
        full = self._base == 0 or self._n_changes >= self._full_every
        record = ViewRecord(
            view_number=self._number,
            at_us=self._at_us,
            base=0 if full else self._base,
            applied=_by_partition((self._in_force if full else self._changed).values()),
            overlay=_changes({} if full else self._written, self._overlay),
            catalogue=self._catalogue if full else "",
            defaults=self._defaults if full else "",
        )
        self._n_changes = 0 if full else self._n_changes + 1
        self._changed = {}
        self._written, self._base = self._overlay, self._number
        return record


def positions_of(record: ViewRecord) -> list[Position]:
    """The records that moved the book, in the order in which they did within a partition."""
    found = []
    for place, offsets in record.applied.items():
        log, topic, partition = place.rsplit("|", 2)
        found += [Position(log, topic, int(partition), offset) for offset in offsets]
    return found


def overlaid(
    columns: Mapping[str, NDArray[np.float64]], record: ViewRecord, n_offers: int
) -> dict[str, NDArray[np.float64]]:
    """The gateway's columns after `record`, from those before it; all as floats."""
    after = {} if record.base == 0 else {name: column.copy() for name, column in columns.items()}
    for name, pairs in record.overlay.items():
        column = after.setdefault(name, np.zeros(n_offers))
        rows = np.array(pairs[::2], dtype=np.int64)
        column[rows] = pairs[1::2]
    return after


def _by_partition(positions: Iterable[Position]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for log, topic, partition, offset in map(_plain, positions):
        found.setdefault(f"{log}|{topic}|{partition}", []).append(offset)
    return found


def _plain(position: Position) -> tuple[str, str, int, int]:
    return position.log, position.topic, position.partition, position.offset


def _changes(before: Overlay, after: Overlay) -> dict[str, list[float]]:
    """Each column's rows that differ, and their values; a column not known before is all zeros."""
    found: dict[str, list[float]] = {}
    for name, column in after.items():
        known = before.get(name)
        moved = np.flatnonzero(column != (np.zeros_like(column) if known is None else known))
        found[name] = np.stack((moved, column[moved].astype(np.float64)), axis=1).ravel().tolist()
    return {name: pairs for name, pairs in found.items() if pairs or name not in before}
