"""An immutable, numbered picture of the market: what one decision reads, and all it reads.

Everything is in columns over the offers of `OfferColumns`. Nothing here changes after the view
is made; the slates it keeps are results of pure functions of it, kept because the next request
of the same kind needs the same one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bidding.columns import Bools, Floats, OfferColumns, PriceColumns
from bidding.estimators.latency_pool import LatencyColumns
from bidding.estimators.quality_skill import SkillArrays
from bidding.pacing import ClassPrices

if TYPE_CHECKING:
    from bidding.slate import Slate, SlateKey


@dataclass(frozen=True, slots=True)
class QuoteColumns:
    """The quotes as columns, shape (n_offers,); see `bidding.quote.Quote` for meanings."""

    latency: LatencyColumns
    fail_share: Floats
    capacity_share: Floats


@dataclass(frozen=True, slots=True)
class TaskColumns:
    """What is believed of one task, per offer: shape (n_offers,).

    `out_log_tokens`, `out_log_sd`: mean and sd of the log of an answer's tokens.
    """

    quality: SkillArrays
    out_log_tokens: Floats
    out_log_sd: Floats


@dataclass(frozen=True, slots=True)
class MarketView:
    """What a decision reads. `generic` stands in for tasks nothing is known of."""

    number: int
    at_us: int
    offers: OfferColumns
    prices: PriceColumns
    priced: Bools
    quotes: QuoteColumns
    circuit_open: Bools
    quota_blocked: Bools
    n_inflight: Floats
    tasks: Mapping[str, TaskColumns]
    generic: TaskColumns
    classes: Mapping[str, ClassPrices]
    classes_of_task: Mapping[str, tuple[ClassPrices, ...]]
    slates: dict[SlateKey, Slate] = field(default_factory=dict)

    def task(self, name: str) -> TaskColumns:
        """Beliefs about the task, or the generic ones."""
        return self.tasks.get(name, self.generic)
