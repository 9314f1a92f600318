"""Spot asks: a seller's price below its list, for a while and for so much.

An ask never raises a price: each part counts only where it is below the list's. When it ends, or
its capacity is spent, the list price is in force again.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from bidding.columns import Bools, PriceColumns, price_columns
from bidding.market import ContextTier, PriceList


class Ask(Struct, frozen=True, kw_only=True):
    """What a seller asks until `until_us` (µs since the epoch), from `from_us` on.

    `capacity_tokens` is how much it would sell at that price; None is any amount. Whoever makes
    the view keeps count and says when it is spent.
    """

    prices: PriceList
    until_us: int
    from_us: int = 0
    capacity_tokens: float | None = None


class Asks:
    """The newest ask of each offer, and the prices that result."""

    def __init__(self, listed: Sequence[PriceList]) -> None:
        self._asks: dict[int, Ask] = {}
        self._listed = list(listed)
        self._in_force: frozenset[int] = frozenset()
        self._made: PriceColumns | None = None

    def put(self, row: int, ask: Ask) -> None:
        """The offer at `row` asks this now."""
        self._asks[row] = ask
        self._made = None

    def relisted(self, listed: Sequence[PriceList]) -> None:
        """List prices have changed."""
        self._listed = list(listed)
        self._made = None

    def ask(self, row: int) -> Ask | None:
        """The newest ask of the offer at `row`, in force or not."""
        return self._asks.get(row)

    def columns(self, listed: PriceColumns, at_us: int, spent: Bools | None) -> PriceColumns:
        """Prices in force at `at_us`; `listed` itself where no ask is."""
        if not self._asks:
            return listed
        rows = frozenset(
            row
            for row, ask in self._asks.items()
            if ask.from_us <= at_us < ask.until_us and (spent is None or not spent[row])
        )
        if not rows:
            return listed
        if self._made is None or rows != self._in_force:
            asked = [
                lowered(price, self._asks[row].prices) if row in rows else price
                for row, price in enumerate(self._listed)
            ]
            self._made, self._in_force = price_columns(asked), rows
        return self._made


def lowered(listed: PriceList, asked: PriceList) -> PriceList:
    """The list with each price that is asked for less, in every tier of either."""
    edges = sorted({t.above_input_tokens for t in (*listed.tiers, *asked.tiers)})
    tiers = []
    for edge in edges:
        there = _each_lower(listed.for_prompt(edge + 1), asked.for_prompt(edge + 1))
        tiers.append(
            ContextTier(
                above_input_tokens=edge,
                input_nusd_per_mtok=there.input_nusd_per_mtok,
                output_nusd_per_mtok=there.output_nusd_per_mtok,
                cache_read_nusd_per_mtok=there.cache_read_nusd_per_mtok,
            )
        )
    return msgspec.structs.replace(_each_lower(listed, asked), tiers=tuple(tiers))


def _each_lower(listed: PriceList, asked: PriceList) -> PriceList:
    """The lower of each price; a cached token never above a fresh one."""
    fresh = min(listed.input_nusd_per_mtok, asked.input_nusd_per_mtok)
    cached = [
        price
        for price in (listed.cache_read_nusd_per_mtok, asked.cache_read_nusd_per_mtok)
        if price is not None
    ]
    return msgspec.structs.replace(
        listed,
        input_nusd_per_mtok=fresh,
        output_nusd_per_mtok=min(listed.output_nusd_per_mtok, asked.output_nusd_per_mtok),
        cache_read_nusd_per_mtok=min(*cached, fresh) if cached else None,
        request_nusd=min(listed.request_nusd, asked.request_nusd),
    )
