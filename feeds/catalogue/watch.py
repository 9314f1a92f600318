"""Price lists over time: what of them is news for our offers, as records for the log. Pure.

All sources are heard by one judge, so that they can confirm and contradict each other. A listing
is an offer's when its provider is, by the source's name of it, and its model's name there is the
offer's own or the model's; where listings have regions they must match.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from typing import Final

from bidding.market import Offer, PriceList
from feeds.catalogue.judge import OPS, Held, Judged, PriceJudge
from feeds.catalogue.listing import Listing, PriceSheet
from feeds.catalogue.sources import PriceSource
from feeds.market_records import PriceRecord

MANY: Final = 3
MANY_SHARE: Final = 0.25
"""A list that drops more offers at once than both is rather broken than shorter."""


class PriceWatch:
    """Prices in force and in quarantine, by the offers of a market."""

    def __init__(self, offers: Sequence[Offer], judge: PriceJudge) -> None:
        self.judge = judge
        self._offers: dict[tuple[str, str], list[Offer]] = {}
        self._listed: dict[tuple[str, str], set[str]] = {}
        self._spoke: dict[str, set[str]] = {}
        for offer in offers:
            judge.start(offer.id, offer.prices)
            names = {_short(offer.model), _short(offer.wire_model), offer.wire_model.lower()}
            for name in names:
                self._offers.setdefault((offer.provider, name), []).append(offer)

    def restore(self, records: Iterable[PriceRecord]) -> None:
        """Resume from the prices that were put in force before."""
        for record in records:
            if record.quarantined or record.offer not in self.judge.in_force:
                continue
            by = record.source if record.withdrawn else ""
            self.judge.start(record.offer, record.prices, withdrawn_by=by)
            if not record.withdrawn:
                self._spoke.setdefault(record.source, set()).add(record.offer)

    def matched(
        self, source: PriceSource, sheet: PriceSheet, provider: str = ""
    ) -> Iterator[tuple[Offer, Listing]]:
        """Our offers that a sheet speaks of; with `provider`, whatever the sheet calls it."""
        for listing in sheet.listings:
            named = source.names.get(listing.provider, listing.provider)
            for name in dict.fromkeys((listing.model.lower(), _short(listing.model))):
                offers = self._offers.get((provider or named, name), ())
                here = [o for o in offers if listing.region is None or o.region == listing.region]
                if here:
                    yield from ((offer, listing) for offer in here)
                    break

    def take(
        self, source: PriceSource, sheet: PriceSheet, now_us: int, provider: str = ""
    ) -> list[PriceRecord]:
        """What is new in a sheet: prices now in force, prices now held, prices no longer held, and
        offers that the source lists no longer, or as deprecated.
        """
        said: dict[str, PriceList] = {}
        over: set[str] = set()
        for offer, listing in self.matched(source, sheet, provider):
            if listing.is_over(now_us):
                over.add(offer.id)
                continue
            # A source may list an offer twice, plainly and by region: its own region's wins.
            if offer.id not in said or listing.region is not None:
                said[offer.id] = listing.at(now_us)
        before = self.judge.held()
        news: list[PriceRecord] = []
        for offer_id, prices in said.items():
            news += _record(self.judge.hear(offer_id, prices, source.name, now_us), now_us)
        for offer_id, many in self._gone(source.name, provider, said.keys(), over):
            judged = self.judge.withdrawn(offer_id, source.name, now_us, many=many)
            news += _record(judged, now_us)
        return news + self._released(before, now_us)

    def confirm(self, record: PriceRecord) -> None:
        """Ops have put a price in force by their own record, or taken an offer from the market."""
        if not record.withdrawn:
            self.judge.hear(record.offer, record.prices, OPS, record.at_us)
        elif record.offer in self.judge.in_force:
            self.judge.withdrawn(record.offer, OPS, record.at_us)

    def _gone(
        self, source: str, provider: str, said: Set[str], over: set[str]
    ) -> list[tuple[str, bool]]:
        """Offers that a source listed the last time and does no longer, or says are over, each
        with whether too much of its list is gone at once. The first time, what it put in force
        before a restart is what it listed.
        """
        key = (source, provider)
        ours = f"{provider}/" if provider else ""
        spoke = {o for o in self._spoke.get(source, set()) if o.startswith(ours)}
        before = self._listed.get(key, spoke)
        self._listed[key] = set(said)
        lost = before - said - over
        many = len(lost) > max(MANY, MANY_SHARE * len(before))
        return [(o, many and o in lost) for o in sorted(lost | (over - said))]

    def _released(self, before: list[Held], now_us: int) -> list[PriceRecord]:
        still = {(h.offer, h.source) for h in self.judge.held()}
        return [
            PriceRecord(
                offer=h.offer,
                at_us=now_us,
                prices=h.prices,
                source=h.source,
                quarantined=h.reason,
                released=True,
                withdrawn=h.withdrawn,
            )
            for h in before
            if (h.offer, h.source) not in still
        ]


def _record(judged: Judged, now_us: int) -> list[PriceRecord]:
    if judged.verdict == "unchanged":
        return []
    held = judged.verdict == "quarantined"
    return [
        PriceRecord(
            offer=judged.offer,
            at_us=now_us,
            prices=judged.prices,
            source=judged.source,
            old=judged.old,
            effective_at_us=0 if held else now_us,
            quarantined=judged.reason if held else "",
            withdrawn=judged.withdrawn,
        )
    ]


def _short(model: str) -> str:
    return model.rpartition("/")[2].lower()
