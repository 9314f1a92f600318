"""Circuits in a replay: a provider that is down is left with all its offers after few failures."""

from __future__ import annotations

from analytics.replay.circuits import Circuits
from bidding.book import MarketBook
from bidding.estimators.circuit import CircuitParams
from bidding.market import Catalogue, Model, Offer, PriceList, Provider


def _circuits(params: CircuitParams) -> Circuits:
    price = PriceList(input_nusd_per_mtok=1, output_nusd_per_mtok=1)
    catalogue = Catalogue(
        providers=[
            Provider(id=p, name=p, wire="openai", base_url="http://none", jurisdiction="us")
            for p in ("down", "well")
        ],
        models=[
            Model(id=m, family=m, context_window=1000, max_output_tokens=1000) for m in ("a", "b")
        ],
        offers=[
            Offer(provider=p, model=m, region=None, prices=price)
            for p in ("down", "well")
            for m in ("a", "b")
        ],
    )
    return Circuits(MarketBook(catalogue).offers, params)


def test_a_provider_is_left_after_as_many_failures_as_open_a_circuit() -> None:
    params = CircuitParams()
    circuits = _circuits(params)
    n_lost = 0
    for n in range(400):
        at_s, row = n * 0.1, n % 2
        if circuits.any_open:
            circuits.look(at_s, lambda row: row < 2)
        if circuits.may_send(row):
            n_lost += 1
            circuits.attempted(row, at_s, failed=True)
    assert n_lost == params.open_after
    assert 10 < circuits.n_tries <= 40 / 0.7 + 2
    assert circuits.blocked().tolist() == [True, True, False, False]


def test_good_tries_close_it_on_probation_and_requests_are_drawn_to_it() -> None:
    circuits = _circuits(CircuitParams())
    for n in range(5):
        circuits.attempted(0, n * 0.01, failed=True)
    at_s = 0.05
    while circuits.any_open:
        at_s += 0.1
        circuits.look(at_s, lambda row: False)
        assert at_s < 3.0
    assert circuits.n_tries == 2
    assert circuits.returning(at_s).tolist() == [True, False, False, False]
    assert not circuits.returning(at_s + 6.0).any()
    circuits.attempted(0, at_s + 0.1, failed=True)
    assert circuits.any_open
