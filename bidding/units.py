"""Money and durations, and the one place where a number changes its unit.

Money is counted in nano-dollars (nusd), as integers wherever it is kept or added up: a
decision may compare floats, but what is owed is exact. Prices are nano-dollars per million
tokens, so one token at $0.15 per million costs 150 nusd.
"""

from __future__ import annotations

NUSD_PER_USD = 1_000_000_000
TOKENS_PER_MTOK = 1_000_000


def nusd_from_usd(usd: float) -> int:
    """Dollars to whole nano-dollars, rounded half to even.

    Examples
    --------
    >>> nusd_from_usd(0.15)
    150000000
    """
    return round(usd * NUSD_PER_USD)


def usd_from_nusd(nusd: float) -> float:
    """Nano-dollars to dollars.

    Examples
    --------
    >>> usd_from_nusd(150_000_000)
    0.15
    """
    return nusd / NUSD_PER_USD


def tokens_cost_nusd(price_nusd_per_mtok: int, n_tokens: int) -> int:
    """What `n_tokens` cost, in whole nano-dollars, rounded half up.

    Examples
    --------
    >>> tokens_cost_nusd(150_000_000, 1000)
    150000
    """
    return (price_nusd_per_mtok * n_tokens + TOKENS_PER_MTOK // 2) // TOKENS_PER_MTOK
