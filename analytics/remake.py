"""A decision made again: the very view it read, the real auction, compared field by field.

Decisions are made again gateway by gateway, in the order of their views, so ten thousand of them
cost about what reading their market's history once costs.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from analytics.errors import NotStored
from analytics.rebuild import Rebuilder
from analytics.store import Store
from bidding.auction import decide
from bidding.decision import Decision
from bidding.params import Params
from bidding.request import BidRequest
from bidding.view import MarketView
from feeds.errors import Unmakeable
from feeds.flight import Difference, decision_record, differences, request_of
from feeds.records import DecisionRecord


class Again(Struct, frozen=True, kw_only=True):
    """A decision made again, with all it read. `differences` is empty when it is the same."""

    view: MarketView
    request: BidRequest
    params: Params
    decision: Decision
    differences: list[Difference]


class Verdict(Struct, frozen=True, kw_only=True):
    """Whether a decision could be made again, and came out the same."""

    decision_id: str
    identical: bool
    missing: str = ""
    differences: list[Difference] = []


def again(record: DecisionRecord, view: MarketView, params: Params) -> Again:
    """Run the auction again and compare."""
    request = request_of(record)
    decision = decide(view, request, params, record.seed)
    remade = decision_record(
        decision, request, decision_id=record.decision_id, at_us=record.at_us, only=record.only
    )
    return Again(
        view=view,
        request=request,
        params=params,
        decision=decision,
        differences=differences(record, remade),
    )


async def remake(store: Store, record: DecisionRecord) -> Again:
    """Make one decision again.

    Raises
    ------
    NotStored
        Its view or its params are not in the store, yet or any more.
    StoreUnavailable, StoreRejected
    """
    rebuilder = Rebuilder(store)
    try:
        remade = await rebuilder.view(record.gateway, record.boot, record.view_number)
    except Unmakeable as error:
        raise NotStored(str(error)) from error
    params = await rebuilder.params(record.params_version, remade.defaults)
    return again(record, remade.view, params)


async def remake_all(store: Store, records: Sequence[DecisionRecord]) -> list[Verdict]:
    """Make decisions again, in no order. For a hit of the response cache there is nothing to make.

    Raises
    ------
    StoreUnavailable, StoreRejected
    """
    rebuilder = Rebuilder(store)
    verdicts: list[Verdict] = []
    starts: dict[tuple[str, str], dict[int, list[DecisionRecord]]] = {}
    for record in records:
        if record.cached_from:
            verdicts.append(Verdict(decision_id=record.decision_id, identical=True))
            continue
        by_view = starts.setdefault((record.gateway, record.boot), {})
        by_view.setdefault(record.view_number, []).append(record)
    for (gateway, boot), by_view in starts.items():
        missing = "its view is not in the store"
        try:
            async for number, remade in rebuilder.views(gateway, boot, list(by_view)):
                for version in {r.params_version for r in by_view[number]}:
                    await rebuilder.params(version, remade.defaults)
                for record in by_view.pop(number):
                    params = await rebuilder.params(record.params_version, remade.defaults)
                    found = again(record, remade.view, params).differences
                    verdicts.append(
                        Verdict(
                            decision_id=record.decision_id,
                            identical=not found,
                            differences=found,
                        )
                    )
        except (NotStored, Unmakeable) as error:
            missing = str(error)
        verdicts += [
            Verdict(decision_id=record.decision_id, identical=False, missing=missing)
            for left in by_view.values()
            for record in left
        ]
    return verdicts
