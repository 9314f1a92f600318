"""Price lists over time: what of them is news for our offers, as records for the log. Pure.

All sources are heard by one judge, so that they can confirm and contradict each other. A listing
is an offer's when its provider is, by the source's name of it, and its model's name there is the
offer's own or the model's; where listings have regions they must match.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from bidding.market import Offer, PriceList
from feeds.catalogue.judge import Held, Judged, PriceJudge
from feeds.catalogue.listing import Listing, PriceSheet
from feeds.catalogue.sources import PriceSource
from feeds.market_records import PriceRecord


class PriceWatch:
    """Prices in force and in quarantine, by the offers of a market."""

    def __init__(self, offers: Sequence[Offer], judge: PriceJudge) -> None:
        self.judge = judge
        self._offers: dict[tuple[str, str], list[Offer]] = {}
        for offer in offers:
            judge.start(offer.id, offer.prices)
            names = {_short(offer.model), _short(offer.wire_model), offer.wire_model.lower()}
            for name in names:
                self._offers.setdefault((offer.provider, name), []).append(offer)

    def restore(self, records: Iterable[PriceRecord]) -> None:
        """Resume from the prices that were put in force before."""
        for record in records:
            if not record.quarantined and record.offer in self.judge.in_force:
                self.judge.start(record.offer, record.prices)

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
        """What is new in a sheet: prices now in force, prices now held, prices no longer held."""
        said: dict[str, PriceList] = {}
        for offer, listing in self.matched(source, sheet, provider):
            # A source may list an offer twice, plainly and by region: its own region's wins.
            if offer.id not in said or listing.region is not None:
                said[offer.id] = listing.at(now_us)
        before = self.judge.held()
        news: list[PriceRecord] = []
        for offer_id, prices in said.items():
            news += _record(self.judge.hear(offer_id, prices, source.name, now_us), now_us)
        return news + self._released(before, now_us)

    def confirm(self, record: PriceRecord) -> None:
        """Ops have put a price in force by their own record."""
        self.judge.hear(record.offer, record.prices, "ops", record.at_us)

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
        )
    ]


def _short(model: str) -> str:
    return model.rpartition("/")[2].lower()
