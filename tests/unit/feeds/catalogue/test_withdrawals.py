"""An offer that its sellers or price lists drop: who is believed, and what the auction does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bidding.auction import decide
from bidding.book import MarketBook
from bidding.market import Catalogue, Model, Offer, PriceList, Provider
from bidding.params import Params
from bidding.request import BidRequest, Sla
from broker.feed_board import FeedBoard
from feeds.booking import take
from feeds.catalogue import litellm_prices, models_dev, openrouter
from feeds.catalogue.judge import OPS, PriceJudge
from feeds.catalogue.listing import Clause, Listing, PriceSheet
from feeds.catalogue.sources import SOURCES
from feeds.catalogue.watch import PriceWatch
from feeds.market_records import PriceRecord
from feeds.polling import in_words
from feeds.topics import PRICES, key_of

S = 1_000_000
NOW = 1_780_000_000 * S
CHEAP = PriceList(input_nusd_per_mtok=10**8, output_nusd_per_mtok=10**8)
DEAR = PriceList(input_nusd_per_mtok=10**9, output_nusd_per_mtok=10**9)
MODELS = [f"m{i}" for i in range(8)]


def market() -> Catalogue:
    return Catalogue(
        providers=[
            Provider(id=p, name=p, wire="openai", base_url="http://x", jurisdiction="us")
            for p in ("p", "q")
        ],
        models=[
            Model(id=m, family=m, context_window=10**5, max_output_tokens=10**4) for m in MODELS
        ],
        offers=[Offer(provider="p", model=m, prices=CHEAP) for m in MODELS]
        + [Offer(provider="q", model="m0", prices=DEAR)],
    )


class Desk:
    """Price lists of the market, and a gateway's book that hears what follows from them."""

    def __init__(self) -> None:
        self.watch = PriceWatch(market().offers, PriceJudge())
        self.book = MarketBook(market())
        self.board = FeedBoard()

    def reads(
        self, source: str, models: list[str], at_us: int = NOW, over: tuple[str, ...] = ()
    ) -> list[PriceRecord]:
        listings = [
            Listing(
                provider="p",
                model=m,
                clauses=(Clause(prices=CHEAP),),
                until_us=0 if m in over else None,
            )
            for m in models
        ]
        provider = "p" if source == "price-page" else ""
        news = self.watch.take(SOURCES[source], PriceSheet(listings=listings), at_us, provider)
        self.hears(news)
        return news

    def hears(self, news: list[PriceRecord]) -> None:
        for record in news:
            if not self.board.take(record):
                take(self.book, record)

    def buys(self, model: str) -> str | None:
        asked = BidRequest(
            tenant="t", task="x", sla=Sla(), input_tokens=10, candidates=(f"p/{model}", "q/m0")
        )
        decision = decide(self.book.view(NOW), asked, Params(), 1)
        return decision.winner.offer if decision.winner else None

    def shown(self) -> dict[str, Any]:
        body = self.board.body(NOW)
        return {
            "held": [(h["offer"], h["source"], h["withdrawn"]) for h in body["held_prices"]],
            "withdrawn": [(w["offer"], w["source"]) for w in body["withdrawn"]],
        }


def test_what_the_seller_lists_no_longer_is_bought_no_longer_until_it_is_listed_again() -> None:
    desk = Desk()
    assert desk.reads("price-page", MODELS) == []
    before = desk.book.view(NOW)
    (gone,) = desk.reads("price-page", MODELS[1:])
    assert (gone.offer, gone.withdrawn, gone.quarantined) == ("p/m0", True, "")
    assert (gone.prices, gone.old) == (CHEAP, CHEAP)
    assert "sold no longer" in in_words(gone)
    assert desk.buys("m0") == "q/m0"
    assert desk.shown() == {"held": [], "withdrawn": [("p/m0", "price-page")]}
    # What has been decided on an earlier view is as it was, and nothing is told twice.
    assert before.priced.all()
    assert desk.reads("price-page", MODELS[1:]) == []
    # A public list that still has it is overruled by the seller; the seller itself is not.
    assert desk.reads("litellm", MODELS) == []
    assert desk.buys("m0") == "q/m0"
    (back,) = desk.reads("price-page", MODELS)
    assert not back.withdrawn
    assert desk.buys("m0") == "p/m0"
    assert desk.shown() == {"held": [], "withdrawn": []}


def test_a_price_that_ops_confirmed_does_not_keep_an_offer_in_the_market() -> None:
    desk = Desk()
    desk.reads("price-page", MODELS)
    desk.watch.confirm(PriceRecord(offer="p/m0", at_us=NOW, prices=CHEAP, source=OPS))
    desk.reads("price-page", MODELS[1:], NOW + S)
    assert desk.buys("m0") == "q/m0"


def test_a_public_list_alone_is_not_believed_and_two_are() -> None:
    desk = Desk()
    for source in ("litellm", "models.dev", "openrouter"):
        desk.reads(source, MODELS)
    (held,) = desk.reads("litellm", MODELS[1:])
    assert held.withdrawn
    assert "still does" in held.quarantined
    assert key_of(PRICES, held) == b"?litellm:p/m0"
    assert desk.buys("m0") == "p/m0"
    assert desk.shown()["held"] == [("p/m0", "litellm", True)]
    # Two agree, but a third still lists it; when that is gone too, it is over.
    assert [r.withdrawn for r in desk.reads("models.dev", MODELS[1:])] == [True]
    assert desk.buys("m0") == "p/m0"
    assert {r.released for r in desk.reads("openrouter", MODELS[1:])} == {False, True}
    assert desk.buys("m0") == "q/m0"
    assert desk.shown() == {"held": [], "withdrawn": [("p/m0", "openrouter")]}


def test_a_list_that_takes_it_back_is_heard() -> None:
    desk = Desk()
    desk.reads("litellm", MODELS)
    assert len(desk.reads("litellm", MODELS[1:])) == 1
    assert desk.reads("litellm", MODELS[1:]) == []
    (released,) = desk.reads("litellm", MODELS)
    assert released.released
    assert desk.shown() == {"held": [], "withdrawn": []}


def test_half_a_list_gone_at_once_is_a_broken_list() -> None:
    desk = Desk()
    desk.reads("price-page", MODELS)
    news = desk.reads("price-page", MODELS[5:])
    assert len(news) == 5
    assert all("nor much else" in r.quarantined for r in news)
    assert desk.buys("m0") == "p/m0"
    assert desk.reads("price-page", MODELS[5:]) == []


def test_ops_confirm_a_withdrawal_and_a_restart_keeps_it() -> None:
    desk = Desk()
    desk.reads("litellm", MODELS)
    desk.reads("litellm", MODELS[1:])
    ops = PriceRecord(offer="p/m0", at_us=NOW, prices=CHEAP, source=OPS, withdrawn=True)
    desk.watch.confirm(ops)
    desk.hears([ops])
    assert desk.buys("m0") == "q/m0"
    assert desk.watch.judge.held() == []
    again = Desk()
    again.watch.restore([ops])
    assert again.watch.judge.is_withdrawn("p/m0")
    # Nobody of a lower rank brings it back; our own list does.
    assert again.reads("price-page", MODELS) == []
    assert [r.offer for r in again.reads("own", ["m0"])] == ["p/m0"]


def test_what_went_while_nobody_looked_is_noticed_at_the_next_start() -> None:
    desk = Desk()
    desk.watch.restore(
        [PriceRecord(offer="p/m0", at_us=NOW, prices=DEAR, source="price-page", old=CHEAP)]
    )
    (gone,) = desk.reads("price-page", MODELS[1:])
    assert gone.withdrawn
    assert gone.prices == DEAR


def test_deprecated_is_as_good_as_dropped() -> None:
    desk = Desk()
    (held,) = desk.reads("models.dev", MODELS, over=("m0",))
    assert held.withdrawn
    assert held.quarantined == "models.dev lists it no longer"
    (over,) = (r for r in desk.reads("litellm", MODELS, over=("m0",)) if not r.released)
    assert (over.offer, over.quarantined) == ("p/m0", "")
    assert desk.buys("m0") == "q/m0"


@pytest.mark.parametrize(
    ("parse", "document"),
    [
        (
            models_dev.parse,
            {"p": {"models": {"m": {"cost": {"input": 1, "output": 1}, "status": "deprecated"}}}},
        ),
        (
            litellm_prices.parse,
            {
                "p/m": {
                    "litellm_provider": "p",
                    "mode": "chat",
                    "input_cost_per_token": 1e-6,
                    "output_cost_per_token": 1e-6,
                    "deprecation_date": "2026-01-31",
                }
            },
        ),
        (
            openrouter.parse,
            {
                "data": [
                    {
                        "id": "p/m",
                        "pricing": {"prompt": "0.1", "completion": "0.1"},
                        "expiration_date": "2026-01-31",
                    }
                ]
            },
        ),
    ],
)
def test_sources_say_when_it_ends(parse: Any, document: dict[str, Any]) -> None:
    (listing,) = parse(json.dumps(document).encode()).listings
    assert listing.is_over(NOW)
    assert listing.until_us == 0 or not listing.is_over(listing.until_us - 1)
