"""What competing spot asks do to the buyer's cost: sellers of one model who learn from notices.

Every seller has the same list price and a cost of its own below it, and knows no more than its
notices tell: how often it won, the price it could have charged, and by how much it lost. After each
minute one that lost asks that much less, never below its cost; one that won everything asks a
little more, up to its list. Requests are decided on by the real auction over the real book.
"""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Final

from msgspec import Struct

from bidding.asks import Ask
from bidding.auction import decide
from bidding.book import MarketBook
from bidding.market import Catalogue, Model, Offer, PriceList, Provider
from bidding.params import Params
from bidding.request import BidRequest, Sla

LIST_NUSD: Final = 2 * 10**9
N_SELLERS: Final = (1, 2, 4, 8)
_N_MINUTES: Final = 120
_N_REQUESTS: Final = 20
_RAISE: Final = 1.02
_UNDERCUT: Final = 0.99
_MINUTE_US: Final = 60_000_000


class _Seller(Struct):
    """A seller: what a token costs it, what it asks, and how its last minute went."""

    offer: str
    cost: float
    ask: float
    n_won: int = 0
    n_lost: int = 0
    beaten_by: float = 1.0

    def learn(self) -> None:
        """Ask less after a loss, more after a minute without one; shares of the list price."""
        if self.n_lost > self.n_won:
            self.ask = max(self.cost, min(self.ask, self.beaten_by) * _UNDERCUT)
        elif not self.n_lost:
            self.ask = min(1.0, self.ask * _RAISE)
        self.n_won = self.n_lost = 0
        self.beaten_by = 1.0


def figures(n_seeds: int = 5) -> dict[str, float]:
    """`spot_cost_share_N`: what the buyer pays with N sellers, of what it pays at list prices, over
    the second hour; the mean over seeds.
    """
    found = {}
    for n in N_SELLERS:
        shares = [_cost_share(n, random.Random(seed)) for seed in range(n_seeds)]
        found[f"spot_cost_share_{n}"] = round(sum(shares) / len(shares), 4)
    return found


def _cost_share(n: int, rng: random.Random) -> float:
    book = MarketBook(_catalogue(n))
    sellers = [
        _Seller(offer=offer, cost=rng.uniform(0.3, 0.8), ask=1.0) for offer in book.offers.offer_ids
    ]
    by_offer = {s.offer: s for s in sellers}
    at_list = _cost(book, rng, 0)[1]
    paid, n_paid = 0.0, 0
    for minute in range(1, _N_MINUTES + 1):
        at_us = minute * _MINUTE_US
        for seller in sellers:
            ask = _asked(seller.ask, at_us)
            book.apply_ask(seller.offer, ask)
        for _ in range(_N_REQUESTS):
            winner, cost = _cost(book, rng, at_us)
            for seller in sellers:
                if seller is by_offer[winner]:
                    seller.n_won += 1
                else:
                    seller.n_lost += 1
                    seller.beaten_by = min(seller.beaten_by, cost / at_list)
            if minute > _N_MINUTES // 2:
                paid += cost
                n_paid += 1
        for seller in sellers:
            seller.learn()
    return paid / n_paid / at_list


def _asked(share: float, at_us: int) -> Ask:
    nusd = round(LIST_NUSD * share)
    return Ask(
        prices=PriceList(input_nusd_per_mtok=nusd, output_nusd_per_mtok=nusd),
        from_us=at_us,
        until_us=at_us + _MINUTE_US,
    )


def _cost(book: MarketBook, rng: random.Random, at_us: int) -> tuple[str, float]:
    asked = BidRequest(tenant="t", task="x", sla=Sla(), input_tokens=1_000, max_output_tokens=300)
    winner = decide(book.view(at_us), asked, Params(), rng.getrandbits(63)).winner
    assert winner is not None
    return winner.offer, winner.cost_nusd


def _catalogue(n: int) -> Catalogue:
    return Catalogue(
        providers=[
            Provider(
                id=f"s{i}", name=f"s{i}", wire="openai", base_url="http://x", jurisdiction="us"
            )
            for i in range(n)
        ],
        models=[Model(id="m", family="m", context_window=10**6, max_output_tokens=10**5)],
        offers=[
            Offer(
                provider=f"s{i}",
                model="m",
                prices=PriceList(input_nusd_per_mtok=LIST_NUSD, output_nusd_per_mtok=LIST_NUSD),
            )
            for i in range(n)
        ],
    )


def broken(found: dict[str, float]) -> list[str]:
    """Every bound that does not hold, in words."""
    shares = [found[f"spot_cost_share_{n}"] for n in N_SELLERS]
    faults = []
    if shares[0] < 0.99:
        faults.append(f"a single seller asks {shares[0]:g} of its list for no reason")
    if any(more >= fewer for fewer, more in pairwise(shares)):
        faults.append(f"the buyer's cost does not fall with each further seller: {shares}")
    return faults
