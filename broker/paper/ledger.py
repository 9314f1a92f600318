"""The seller's own books: every call, what came of it, what it bills for it.

One of the three ledgers of an acceptance test (client, seller, ClickHouse): a call carries
the ids the buyer sent along, so the three can be joined.
"""

from __future__ import annotations

from collections import deque

from msgspec import Struct

BUYER_ID_HEADERS = ("x-broker-decision", "x-broker-attempt", "x-client-request-id", "traceparent")
KEPT_CALLS = 50_000


class Call(Struct, kw_only=True):
    """One call as the seller saw it. `ended` is served, refused, fault, aborted or open."""

    n: int
    request_id: str
    offer: str
    at: float
    stream: bool = False
    status: int = 0
    ended: str = "open"
    fault: str = ""
    bytes_out: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    billed_nusd: int = 0
    good: bool | None = None
    took_ms: float = 0.0
    buyer_ids: dict[str, str] = {}


class LedgerTotals(Struct, kw_only=True):
    """Sums over calls, of an offer or of a whole provider."""

    calls: int = 0
    served: int = 0
    refused: int = 0
    faults: int = 0
    aborted: int = 0
    bytes_out: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    billed_nusd: int = 0
    n_open: int = 0
    most_open: int = 0

    def opened(self) -> None:
        """A call has begun."""
        self.calls += 1
        self.n_open += 1
        self.most_open = max(self.most_open, self.n_open)

    def closed(self, call: Call) -> None:
        """A call has ended."""
        self.n_open -= 1
        self.served += call.ended == "served"
        self.refused += call.ended == "refused"
        self.faults += call.ended == "fault"
        self.aborted += call.ended == "aborted"
        self.bytes_out += call.bytes_out
        self.input_tokens += call.input_tokens
        self.output_tokens += call.output_tokens
        self.cached_tokens += call.cached_tokens
        self.billed_nusd += call.billed_nusd


class Ledger:
    """A provider's books: totals, totals by offer, and the latest calls."""

    def __init__(self) -> None:
        self.totals = LedgerTotals()
        self.by_offer: dict[str, LedgerTotals] = {}
        self.connections_refused = 0
        self._calls: deque[Call] = deque(maxlen=KEPT_CALLS)

    def open(self, call: Call) -> None:
        """Book the beginning of a call; `call` is filled in as it goes."""
        self.totals.opened()
        self._calls.append(call)

    def close(self, call: Call) -> None:
        """Book the end of a call."""
        self.totals.closed(call)
        if call.offer:
            of_offer = self.by_offer.setdefault(call.offer, LedgerTotals())
            of_offer.opened()
            of_offer.closed(call)

    def calls(self, after: int = -1, limit: int = 1000) -> list[Call]:
        """Calls numbered above `after`, oldest first, of those still kept."""
        found = []
        for call in reversed(self._calls):
            if call.n <= after:
                break
            found.append(call)
        return found[::-1][:limit]
