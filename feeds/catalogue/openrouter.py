"""OpenRouter: `/api/v1/models`, and `/api/v1/models/{author}/{slug}/endpoints` by provider.

Amounts are strings of dollars a token (a request, an image). A negative one means "varies" (the
router models) and is no price.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from bidding.market import PriceList
from feeds.catalogue.listing import (
    Clause,
    Listing,
    PriceSheet,
    day_us,
    json_object,
    nusd,
    nusd_per_mtok,
    sheet,
)
from feeds.errors import BadRecord

NAME = "openrouter"


def parse(body: bytes) -> PriceSheet:
    """Either document. Raises `BadRecord` when it is neither, or nothing in it can be read."""
    data = json_object(body, NAME).get("data")
    entries: dict[str, Callable[[], Listing | None]] = {}
    if isinstance(data, list):
        for i, entry in enumerate(data):
            entries[f"{i}:{_name(entry)}"] = partial(_of_model, entry)
    elif isinstance(data, dict) and isinstance(data.get("endpoints"), list):
        model = str(data.get("id", ""))
        for i, entry in enumerate(data["endpoints"]):
            entries[f"{i}:{model}"] = partial(_of_endpoint, model, entry)
    else:
        raise BadRecord("openrouter: neither a list of models nor one model's endpoints")
    return sheet(entries, NAME)


def _of_model(entry: dict[str, Any]) -> Listing | None:
    return _listing("openrouter", str(entry["id"]), entry)


def _of_endpoint(model: str, entry: dict[str, Any]) -> Listing | None:
    return _listing(str(entry["provider_name"]).lower(), model, entry)


def _name(entry: object) -> str:
    return str(entry.get("id", "")) if isinstance(entry, dict) else repr(entry)[:50]


def _listing(provider: str, model: str, entry: dict[str, Any]) -> Listing:
    pricing = entry["pricing"]
    prompt, completion = nusd_per_mtok(pricing["prompt"]), nusd_per_mtok(pricing["completion"])
    if prompt is None or completion is None:
        raise ValueError("no price for prompt or completion")
    prices = PriceList(
        input_nusd_per_mtok=prompt,
        output_nusd_per_mtok=completion,
        cache_read_nusd_per_mtok=nusd_per_mtok(pricing.get("input_cache_read")),
        cache_write_nusd_per_mtok=nusd_per_mtok(pricing.get("input_cache_write")),
        request_nusd=nusd(pricing.get("request") or 0),
        image_nusd=nusd(pricing.get("image") or 0),
        reasoning_nusd_per_mtok=nusd_per_mtok(pricing.get("internal_reasoning")) or None,
    )
    return Listing(
        provider=provider,
        model=model,
        clauses=(Clause(prices=prices),),
        until_us=day_us(entry.get("expiration_date")),
    )
