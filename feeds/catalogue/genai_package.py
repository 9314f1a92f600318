"""The `genai-prices` package's own data: no network, dates, hours and tiers included."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, time
from functools import partial
from typing import Any

from genai_prices.data import providers
from msgspec.structs import replace

from bidding.market import PriceList
from bidding.units import TOKENS_PER_MTOK
from feeds.catalogue.listing import Clause, Listing, PriceSheet, nusd, nusd_per_mtok, sheet, tier

NAME = "genai-prices"
_usd = partial(nusd_per_mtok, per_tokens=TOKENS_PER_MTOK)


def listings() -> PriceSheet:
    """All of the package's prices per token."""
    entries: dict[str, Callable[[], Listing | None]] = {
        f"{provider.id}/{model.id}": partial(_listing, provider.id, model)
        for provider in providers
        for model in provider.models
    }
    return sheet(entries, NAME)


def _listing(provider: str, model: Any) -> Listing | None:
    prices = model.prices if isinstance(model.prices, list) else [None]
    clauses = [
        _clause(entry) if entry is not None else Clause(prices=_price_list(model.prices))
        for entry in prices
    ]
    if not clauses:
        return None
    return Listing(
        provider=provider,
        model=model.id,
        clauses=tuple(clauses),
        until_us=0 if model.deprecated else None,
    )


def _clause(entry: Any) -> Clause:
    when, prices = entry.constraint, _price_list(entry.prices)
    if when is None:
        return Clause(prices=prices)
    if hasattr(when, "start_date"):
        begin = datetime.combine(when.start_date, time(), UTC)
        return Clause(prices=prices, from_us=int(begin.timestamp()) * 1_000_000)
    return Clause(
        prices=prices, start_s=_second_of_day(when.start_time), end_s=_second_of_day(when.end_time)
    )


def _second_of_day(at: time) -> int:
    offset = at.utcoffset()
    second = at.hour * 3600 + at.minute * 60 + at.second
    return (second - (int(offset.total_seconds()) if offset else 0)) % 86_400


def _price_list(found: Any) -> PriceList:
    def base(name: str) -> int | None:
        value = getattr(found, name, None)
        return _usd(getattr(value, "base", value))

    paid, asked = base("input_mtok"), base("output_mtok")
    if paid is None:
        raise ValueError("no price for input")
    prices = PriceList(
        input_nusd_per_mtok=paid,
        output_nusd_per_mtok=asked or 0,
        cache_read_nusd_per_mtok=base("cache_read_mtok"),
        cache_write_nusd_per_mtok=base("cache_write_mtok"),
        request_nusd=nusd(getattr(found, "requests_kcount", None) or 0) // 1000,
    )
    steps: dict[int, dict[str, int | None]] = {}
    for name in ("input", "output", "cache_read"):
        for step in getattr(getattr(found, f"{name}_mtok", None), "tiers", ()):
            steps.setdefault(int(step.start), {})[name] = _usd(step.price)
    return replace(prices, tiers=tuple(tier(at, prices, steps[at]) for at in sorted(steps)))
