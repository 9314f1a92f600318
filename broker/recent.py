"""The last decisions of this gateway, kept in memory: for outcomes, feedback and the autopsy.

Bounded by number; what is older is in ClickHouse.
"""

from __future__ import annotations

from collections import OrderedDict

from msgspec import Struct, field

from feeds.records import AttemptRecord, DecisionRecord, FeedbackRecord


class Flight(Struct):
    """One decision with all that followed from it."""

    decision: DecisionRecord
    attempts: list[AttemptRecord] = field(default_factory=list)
    feedback: list[FeedbackRecord] = field(default_factory=list)


class RecentDecisions:
    """Flights by decision id, the oldest forgotten first."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._flights: OrderedDict[str, Flight] = OrderedDict()

    def __len__(self) -> int:
        return len(self._flights)

    def put(self, flight: Flight) -> None:
        """Keep a settled flight."""
        self._flights[flight.decision.decision_id] = flight
        if len(self._flights) > self._bound:
            self._flights.popitem(last=False)

    def get(self, decision_id: str, tenant: str) -> Flight | None:
        """The flight, if it is this tenant's and still kept."""
        flight = self._flights.get(decision_id)
        if flight is None or flight.decision.tenant != tenant:
            return None
        return flight
