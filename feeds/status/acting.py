"""From incidents on the log to the estimators: which offer is said to be in trouble, and how sure.

Incidents act here and nowhere else, so they reach an auction through quotes alone, and a decision
made again needs nothing but those. A page's word is worth less while a fix is being watched, and
less and less once its feed is stale; where several incidents name an offer, the one that suggests
most counts.
"""

from __future__ import annotations

from typing import Final, Protocol
from zlib import crc32

from bidding.market import Catalogue, Offer
from feeds.codec import Record
from feeds.freshness import influence
from feeds.market_records import FeedRecord, StatusRecord
from feeds.status.incident import SEVERITIES
from feeds.status.pages import Concern, is_concerned

_WORTH: Final = {"monitoring": 0.5}
"""Of a stage in which most has passed; others count whole."""
_OVER: Final = frozenset({"resolved", "scheduled", "postmortem", "completed"})


class Told(Protocol):
    """Who is told of reports: the estimators' `Quoter`, whose word on the arguments holds."""

    def report(self, offer: str, severity: str, chance: float, report_id: float) -> None: ...


class IncidentsActing:
    """The newest word of every incident and feed, and what follows for offers."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._offers: dict[str, list[Offer]] = {}
        for offer in catalogue.offers:
            self._offers.setdefault(offer.provider, []).append(offer)
        self._open: dict[tuple[str, str], StatusRecord] = {}
        self._feeds: dict[str, FeedRecord] = {}
        self._reported: set[str] = set()

    def take(self, record: Record | None) -> bool:
        """Take in what concerns us; whether it may change a quote."""
        if isinstance(record, FeedRecord):
            self._feeds[record.feed] = record
            return False
        if not isinstance(record, StatusRecord):
            return False
        key = (record.provider, record.incident_id)
        if record.state in _OVER or record.scope == "none":
            return self._open.pop(key, None) is not None
        self._open[key] = record
        return True

    def act(self, quoter: Told, now_us: int) -> None:
        """Tell the estimators what holds now of every offer that is or was reported."""
        told: dict[str, tuple[float, str, float, float]] = {}
        for record in self._open.values():
            chance = _WORTH.get(record.state, 1.0)
            chance *= influence(self._feeds.get(record.feed), now_us)
            grave = float(SEVERITIES.index(record.severity))
            word = (grave * chance, record.severity, chance, incident_number(record))
            for offer in self._concerned(record):
                if offer not in told or word > told[offer]:
                    told[offer] = word
        for offer in sorted(self._reported - told.keys()):
            quoter.report(offer, "none", 0.0, 0.0)
        for offer, (_, severity, chance, number) in told.items():
            quoter.report(offer, severity, chance, number)
        self._reported = set(told)

    def _concerned(self, record: StatusRecord) -> list[str]:
        concern = Concern(
            scope=record.scope, models=tuple(record.models), regions=tuple(record.regions)
        )
        offers = self._offers.get(record.provider, [])
        return [o.id for o in offers if is_concerned(concern, o)]


def incident_number(record: StatusRecord) -> float:
    """What tells incidents apart: when it began, to the second, and whose it is; never 0."""
    whose = crc32(record.provider.encode()) % 1024 / 1024
    return float(max(record.since_us // 1_000_000, 1)) + whose
