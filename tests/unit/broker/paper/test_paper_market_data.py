"""The shipped figures: big enough, varied enough, and what their sources say."""

from __future__ import annotations

import statistics
from datetime import UTC, datetime
from pathlib import Path

import pytest
from genai_prices.data import providers as price_providers

from bidding.columns import offer_columns
from bidding.market import Capability
from bidding.units import NUSD_PER_USD
from broker.paper import embedders, roster
from broker.paper.behaviour import Behaviour
from broker.paper.market_data import load
from broker.paper.remake import price_list, remake
from broker.paper.tasks import TASKS, generate
from broker.paper.wires import WIRES
from broker.providers.capable import completed

PUBLIC_DATA = Path(__file__).parents[5] / "shared" / "data"
PRICES_ON = datetime(2026, 11, 24, tzinfo=UTC)


def expected_cost_nusd(model: str, price: tuple[int, int]) -> float:
    behaviour = Behaviour(load(), seed=0)
    items = [generate("math", seed) for seed in range(200)]
    found = [behaviour.counterfactual(model, item) for item in items]
    return statistics.mean(
        (f.input_tokens * price[0] + f.output_tokens * price[1]) / 1e6 for f in found
    )


def test_a_market_of_many_providers_models_and_offers() -> None:
    catalogue = load().catalogue.checked()
    assert len(catalogue.providers) >= 10
    assert len(catalogue.models) >= 25
    assert len(catalogue.offers) >= 100
    assert {p.wire for p in catalogue.providers} == set(WIRES)
    assert sum(p.wire == "anthropic" for p in catalogue.providers) >= 2
    assert sum(p.jurisdiction == "eu" for p in catalogue.providers) >= 3
    assert any(o.region == "eu" for o in catalogue.offers)
    assert any(p.retention_days == 0 for p in catalogue.providers)
    assert any(p.trains for p in catalogue.providers)
    assert tuple(catalogue.tasks) == TASKS


def test_offers_promise_nothing_that_their_sellers_wire_cannot_carry() -> None:
    catalogue = completed(load().catalogue)
    columns = offer_columns(catalogue)
    beyond = Capability.N_CHOICES | Capability.SEED | Capability.LOGPROBS
    wires = {p.id: p.wire for p in catalogue.providers}
    for offer_id, row in columns.row_of.items():
        if wires[offer_id.partition("/")[0]] in ("anthropic", "bedrock"):
            assert not int(columns.capabilities[row]) & beyond, offer_id


def test_prices_span_two_orders_of_magnitude() -> None:
    prices = [o.prices.output_nusd_per_mtok for o in load().catalogue.offers]
    assert max(prices) > 100 * min(prices)


def test_wire_names_are_unique_at_each_provider() -> None:
    names = [(o.provider, o.wire_model) for o in load().catalogue.offers]
    assert len(set(names)) == len(names)


def test_shipped_prices_are_those_of_genai_prices() -> None:
    shipped = {o.id: o.prices for o in load().catalogue.offers}
    for row in roster.offers():
        offer_id = f"{row.provider}/{row.model}" + (f"@{row.region}" if row.region else "")
        assert shipped[offer_id] == price_list(row, PRICES_ON), offer_id


def test_embedding_prices_are_those_of_genai_prices() -> None:
    shipped = {o.id: o.prices.input_nusd_per_mtok for o in embedders.offers()}
    models = {f"{p.id}:{m.id}": m for p in price_providers for m in p.models}
    listed = {
        f"{provider}/{embedder.id}": models[name].get_prices(PRICES_ON).input_mtok
        for embedder in embedders.EMBEDDERS
        for provider, (name, _) in embedder.sold.items()
    }
    assert shipped == {offer: round(float(usd) * NUSD_PER_USD) for offer, usd in listed.items()}


def test_the_best_model_is_far_dearer_than_one_that_is_good_enough() -> None:
    data = load()
    behaviour = Behaviour(data, seed=0)
    items = [generate(TASKS[i % 4], i) for i in range(2000)]
    quality = {
        model: statistics.mean(behaviour.right_share(model, item.difficulty) for item in items)
        for model in data.skills
    }
    best = max(quality, key=lambda model: quality[model])

    def cheapest(model: str) -> float:
        return min(
            expected_cost_nusd(model, (o.prices.input_nusd_per_mtok, o.prices.output_nusd_per_mtok))
            for o in data.catalogue.offers
            if o.model == model
        )

    good_enough = [model for model, share in quality.items() if share >= 0.96]
    assert min(cheapest(model) for model in good_enough) < 0.2 * cheapest(best)
    assert quality["llama-3.1-8b"] < 0.90


@pytest.mark.skipif(not PUBLIC_DATA.exists(), reason="public data (../shared/data) is not here")
def test_the_shipped_file_is_what_remake_makes() -> None:
    assert remake(PUBLIC_DATA, PRICES_ON) == load()
