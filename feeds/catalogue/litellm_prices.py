"""LiteLLM's `model_prices_and_context_window.json`: dollars a token, tiers in the keys' names."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from msgspec.structs import replace

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
    tier,
)

NAME = "litellm"
_TIER: Final = re.compile(r"(input|output)_cost_per_token_above_(\d+)k_tokens")
_TEXT_MODES: Final = {"chat", "completion", "responses", "embedding", None}


def parse(body: bytes) -> PriceSheet:
    """The whole file; what is priced by the second, the page or the pixel is passed over."""
    entries: dict[str, Callable[[], Listing | None]] = {
        name: partial(_listing, name, entry)
        for name, entry in json_object(body, NAME).items()
        if name != "sample_spec"
    }
    return sheet(entries, NAME)


def _listing(name: str, entry: dict[str, Any]) -> Listing | None:
    if entry.get("mode") not in _TEXT_MODES or "input_cost_per_token" not in entry:
        return None
    provider = str(entry["litellm_provider"])
    base = nusd_per_mtok(entry["input_cost_per_token"])
    if base is None:
        return None
    prices = PriceList(
        input_nusd_per_mtok=base,
        output_nusd_per_mtok=nusd_per_mtok(entry.get("output_cost_per_token")) or 0,
        cache_read_nusd_per_mtok=nusd_per_mtok(entry.get("cache_read_input_token_cost")),
        cache_write_nusd_per_mtok=nusd_per_mtok(entry.get("cache_creation_input_token_cost")),
        request_nusd=nusd(entry.get("input_cost_per_request") or 0),
        image_nusd=nusd(entry.get("input_cost_per_image") or 0),
        reasoning_nusd_per_mtok=nusd_per_mtok(entry.get("output_cost_per_reasoning_token")),
        batch_input_nusd_per_mtok=nusd_per_mtok(entry.get("input_cost_per_token_batches")),
        batch_output_nusd_per_mtok=nusd_per_mtok(entry.get("output_cost_per_token_batches")),
    )
    steps: dict[int, dict[str, int | None]] = {}
    for key, amount in entry.items():
        match = _TIER.fullmatch(key)
        if match is not None:
            steps.setdefault(int(match[2]) * 1000, {})[match[1]] = nusd_per_mtok(amount)
    for above, step in steps.items():
        cached = entry.get(f"cache_read_input_token_cost_above_{above // 1000}k_tokens")
        step["cache_read"] = nusd_per_mtok(cached)
    tiers = tuple(tier(above, prices, steps[above]) for above in sorted(steps))
    model = name.removeprefix(f"{provider}/")
    return Listing(
        provider=provider,
        model=model,
        clauses=(Clause(prices=replace(prices, tiers=tiers)),),
        until_us=day_us(entry.get("deprecation_date")),
    )
