from __future__ import annotations

import pytest

from bidding.auction import decide
from bidding.pacing import ClassPrices
from bidding.params import Params
from bidding.policies.fixed import Best, Cheapest, Fastest, Random
from bidding.policies.priced import PricedThompson
from bidding.request import BidRequest, Compliance, Sla
from bidding.skill import Skill
from tests.fakes.markets import book, price, quote, skill

STILL = Params().patched({"exploration": {"share": 0.0}}, version=1)


def ask(**changes: object) -> BidRequest:
    sla = changes.pop("sla", Sla(quality=0.9))
    fields = {"tenant": "acme", "task": "math", "sla": sla, "input_tokens": 200, **changes}
    return BidRequest(**fields)


def test_a_worthless_answer_is_bought_at_the_least_cost() -> None:
    decision = decide(book().view(1), ask(sla=Sla(value_usd=0.0)), STILL, 1)
    assert decision.winner is not None
    assert decision.winner.offer == "p0/m0"
    assert decision.winner == decision.cheapest


def test_a_precious_answer_is_bought_from_the_best_model_at_its_cheapest_provider() -> None:
    decision = decide(book().view(1), ask(sla=Sla(value_usd=10.0)), STILL, 1)
    assert decision.winner is not None
    assert decision.winner.offer == "p0/m3"
    assert decision.winner == decision.best


def test_ranked_bids_are_sorted_and_the_clearing_price_is_where_the_winner_would_tie() -> None:
    decision = decide(book().view(1), ask(), STILL, 1)
    scores = [b.score_nusd for b in decision.ranked]
    assert scores == sorted(scores)
    winner, second = decision.ranked[:2]
    assert decision.clearing_price_nusd is not None
    assert winner.score_nusd + decision.clearing_price_nusd - winner.cost_nusd == pytest.approx(
        second.score_nusd
    )


def test_class_prices_of_the_view_are_used() -> None:
    market = book()
    request = ask()
    dear = ClassPrices(
        sla_class=request.class_key, quality_price_nusd=1e9, punctuality_price_nusd=0.0
    )
    base = skill([0.5, 0.65, 0.8, 0.95], at_us=2)
    market.apply_skill(Skill(**{**_fields(base), "classes": [dear]}))
    decision = decide(market.view(2), request, STILL, 1)
    assert decision.winner is not None
    assert decision.winner.offer == "p0/m3"
    assert decision.quality_price_nusd == 1e9


def test_a_deadline_moves_the_choice_to_an_offer_that_can_meet_it() -> None:
    market = book()
    for offer in market.offers.offer_ids:
        if offer.startswith("p0/"):
            market.apply_quote(quote(offer, ttft_ms=5_000.0, at_us=2))
    patient = decide(market.view(2), ask(sla=Sla(value_usd=0.001)), STILL, 1)
    hurried = decide(market.view(3), ask(sla=Sla(value_usd=0.001, ttft_ms=800)), STILL, 1)
    assert patient.winner is not None
    assert hurried.winner is not None
    assert patient.winner.offer.startswith("p0/")
    assert not hurried.winner.offer.startswith("p0/")
    assert hurried.winner.p_on_time > 0.95


@pytest.mark.parametrize(
    ("sla", "reason", "count"),
    [
        (Sla(compliance=Compliance(regions=("eu",))), "region", 8),
        (Sla(compliance=Compliance(zdr=True)), "retention", 8),
        (Sla(compliance=Compliance(no_training=True)), "training", 4),
        (Sla(compliance=Compliance(deny=("m0", "p1"))), "denied", 6),
        (Sla(compliance=Compliance(allow=("p2/m1",))), "denied", 11),
    ],
)
def test_compliance_gates_come_before_price(sla: Sla, reason: str, count: int) -> None:
    decision = decide(book().view(1), ask(sla=sla), STILL, 1)
    assert decision.no_bids == {reason: count}
    assert decision.n_bids == 12 - count


def test_capability_context_and_candidates_are_gates() -> None:
    view = book().view(1)
    assert decide(view, ask(needs=1), STILL, 1).no_bids == {"capability": 3}
    assert decide(view, ask(input_tokens=20_000), STILL, 1).no_bids == {"context_window": 6}
    pinned = decide(view, ask(candidates=("p2/m3",)), STILL, 1)
    assert pinned.no_bids == {"not_a_candidate": 11}
    assert [b.offer for b in pinned.ranked] == ["p2/m3"]
    assert pinned.clearing_price_nusd is None


def test_context_gate_is_exact_within_a_size_class() -> None:
    view = book().view(1)
    fits = decide(view, ask(input_tokens=7_999), STILL, 1)
    too_long = decide(view, ask(input_tokens=8_001), STILL, 1)
    assert "context_window" not in fits.no_bids
    assert too_long.no_bids == {"context_window": 3}


def test_reserve_turns_away_what_costs_more() -> None:
    decision = decide(book().view(1), ask(sla=Sla(value_usd=1.0, max_cost_usd=0.0001)), STILL, 1)
    assert decision.no_bids["above_reserve"] + decision.n_bids == 12
    assert all(b.cost_nusd <= 0.0001 * 1e9 for b in decision.ranked)
    nothing = decide(book().view(1), ask(sla=Sla(max_cost_usd=0.0)), STILL, 1)
    assert nothing.winner is None
    assert nothing.no_bids == {"above_reserve": 12}
    assert not nothing.feasible


def test_strict_floor_excludes_and_best_effort_violates_least() -> None:
    view = book().view(1)
    strict = decide(view, ask(sla=Sla(quality=0.9, strict=True)), STILL, 1)
    assert strict.feasible
    assert {b.offer.split("/")[1] for b in strict.ranked} == {"m3"}
    assert strict.no_bids == {"quality_floor": 9}
    beyond = decide(view, ask(sla=Sla(quality=0.999, strict=True)), STILL, 1)
    assert not beyond.feasible
    assert beyond.winner is not None
    assert beyond.winner.offer == "p0/m3"
    refused = decide(view, ask(sla=Sla(quality=0.999, on_miss="reject")), STILL, 1)
    assert refused.winner is None
    assert refused.no_bids == {"quality_floor": 12}


def test_open_circuits_and_exhausted_quotas_do_not_bid() -> None:
    market = book()
    closed = market.view(1)
    circuit = closed.circuit_open.copy()
    circuit[0] = True
    quota = circuit.copy()
    quota[:2] = [False, True]
    view = market.view(2, circuit_open=circuit, quota_blocked=quota)
    assert decide(view, ask(), STILL, 1).no_bids == {"quota": 1, "circuit_open": 1}


def test_a_session_stays_while_the_gain_is_below_the_switching_cost() -> None:
    view = book().view(1)
    free = decide(view, ask(sla=Sla(value_usd=0.0)), STILL, 1)
    assert free.winner is not None
    stay = decide(view, ask(sla=Sla(value_usd=0.0), incumbent="p1/m1"), STILL, 1)
    assert stay.winner is not None
    assert stay.winner.offer.endswith("/m1")
    light = STILL.patched({"switching": {"consistency_tax_usd": 0.0}}, version=3)
    leave = decide(view, ask(sla=Sla(value_usd=0.0), incumbent="p1/m1"), light, 1)
    assert leave.winner is not None
    assert leave.winner.offer == free.winner.offer


def test_a_warm_cache_is_priced_in() -> None:
    market = book()
    prices = price(0.2)
    market.apply_prices(
        "p2/m1",
        type(prices)(
            input_nusd_per_mtok=prices.input_nusd_per_mtok,
            output_nusd_per_mtok=prices.output_nusd_per_mtok,
            cache_read_nusd_per_mtok=prices.input_nusd_per_mtok // 10,
        ),
    )
    request = ask(
        candidates=("m1",), input_tokens=4_000, incumbent="p2/m1", incumbent_cached_tokens=3_900
    )
    decision = decide(market.view(1), request, STILL, 1)
    assert decision.winner is not None
    assert decision.winner.offer == "p2/m1"


def test_short_money_buys_cheaper_and_a_nonsense_price_of_money_changes_nothing() -> None:
    view = book().view(1)
    bought = [
        decide(view, ask(sla=Sla(value_usd=0.002), money_price=kappa), STILL, 1).ranked[0]
        for kappa in (0.0, 1.0, 10.0, 1e6)
    ]
    costs = [bid.cost_nusd for bid in bought]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > costs[-1]
    assert bought[-1].offer == "p0/m0"
    for nonsense in (-1.0, float("nan"), float("inf")):
        odd = decide(view, ask(sla=Sla(value_usd=0.002), money_price=nonsense), STILL, 1)
        assert odd.ranked[0] == bought[0]


def test_nobody_to_bid_is_an_answer_not_an_error() -> None:
    decision = decide(book().view(1), ask(candidates=("nobody",)), STILL, 1)
    assert decision.winner is None
    assert decision.ranked == ()
    assert decision.propensity is None
    assert decision.no_bids == {"not_a_candidate": 12}


def test_exploration_has_exact_propensities() -> None:
    params = Params().patched({"exploration": {"share": 0.5, "max_loss_usd": 1.0}}, version=2)
    view = book().view(1)
    counts: dict[str, int] = {}
    stated: dict[str, float] = {}
    n = 4_000
    for seed in range(n):
        decision = decide(view, ask(), params, seed)
        assert decision.winner is not None
        assert decision.propensity is not None
        counts[decision.winner.offer] = counts.get(decision.winner.offer, 0) + 1
        stated[decision.winner.offer] = decision.propensity
    assert sum(stated.values()) == pytest.approx(1.0)
    for offer, propensity in stated.items():
        error = 4.0 * (propensity * (1 - propensity) / n) ** 0.5
        assert counts[offer] / n == pytest.approx(propensity, abs=error)


def test_strict_requests_are_never_explored() -> None:
    params = Params().patched({"exploration": {"share": 0.5, "max_loss_usd": 1.0}}, version=2)
    view = book().view(1)
    request = ask(sla=Sla(quality=0.6, strict=True))
    winners = {decide(view, request, params, seed).ranked[0].offer for seed in range(200)}
    assert len(winners) == 1


@pytest.mark.parametrize("policy", [Cheapest(), Best(), Fastest(), Random(), PricedThompson()])
def test_every_policy_repeats_under_its_seed(policy: Cheapest) -> None:
    view = book().view(1)
    assert decide(view, ask(), STILL, 7, policy) == decide(view, ask(), STILL, 7, policy)


def _fields(made: Skill) -> dict[str, object]:
    return {name: getattr(made, name) for name in made.__struct_fields__}
