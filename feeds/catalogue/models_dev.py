"""models.dev's `api.json`: providers, their models, `cost` in dollars per million tokens."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from msgspec.structs import replace

from bidding.market import PriceList
from bidding.units import TOKENS_PER_MTOK
from feeds.catalogue.listing import (
    Clause,
    Listing,
    PriceSheet,
    json_object,
    nusd_per_mtok,
    sheet,
    tier,
)

NAME = "models.dev"
_usd = partial(nusd_per_mtok, per_tokens=TOKENS_PER_MTOK)


def parse(body: bytes) -> PriceSheet:
    """The whole catalogue; models without a cost are passed over."""
    entries: dict[str, Callable[[], Listing | None]] = {}
    for provider, entry in json_object(body, NAME).items():
        models = entry.get("models") if isinstance(entry, dict) else None
        for model, facts in (models if isinstance(models, dict) else {}).items():
            entries[f"{provider}/{model}"] = partial(_listing, provider, model, facts)
    return sheet(entries, NAME)


def _listing(provider: str, model: str, facts: dict[str, Any]) -> Listing | None:
    cost = facts.get("cost")
    if not cost:
        return None
    return Listing(
        provider=provider,
        model=model,
        clauses=(Clause(prices=price_list(cost)),),
        until_us=0 if facts.get("status") == "deprecated" else None,
    )


def price_list(cost: dict[str, Any]) -> PriceList:
    """A `cost` object as prices. Raises `ValueError`, `KeyError`."""
    paid, asked = _usd(cost["input"]), _usd(cost["output"])
    if paid is None or asked is None:
        raise ValueError("no price for input or output")
    prices = PriceList(
        input_nusd_per_mtok=paid,
        output_nusd_per_mtok=asked,
        cache_read_nusd_per_mtok=_usd(cost.get("cache_read")),
        cache_write_nusd_per_mtok=_usd(cost.get("cache_write")),
        reasoning_nusd_per_mtok=_usd(cost.get("reasoning")),
    )
    over = cost.get("context_over_200k")
    if not over:
        return prices
    step = {name: _usd(over.get(name)) for name in ("input", "output", "cache_read")}
    return replace(prices, tiers=(tier(200_000, prices, step),))
