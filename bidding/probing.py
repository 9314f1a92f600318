"""Which offers to try with a tiny request, because nobody else does. Pure.

An offer is stale when little is left of the evidence behind its quote. Of the stale ones the first
is that which has been seen least at this hour of the week, since that is what its season lacks;
then the one with the least evidence; then the cheapest. Offers that may not be called (a circuit
open or not yet due for its own probe, a quota at its end) are never tried.
"""

from __future__ import annotations

from typing import Annotated, Final

import numpy as np
from msgspec import Meta, Struct

from bidding.columns import Bools, Floats
from bidding.market import Capability
from bidding.view import MarketView
from bidding.waiting import Forecast

PROBE_TOKENS_IN: Final = 12
PROBE_TOKENS_OUT: Final = 16
_LEAST_PAUSE_S: Final = 0.7
_MOST_PAUSE_S: Final = 10.0
_LEAST_PATIENCE_S: Final = 1.0
_SLOW_QUANTILE: Final = 0.95
_PRICE_MARGIN: Final = 2.0
"""Tokens are counted by each vendor's own tokenizer; never set aside too little."""


class ProbeSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much may be spent on trying offers that nobody calls; without a budget nothing is.

    `every_s` is the pause between looks, each of which tries one offer at most. A quote with less
    than `stale_n` attempts of evidence left is stale. No offer is tried twice within `gap_s`. An
    hour may use its part of the day's budget, so that all hours of the week are seen.

    Offers whose circuit stands open are tried with the same tiny request, by each gateway that
    has called them, as long as such tries have cost it no more than `broken_usd_hour` in this
    hour (broken sellers bill next to nothing); after that requests are drawn to them instead.
    """

    budget_usd_day: Annotated[float, Meta(ge=0, le=10_000)] = 0.0
    every_s: Annotated[float, Meta(gt=0, le=3_600)] = 5.0
    stale_n: Annotated[float, Meta(ge=0, le=1_000)] = 5.0
    gap_s: Annotated[float, Meta(ge=0, le=86_400)] = 300.0
    deadline_s: Annotated[float, Meta(gt=0, le=300)] = 30.0
    broken_usd_hour: Annotated[float, Meta(ge=0, le=1_000)] = 0.05


def probe_cost_nusd(view: MarketView) -> Floats:
    """What a probe of each offer costs at most, (n_offers,)."""
    prices = view.prices
    cost: Floats = _PRICE_MARGIN * (
        prices.request_nusd
        + prices.input_nusd * PROBE_TOKENS_IN
        + prices.output_nusd * PROBE_TOKENS_OUT
    )
    return cost


def due(
    view: MarketView,
    settings: ProbeSettings,
    *,
    seen_at_hour: Floats,
    tried_ago_s: Floats,
    may_call: Bools,
) -> list[int]:
    """Rows of the offers to try, the most needed first.

    Parameters
    ----------
    seen_at_hour : ndarray, (n_offers,)
        Calls known at this hour of the week, over all weeks.
    tried_ago_s : ndarray, (n_offers,)
        Seconds since we last probed it; infinite if never.
    may_call : bool ndarray, (n_offers,)
        Circuits and quotas, as this gateway sees them now.
    """
    offers = view.offers
    stale = view.quotes.evidence_n < settings.stale_n
    allowed = may_call & ~view.circuit_open & ~view.quota_blocked & offers.enabled & view.priced
    chats = (offers.capabilities & int(Capability.EMBEDDINGS)) == 0
    rows = np.flatnonzero(stale & allowed & chats & (tried_ago_s >= settings.gap_s))
    order = np.lexsort(
        (probe_cost_nusd(view)[rows], view.quotes.evidence_n[rows], seen_at_hour[rows])
    )
    return [int(row) for row in rows[order]]


def broken_pause_s(down_s: float) -> float:
    """The least time between two tries of an offer that has been broken for `down_s`.

    A call that hangs must not keep its recovery from being seen, so the next does not wait for it;
    and what has been down for long may be down for a little longer: a hundredth more, ten seconds
    at most.

    Examples
    --------
    >>> [broken_pause_s(s) for s in (4.0, 120.0, 86_400.0)]
    [0.7, 1.2, 10.0]
    """
    return min(max(_LEAST_PAUSE_S, 0.01 * down_s), _MOST_PAUSE_S)


def broken_patience_s(forecast: Forecast | None, most_s: float) -> float:
    """How long a try of a broken offer may take: thrice what a slow one took while it was well.

    At least a second, since nothing waits for it and a machine may be busy; at most `most_s`.
    """
    if forecast is None:
        return most_s
    slow_ms = forecast.finish_ms(_SLOW_QUANTILE, PROBE_TOKENS_OUT)
    return min(max(3e-3 * slow_ms, _LEAST_PATIENCE_S), most_s)
