"""Our own price list, for contracts no public list knows: TOML, one `[[price]]` an offer.

[[price]]
offer = "acme/llama-3.1-70b@eu"
input_usd_per_mtok = 0.5
output_usd_per_mtok = 0.7
from = 2026-12-01          # optional; also daily = ["16:30", "00:30"] in UTC
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from functools import partial
from typing import Any, Final

from bidding.market import PriceList
from bidding.units import TOKENS_PER_MTOK
from feeds.catalogue.listing import MAX_BYTES, Clause, Listing, PriceSheet, nusd_per_mtok, sheet
from feeds.errors import BadRecord

NAME = "own"
_PRICES: Final = ("input", "output", "cache_read", "cache_write", "reasoning")
_KNOWN: Final = {"offer", "from", "daily", *(f"{n}_usd_per_mtok" for n in _PRICES)}


def parse(body: bytes) -> PriceSheet:
    """The file. Several entries of one offer are its clauses, in order."""
    if len(body) > MAX_BYTES:
        raise BadRecord(f"own: {len(body)} bytes, more than {MAX_BYTES}")
    try:
        rows = tomllib.loads(body.decode()).get("price")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRecord(f"own: not TOML: {error}") from error
    if not isinstance(rows, list):
        raise BadRecord("own: no [[price]] in it")
    by_offer: dict[str, list[Any]] = {}
    for row in rows:
        name = row.get("offer", "") if isinstance(row, dict) else ""
        by_offer.setdefault(str(name), []).append(row)
    entries: dict[str, Callable[[], Listing | None]] = {
        offer: partial(_listing, offer, given) for offer, given in by_offer.items()
    }
    return sheet(entries, NAME)


def _listing(offer: str, rows: list[dict[str, Any]]) -> Listing:
    provider, _, model = offer.partition("/")
    if not provider or not model:
        raise ValueError(f"{offer!r} is no offer id")
    model, _, region = model.partition("@")
    clauses = tuple(_clause(row) for row in rows)
    return Listing(provider=provider, model=model, region=region or None, clauses=clauses)


def _clause(row: dict[str, Any]) -> Clause:
    unknown = sorted(set(row) - _KNOWN)
    if unknown:
        raise ValueError(f"unknown keys {unknown}")
    usd = {
        n: nusd_per_mtok(row.get(f"{n}_usd_per_mtok"), per_tokens=TOKENS_PER_MTOK) for n in _PRICES
    }
    paid, asked = usd["input"], usd["output"]
    if paid is None or asked is None:
        raise ValueError("input_usd_per_mtok and output_usd_per_mtok must be given")
    begin = row.get("from")
    from_us = 0
    if isinstance(begin, datetime):
        from_us = int(begin.replace(tzinfo=begin.tzinfo or UTC).timestamp()) * 1_000_000
    elif isinstance(begin, date):
        from_us = int(datetime.combine(begin, time(), UTC).timestamp()) * 1_000_000
    elif begin is not None:
        raise ValueError(f"from: {begin!r} is no date")
    daily = row.get("daily")
    start_s, end_s = (_second(t) for t in daily) if daily else (None, None)
    return Clause(
        prices=PriceList(
            input_nusd_per_mtok=paid,
            output_nusd_per_mtok=asked,
            cache_read_nusd_per_mtok=usd["cache_read"],
            cache_write_nusd_per_mtok=usd["cache_write"],
            reasoning_nusd_per_mtok=usd["reasoning"],
        ),
        from_us=from_us,
        start_s=start_s,
        end_s=end_s,
    )


def _second(text: object) -> int:
    at = time.fromisoformat(str(text))
    return at.hour * 3600 + at.minute * 60 + at.second
