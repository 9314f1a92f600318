"""Views made again from their records and from the records that moved the book. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from bidding.book import MarketBook
from bidding.market import Catalogue
from bidding.params import Params
from bidding.quote import Position
from bidding.view import MarketView
from feeds.booking import take
from feeds.codec import Record
from feeds.errors import Unmakeable
from feeds.market_records import SkillRecord, ViewRecord
from feeds.views import overlaid, positions_of

_BOOLS: Final = frozenset(f.name for f in dataclasses.fields(MarketView) if f.type == "Bools")


class Place(NamedTuple):
    """A record's place on the log, as a key."""

    log: str
    topic: str
    partition: int
    offset: int


ClassStates = Mapping[str, Mapping[str, Sequence[float]]]
"""Memory of class prices, by task and class."""


class Remade(Struct):
    """A view as it was, the params that its build starts with, and the class prices' memory."""

    view: MarketView
    defaults: Params
    class_states: ClassStates = {}


class ViewMaker:
    """A book on its way from view to view of one gateway.

    Parameters
    ----------
    catalogues : by digest; those that the views' records name must be there when they are met

    Attributes
    ----------
    records : what the next steps take in; put them there beforehand
    taken : places of the records that are in the book
    """

    def __init__(self, catalogues: Mapping[str, Catalogue]) -> None:
        self._catalogues = catalogues
        self.book: MarketBook | None = None
        self.records: dict[Place, Record] = {}
        self.taken: set[Place] = set()
        self._columns: dict[str, NDArray[np.float64]] = {}
        self._defaults = Params()
        self._class_states: dict[str, Mapping[str, Sequence[float]]] = {}
        self._at = 0

    def step(self, record: ViewRecord) -> None:
        """Bring the book and the columns to where they were when `record`'s view was made.

        Raises
        ------
        Unmakeable
            What it is a change on, or what moved the book, is missing.
        """
        if record.base == 0:
            if record.defaults:
                self._defaults = msgspec.json.decode(record.defaults, type=Params)
            if self.book is None:
                self.book = MarketBook(self._catalogues[record.catalogue])
        elif record.base != self._at:
            raise Unmakeable(
                f"view {record.view_number} is a change on {record.base}, which is missing"
            )
        assert self.book is not None
        places = [place_of(p) for p in positions_of(record)]
        for place in places:
            self._take(self.book, place)
        if record.base == 0:
            self.taken = set(places)
        self._columns = overlaid(self._columns, record, len(self.book.offers))
        self._at = record.view_number

    def remade(self, record: ViewRecord) -> Remade:
        """The view of the `record` last stepped to."""
        assert self.book is not None
        columns: dict[str, Any] = {
            name: column != 0 if name in _BOOLS else column.copy()
            for name, column in self._columns.items()
        }
        view = self.book.view(record.at_us, **columns)
        view = dataclasses.replace(view, number=record.view_number)
        return Remade(view, self._defaults, dict(self._class_states))

    def _take(self, book: MarketBook, place: Place) -> None:
        """Take in a record, unless it is in: a whole view repeats what led up to it."""
        if place in self.taken:
            return
        record = self.records.pop(place, None)
        if record is None:
            raise Unmakeable(f"{place.topic} at {place.offset} of {place.log} is missing")
        take(book, record)
        if isinstance(record, SkillRecord):
            self._class_states[record.task] = record.classes
        self.taken.add(place)


def place_of(position: Position) -> Place:
    """The place of a position."""
    return Place(position.log, position.topic, position.partition, position.offset)
