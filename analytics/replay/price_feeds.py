"""Eight months of a real price catalogue's changes through the judge, the book and the auction.

Every change of `prices/models_dev_events` is heard in order, as a poll would bring it. What the
judge accepts must be what the very next decision pays; what it holds back must never be. The
events must also leave the snapshot that the data claims. One source is heard, so nothing that is
held back here is ever confirmed by a second one.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from analytics.replay.errors import DatasetMissing
from analytics.replay.files import find_file, open_text
from bidding.auction import decide
from bidding.book import MarketBook
from bidding.market import Catalogue, Model, Offer, PriceList, Provider
from bidding.params import Params
from bidding.request import BidRequest, Sla
from feeds.catalogue.judge import PriceJudge
from feeds.catalogue.models_dev import NAME, price_list

_TOKENS = 1_000
_COLUMNS = ("input", "output", "cache_read")


def rows(data: Path, name: str) -> Iterator[dict[str, str]]:
    """The rows of `prices/<name>.csv`, gzipped or not. Raises `DatasetMissing`."""
    path = find_file(data / "prices", f"{name}.csv")
    if path is None:
        raise DatasetMissing(f"no prices/{name}.csv.gz under {data}")
    with open_text(path) as file:
        yield from csv.DictReader(file)


def figures(data: Path) -> dict[str, float]:
    """`repricings` accepted and how many of them the next decision paid; `repricings_seen` and
    `repricings_quarantined` of the source's; `quarantined_used`; `snapshot_differences`.

    Events may begin in the middle of a catalogue's life. What they tell of an offer's past is then
    taken as given, and offers of the snapshot that no event names count as `snapshot_unheard`.
    """
    events = list(rows(data, "models_dev_events"))
    market = _Market(sorted({_offer(e) for e in events if e["event"] == "repriced"}))
    raw: dict[str, PriceList] = {}
    known: set[str] = set()
    begins_empty = True
    for event in events:
        offer = _offer(event)
        if offer not in known and event["event"] != "listed":
            begins_empty = False
            market.start(offer, _prices(event, "old_{}"))
        known.add(offer)
        if event["event"] == "withdrawn":
            raw.pop(offer, None)
            if offer in market.judge.in_force:
                market.judge.withdrawn(offer, NAME, _at_us(event["time_utc"]))
            continue
        raw[offer] = _prices(event, "new_{}")
        market.hear(offer, raw[offer], event["event"], _at_us(event["time_utc"]))
    snapshot = {
        _offer(row): _prices(row, "{}_usd_per_mtok") for row in rows(data, "models_dev_snapshot")
    }
    unheard = set() if begins_empty else snapshot.keys() - known
    heard = (raw.keys() | snapshot.keys()) - unheard
    differing = [o for o in heard if raw.get(o) != snapshot.get(o)]
    return {
        **market.counts,
        "snapshot_differences": len(differing),
        "snapshot_unheard": len(unheard),
    }


class _Market:
    """The offers that are ever repriced, each bought from after every change."""

    def __init__(self, offers: list[str]) -> None:
        unknown = PriceList(input_nusd_per_mtok=0, output_nusd_per_mtok=0)
        # Ids of our own: the source sells some models under names that are offers elsewhere.
        self.ids = {offer: f"s/{i}" for i, offer in enumerate(offers)}
        models = [str(i) for i in range(len(offers))]
        seller = Provider(id="s", name="s", wire="openai", base_url="http://x", jurisdiction="us")
        self.book = MarketBook(
            Catalogue(
                providers=[seller],
                models=[
                    Model(id=m, family=m, context_window=10**6, max_output_tokens=10**5)
                    for m in models
                ],
                offers=[Offer(provider="s", model=m, prices=unknown) for m in models],
            )
        )
        self.judge = PriceJudge()
        self.params = Params()
        self.n_answer = self._answer_tokens(offers[0]) if offers else 0.0
        self.counts = dict.fromkeys(
            (
                "repricings_seen",
                "repricings_quarantined",
                "repricings",
                "repricings_in_force",
                "quarantined_used",
            ),
            0,
        )

    def start(self, offer: str, prices: PriceList) -> None:
        """Take a price as in force since before the first event."""
        if offer in self.ids:
            self.judge.start(offer, prices)
            self.book.apply_prices(self.ids[offer], prices)

    def hear(self, offer: str, prices: PriceList, event: str, at_us: int) -> None:
        if offer not in self.ids:
            return
        judged = self.judge.hear(offer, prices, NAME, at_us)
        repriced = event == "repriced"
        self.counts["repricings_seen"] += repriced
        if judged.verdict == "accepted":
            self.book.apply_prices(self.ids[offer], prices)
            if repriced and judged.old is not None:
                self.counts["repricings"] += 1
                self.counts["repricings_in_force"] += self._pays(offer, prices, at_us)
        elif judged.verdict == "quarantined":
            self.counts["repricings_quarantined"] += 1
            in_force = self.judge.in_force[offer]
            self.counts["quarantined_used"] += not self._pays(offer, in_force, at_us)

    def _pays(self, offer: str, prices: PriceList, at_us: int) -> bool:
        """Whether a request to this offer is expected to cost just what these prices say."""
        due = (
            prices.input_nusd_per_mtok * _TOKENS + prices.output_nusd_per_mtok * self.n_answer
        ) / 1e6
        view = self.book.view(at_us)
        cached = prices.cache_read_nusd_per_mtok
        shown = view.prices.cache_read_nusd.item(self.book.offers.row_of[self.ids[offer]])
        cached_due = (prices.input_nusd_per_mtok if cached is None else cached) / 1e6
        near = abs(self._cost(offer, at_us) - due) <= 1e-6 * max(due, 1.0)
        return near and abs(shown - cached_due) <= 1e-6 * max(cached_due, 1.0)

    def _cost(self, offer: str, at_us: int) -> float:
        asked = BidRequest(
            tenant="t", task="x", sla=Sla(), input_tokens=_TOKENS, candidates=(self.ids[offer],)
        )
        winner = decide(self.book.view(at_us), asked, self.params, 1).winner
        assert winner is not None
        assert winner.offer == self.ids[offer]
        return winner.cost_nusd

    def _answer_tokens(self, offer: str) -> float:
        """How long an answer the auction expects: its cost at one nusd a token."""
        unit = PriceList(input_nusd_per_mtok=0, output_nusd_per_mtok=10**6)
        self.book.apply_prices(self.ids[offer], unit)
        return self._cost(offer, 0)


def _offer(row: dict[str, str]) -> str:
    return f"{row['provider']}/{row['model']}"


def _prices(row: dict[str, str], column: str) -> PriceList:
    given: dict[str, Any] = {name: row[column.format(name)] or None for name in _COLUMNS}
    return price_list(given)


def _at_us(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 1_000_000


def broken(found: dict[str, float]) -> list[str]:
    """Every bound that does not hold, in words."""
    faults = []
    if found["repricings"] != found["repricings_in_force"] or not found["repricings"]:
        faults.append(
            f"{found['repricings_in_force']:g} of {found['repricings']:g} repricings in force"
        )
    names = ("quarantined_used", "snapshot_differences")
    faults += [f"{name} is {found[name]:g}, must be 0" for name in names if found[name]]
    return faults
