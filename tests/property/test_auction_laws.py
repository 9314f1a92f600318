"""Laws every auction keeps, whatever the market and the request."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bidding.auction import decide
from bidding.book import MarketBook
from bidding.decision import Decision
from bidding.market import Catalogue, Model, Offer, PriceList, Provider
from bidding.params import Params
from bidding.policies.fixed import Best, Cheapest, Fastest
from bidding.policies.priced import Priced, PricedThompson
from bidding.request import BidRequest, Sla
from bidding.units import NUSD_PER_USD
from tests.fakes.markets import quote, skill

STILL = Params().patched({"exploration": {"share": 0.0, "burn_in_share": 0.0}}, version=1)
PRICES = st.integers(min_value=0, max_value=10**11)


@st.composite
def catalogues(draw: st.DrawFn) -> Catalogue:
    n_models = draw(st.integers(1, 4))
    n_providers = draw(st.integers(1, 3))
    models = [
        Model(
            id=f"m{k}",
            family="f",
            context_window=draw(st.sampled_from([1_000, 8_000, 100_000])),
            max_output_tokens=4_096,
            prior_quality=draw(st.one_of(st.none(), st.floats(0, 1))),
        )
        for k in range(n_models)
    ]
    providers = [
        Provider(
            id=f"p{i}", name="P", wire="openai", base_url="http://127.0.0.1:1", jurisdiction="eu"
        )
        for i in range(n_providers)
    ]
    offers = [
        Offer(
            provider=p.id,
            model=m.id,
            prices=PriceList(input_nusd_per_mtok=draw(PRICES), output_nusd_per_mtok=draw(PRICES)),
        )
        for p in providers
        for m in models
    ]
    return Catalogue(providers=providers, models=models, offers=offers)


SLAS = st.builds(
    Sla,
    quality=st.one_of(st.none(), st.floats(0, 1)),
    strict=st.booleans(),
    value_usd=st.one_of(st.none(), st.floats(0, 0.1)),
    ttft_ms=st.one_of(st.none(), st.floats(1, 10_000)),
    latency_ms=st.one_of(st.none(), st.floats(1, 60_000)),
    max_cost_usd=st.one_of(st.none(), st.floats(0, 0.01)),
    on_miss=st.sampled_from(["best_effort", "reject"]),
)
REQUESTS = st.builds(
    BidRequest,
    tenant=st.just("acme"),
    task=st.sampled_from(["math", "unheard-of"]),
    sla=SLAS,
    input_tokens=st.integers(0, 200_000),
    max_output_tokens=st.one_of(st.none(), st.integers(1, 10_000)),
    reserve_nusd=st.one_of(st.just(math.inf), st.floats(0, 1e9)),
)
POLICIES = st.sampled_from([Priced(), PricedThompson(), Cheapest(), Best(), Fastest()])


def market(catalogue: Catalogue) -> MarketBook:
    made = MarketBook(catalogue)
    for i, offer in enumerate(made.offers.offer_ids):
        made.apply_quote(quote(offer, ttft_ms=100.0 + 400.0 * i))
    made.apply_skill(skill([0.5 + 0.1 * k for k in range(len(catalogue.models))]))
    return made


def same(a: Decision, b: Decision) -> bool:
    return msgspec.json.encode(a) == msgspec.json.encode(b)


@settings(max_examples=150, deadline=None)
@given(catalogues(), REQUESTS, POLICIES, st.integers(0, 2**63))
def test_every_bid_keeps_to_the_reserve_and_every_offer_is_accounted_for(
    catalogue: Catalogue, request: BidRequest, policy: Priced, seed: int
) -> None:
    decision = decide(market(catalogue).view(1), request, Params(), seed, policy)
    ceiling = request.reserve_nusd
    if request.sla.max_cost_usd is not None:
        ceiling = min(ceiling, request.sla.max_cost_usd * NUSD_PER_USD)
    assert all(b.cost_nusd <= ceiling for b in decision.ranked)
    assert decision.n_bids + sum(decision.no_bids.values()) == len(catalogue.offers)
    assert len({b.offer for b in decision.ranked}) == len(decision.ranked)
    for bid in decision.ranked:
        assert math.isfinite(bid.score_nusd)
        assert 0.0 <= bid.p_good <= 1.0
        assert 0.0 <= bid.p_on_time <= 1.0
    if decision.propensity is not None:
        assert 0.0 < decision.propensity <= 1.0


@settings(max_examples=100, deadline=None)
@given(catalogues(), REQUESTS, POLICIES, st.integers(0, 2**63))
def test_the_same_market_request_and_seed_give_the_same_decision_bit_for_bit(
    catalogue: Catalogue, request: BidRequest, policy: Priced, seed: int
) -> None:
    first = decide(market(catalogue).view(1), request, Params(), seed, policy)
    view = market(catalogue).view(1)
    decide(view, request, Params(), seed + 1, policy)
    assert same(first, decide(view, request, Params(), seed, policy))


@settings(max_examples=100, deadline=None)
@given(catalogues(), REQUESTS, st.integers(0, 2**63), st.randoms(use_true_random=False))
def test_the_order_of_offers_does_not_matter(
    catalogue: Catalogue, request: BidRequest, seed: int, random: object
) -> None:
    shuffled = {
        name: sorted(getattr(catalogue, name), key=lambda _: random.random())
        for name in ("offers", "models", "providers")
    }
    other = Catalogue(**shuffled)
    a = decide(market(catalogue).view(1), request, Params(), seed)
    b = decide(market(other).view(1), request, Params(), seed)
    assert same(a, b)


@settings(max_examples=150, deadline=None)
@given(catalogues(), REQUESTS, st.data())
def test_raising_a_losers_price_never_makes_it_win(
    catalogue: Catalogue, request: BidRequest, data: st.DataObject
) -> None:
    book = market(catalogue)
    before = decide(book.view(1), request, STILL, 1)
    if before.winner is None:
        return
    losers = [o for o in catalogue.offers if o.id != before.winner.offer]
    if not losers:
        return
    loser = data.draw(st.sampled_from(losers))
    dearer = PriceList(
        input_nusd_per_mtok=loser.prices.input_nusd_per_mtok + data.draw(PRICES),
        output_nusd_per_mtok=loser.prices.output_nusd_per_mtok + data.draw(PRICES),
    )
    book.apply_prices(loser.id, dearer)
    after = decide(book.view(2), request, STILL, 1)
    assert after.winner is not None
    assert after.winner.offer != loser.id


@settings(max_examples=100, deadline=None)
@given(catalogues(), REQUESTS)
def test_the_winner_still_wins_just_below_its_clearing_price(
    catalogue: Catalogue, request: BidRequest
) -> None:
    decision = decide(market(catalogue).view(1), request, STILL, 1)
    if decision.clearing_price_nusd is None:
        return
    winner, second = decision.ranked[:2]
    raised = winner.score_nusd + (decision.clearing_price_nusd - winner.cost_nusd)
    assert raised == pytest.approx(second.score_nusd, rel=1e-9, abs=1e-3)
    assert decision.clearing_price_nusd >= winner.cost_nusd - 1e-6
