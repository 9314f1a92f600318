"""Prices by the prompt's length: the auction expects to pay what would be owed."""

from __future__ import annotations

from functools import lru_cache

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bidding.asks import Ask
from bidding.auction import decide
from bidding.book import MarketBook
from bidding.estimators.tokens import expected_tokens
from bidding.kernel import compiled
from bidding.market import ContextTier, Offer, PriceList
from bidding.params import Params
from bidding.request import BidRequest, Sla
from tests.fakes.markets import catalogue, price, quote, skill

KERNEL = lru_cache(compiled)
STILL = Params().patched({"exploration": {"share": 0.0, "burn_in_share": 0.0}}, version=1)


def tiered(input_usd: float, *tiers: tuple[int, float]) -> PriceList:
    return msgspec.structs.replace(
        price(input_usd),
        tiers=tuple(
            ContextTier(
                above_input_tokens=above,
                input_nusd_per_mtok=round(usd * 1e9),
                output_nusd_per_mtok=round(3 * usd * 1e9),
            )
            for above, usd in tiers
        ),
    )


def book(**prices: PriceList) -> MarketBook:
    """Three sellers of the same model; `p0` and so on by their prices."""
    plain = catalogue(1)
    wide = [msgspec.structs.replace(m, context_window=1_000_000) for m in plain.models]
    offers = [Offer(provider=p, model="m0", prices=prices[p]) for p in sorted(prices)]
    made = MarketBook(msgspec.structs.replace(plain, models=wide, offers=offers))
    for offer in made.offers.offer_ids:
        made.apply_quote(quote(offer))
    made.apply_skill(skill([0.8]))
    return made


def asked(input_tokens: int, **sla: float) -> BidRequest:
    return BidRequest(tenant="t", task="math", sla=Sla(**sla), input_tokens=input_tokens)


def test_a_long_prompt_is_bought_where_long_prompts_are_cheap() -> None:
    made = book(p0=tiered(0.1, (10_000, 0.8)), p1=price(0.3), p2=tiered(0.2, (50_000, 0.25)))
    view = made.view(1)
    winners = {n: decide(view, asked(n), STILL, 1).winner for n in (10_000, 10_001, 60_000)}
    assert {n: w and w.offer for n, w in winners.items()} == {
        10_000: "p0/m0",
        10_001: "p2/m0",
        60_000: "p2/m0",
    }


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 250_000), st.sampled_from([None, 400.0]), st.booleans())
def test_a_bid_costs_what_would_be_owed(tokens: int, ttft_ms: float | None, ask: bool) -> None:
    made = book(p0=tiered(0.1, (10_000, 0.8), (128_000, 1.6)), p1=price(0.3))
    if ask:
        lower = Ask(prices=tiered(0.05, (100_000, 0.4)), until_us=10)
        assert made.apply_ask("p0/m0", lower)
    made.kernel = KERNEL() if tokens % 2 else None
    view = made.view(1)
    n_out = float(
        expected_tokens(*(view.task("math").out_log_tokens, view.task("math").out_log_sd))[0]
    )
    sla = {} if ttft_ms is None else {"ttft_ms": ttft_ms}
    for bid in decide(view, asked(tokens, **sla), STILL, 1).ranked:
        held = view.prices.lists[bid.row].for_prompt(tokens)
        owed = (held.input_nusd_per_mtok * tokens + held.output_nusd_per_mtok * n_out) * 1e-6
        assert bid.cost_nusd == pytest.approx(owed, rel=1e-9, abs=1e-6)
        listed = made.prices(bid.row).for_prompt(tokens)
        assert held.input_nusd_per_mtok <= listed.input_nusd_per_mtok


def test_an_ask_keeps_what_it_does_not_name() -> None:
    listed = msgspec.structs.replace(price(1.0), reasoning_nusd_per_mtok=7, image_nusd=9)
    made = book(p0=listed)
    made.apply_ask("p0/m0", Ask(prices=price(0.5), until_us=10))
    (held,) = made.view(1).prices.lists
    assert (held.reasoning_nusd_per_mtok, held.image_nusd) == (7, 9)
    assert held.input_nusd_per_mtok == price(0.5).input_nusd_per_mtok
    assert made.view(10).prices.lists == (listed,)
