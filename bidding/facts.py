"""What is known of the catalogue's models before any answer: the quality model's prior."""

from __future__ import annotations

from bidding.estimators.quality_prior import ModelFacts
from bidding.market import Catalogue
from bidding.units import usd_from_nusd


def facts_of(catalogue: Catalogue) -> list[ModelFacts]:
    """Family, published score and lowest list price of every model."""
    lowest: dict[str, int] = {}
    for offer in catalogue.offers:
        price = offer.prices.output_nusd_per_mtok
        lowest[offer.model] = min(price, lowest.get(offer.model, price))
    return [
        ModelFacts(
            model=model.id,
            family=model.family,
            prior_quality=model.prior_quality,
            output_usd_per_mtok=usd_from_nusd(lowest[model.id]) if model.id in lowest else None,
        )
        for model in catalogue.models
    ]
