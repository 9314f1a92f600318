"""What a price source says of one model at one provider, and how amounts are read.

A `Listing` holds clauses: prices with the days and hours they hold. As at the sources, the last
clause that holds at a moment wins, and the first stands in when none does. Amounts are read as
decimals, so that `0.00000015` a token is exactly 150,000,000 nusd a million.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec
from msgspec import Struct

from bidding.market import ContextTier, PriceList
from bidding.units import NUSD_PER_USD, TOKENS_PER_MTOK
from feeds.errors import BadRecord

DAY_S: Final = 86_400
MAX_BYTES: Final = 64 * 1024 * 1024
_MAX_NUSD: Final = 10**18


class Clause(Struct, frozen=True, kw_only=True):
    """Prices and when they hold: from `from_us` on, and daily from `start_s` to `end_s` (UTC)."""

    prices: PriceList
    from_us: int = 0
    start_s: int | None = None
    end_s: int | None = None

    def holds(self, at_us: int) -> bool:
        if at_us < self.from_us:
            return False
        if self.start_s is None or self.end_s is None:
            return True
        second = at_us // 1_000_000 % DAY_S
        if self.start_s <= self.end_s:
            return self.start_s <= second < self.end_s
        return second >= self.start_s or second < self.end_s


class Listing(Struct, frozen=True, kw_only=True):
    """A model at a provider, by the source's own names.

    `until_us`: by the source's word it is sold no longer from then on (0: deprecated, no date).
    """

    provider: str
    model: str
    clauses: tuple[Clause, ...]
    region: str | None = None
    until_us: int | None = None

    def is_over(self, at_us: int) -> bool:
        """Whether the source itself says that it is sold no longer."""
        return self.until_us is not None and at_us >= self.until_us

    def at(self, at_us: int) -> PriceList:
        """The prices that hold at a moment."""
        for clause in reversed(self.clauses):
            if clause.holds(at_us):
                return clause.prices
        return self.clauses[0].prices


class PriceSheet(Struct, frozen=True, kw_only=True):
    """A whole list, and what in it could not be read (name and reason, the first hundred)."""

    listings: list[Listing]
    n_skipped: int = 0
    skipped: list[str] = []


def nusd_per_mtok(amount: object, *, per_tokens: int = 1) -> int | None:
    """Dollars per `per_tokens` tokens as nano-dollars per million; None stays None.

    Raises
    ------
    ValueError
        Not a number, negative, not finite, or more than 64 bits hold.

    Examples
    --------
    >>> nusd_per_mtok("0.00000015"), nusd_per_mtok(0.15, per_tokens=1_000_000)
    (150000000, 150000000)
    """
    if amount is None or amount == "":
        return None
    return nusd(amount, TOKENS_PER_MTOK // per_tokens)


def nusd(amount: object, times: int = 1) -> int:
    """Dollars, `times` over, as whole nano-dollars. Raises `ValueError` as `nusd_per_mtok`."""
    if isinstance(amount, bool) or not isinstance(amount, str | int | float | Decimal):
        raise ValueError(f"{amount!r} is no amount")
    try:
        value = Decimal(str(amount)) * times * NUSD_PER_USD
    except InvalidOperation as error:
        raise ValueError(f"{amount!r} is no amount") from error
    if not value.is_finite() or value < 0 or value > _MAX_NUSD:
        raise ValueError(f"{amount!r} is no price")
    return int(value.to_integral_value())


def day_us(date: object) -> int | None:
    """The begin of a day (`2026-11-30`, or a time on it) in UTC; None where it is no date.

    Examples
    --------
    >>> day_us("1970-01-02"), day_us("soon"), day_us(None)
    (86400000000, None, None)
    """
    try:
        day = datetime.fromisoformat(str(date)[:10]).replace(tzinfo=UTC)
    except ValueError:
        return None
    return int(day.timestamp()) * 1_000_000


def json_object(body: bytes, what: str) -> dict[str, Any]:
    """The JSON object in a body.

    Raises
    ------
    BadRecord
        Too large, not JSON, nested too deeply, or no object.
    """
    if len(body) > MAX_BYTES:
        raise BadRecord(f"{what}: {len(body)} bytes, more than {MAX_BYTES}")
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadRecord(f"{what}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise BadRecord(f"{what}: a {type(found).__name__} where an object was due")
    return found


def sheet(entries: Mapping[str, Callable[[], Listing | None]], what: str) -> PriceSheet:
    """Read each entry on its own: one that is broken is named and spoils no other.

    Raises
    ------
    BadRecord
        Entries were there and none could be read.
    """
    listings: list[Listing] = []
    skipped: list[str] = []
    n_skipped = 0
    for name, read in entries.items():
        try:
            listing = read()
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            n_skipped += 1
            if len(skipped) < 100:
                skipped.append(f"{name[:200]}: {error}")
            continue
        if listing is not None:
            listings.append(listing)
    if not listings:
        raise BadRecord(f"{what}: no price could be read ({n_skipped} skipped)")
    return PriceSheet(listings=listings, n_skipped=n_skipped, skipped=skipped)


def tier(above: int, base: PriceList, over: Mapping[str, int | None]) -> ContextTier:
    """Prices beyond `above` input tokens; what the source leaves out stays as below."""

    def one(name: str, below: int | None) -> int | None:
        found = over.get(name)
        return below if found is None else found

    input_ = one("input", base.input_nusd_per_mtok)
    output = one("output", base.output_nusd_per_mtok)
    assert input_ is not None
    assert output is not None
    return ContextTier(
        above_input_tokens=above,
        input_nusd_per_mtok=input_,
        output_nusd_per_mtok=output,
        cache_read_nusd_per_mtok=one("cache_read", base.cache_read_nusd_per_mtok),
    )
