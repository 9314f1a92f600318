"""A provider's own page of prices by offer, as the paper market's sellers serve it at `/prices`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from bidding.market import PriceList
from bidding.units import TOKENS_PER_MTOK
from feeds.catalogue.listing import Clause, Listing, PriceSheet, json_object, nusd_per_mtok, sheet
from feeds.errors import BadRecord

NAME = "price-page"


def parse(body: bytes) -> PriceSheet:
    """The page. Raises `BadRecord` when it is none, or not in dollars."""
    page = json_object(body, NAME)
    rows = page.get("prices")
    if not isinstance(rows, list) or page.get("currency") != "USD":
        raise BadRecord("price-page: no list of prices in USD")
    provider = str(page.get("provider", ""))
    entries: dict[str, Callable[[], Listing | None]] = {
        f"{i}": partial(_listing, provider, row) for i, row in enumerate(rows)
    }
    return sheet(entries, NAME)


def _listing(provider: str, row: dict[str, Any]) -> Listing:
    usd = {
        name: nusd_per_mtok(row.get(f"{name}_usd_per_mtok"), per_tokens=TOKENS_PER_MTOK)
        for name in ("input", "output", "cache_read", "cache_write")
    }
    paid, asked = usd["input"], usd["output"]
    if paid is None or asked is None:
        raise ValueError("no price for input or output")
    prices = PriceList(
        input_nusd_per_mtok=paid,
        output_nusd_per_mtok=asked,
        cache_read_nusd_per_mtok=usd["cache_read"],
        cache_write_nusd_per_mtok=usd["cache_write"],
    )
    region = row.get("region")
    return Listing(
        provider=provider,
        model=str(row["model"]),
        region=None if region is None else str(region),
        clauses=(Clause(prices=prices),),
    )
