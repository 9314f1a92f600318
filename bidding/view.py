"""An immutable, numbered picture of the market: what one decision reads, and all it reads.

Everything is in columns over the offers of `OfferColumns`. Nothing here changes after the view
is made; what it keeps in `memo` are results of pure functions of it, kept because the next
request of the same kind needs the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from bidding.columns import Bools, Floats, Ints, OfferColumns, PriceColumns
from bidding.estimators.latency_pool import LatencyColumns
from bidding.estimators.quality_skill import SkillArrays
from bidding.found_tasks import FoundTasks
from bidding.pacing import ClassPrices
from bidding.params import PacingParams

if TYPE_CHECKING:
    from bidding.gates import Gated, GateKey
    from bidding.kernel import Kernel
    from bidding.kind import KindKey, OnTimeKey, RulesKey
    from bidding.slate import Slate

ElsewhereKey = tuple[str, float | None, float | None, PacingParams]


@dataclass(frozen=True, slots=True)
class QuoteColumns:
    """The quotes as columns, shape (n_offers,); see `bidding.quote.Quote` for meanings.

    `evidence_n` is the decayed number of attempts behind an offer's quote, 0 for one never
    quoted.
    """

    latency: LatencyColumns
    fail_share: Floats
    capacity_share: Floats
    evidence_n: Floats


@dataclass(frozen=True, slots=True)
class TaskColumns:
    """What is believed of one task, per offer: shape (n_offers,).

    `out_log_tokens`, `out_log_sd`: mean and sd of the log of an answer's tokens; `p_good`,
    `p_good_sd`: of an ordinary prompt. `out_tokens` keeps expected lengths by the request's cap.
    """

    quality: SkillArrays
    out_log_tokens: Floats
    out_log_sd: Floats
    p_good: Floats
    p_good_sd: Floats
    out_tokens: dict[int | None, Floats] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class ShadowPrices:
    """What using an offer now will cost others of us later, in nusd; shape (n_offers,).

    A quota near its end makes its last requests dear: bids score worse by these, and nobody is
    charged them.
    """

    request_nusd: Floats
    token_nusd: Floats


@dataclass(slots=True)
class Memo:
    """Results of pure functions of one view, by what they depend on beside it.

    `slates` are those asked for; `warmed` those made before anybody asked.
    """

    slates: dict[KindKey, Slate] = field(default_factory=dict)
    warmed: dict[KindKey, Slate] = field(default_factory=dict)
    gated: dict[GateKey, Gated] = field(default_factory=dict)
    on_time: dict[OnTimeKey, Floats] = field(default_factory=dict)
    fixed_nusd: dict[tuple[str, int | None, int], Floats] = field(default_factory=dict)
    harm_nusd: dict[tuple[float, float], Floats] = field(default_factory=dict)
    untried: dict[float, Bools] = field(default_factory=dict)
    elsewhere: dict[ElsewhereKey, tuple[float, float]] = field(default_factory=dict)
    rules: dict[RulesKey, tuple[Floats, list[float]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MarketView:
    """What a decision reads. `generic` stands in for tasks nothing is known of.

    `market_codes` says which offers the market keeps from bidding, whatever is asked; None
    where it keeps none. `found` are the kinds of work among requests that name no task.
    `half_open` marks offers whose circuit waits for somebody to try them again; empty where none
    does. `shadow` is None where nothing is scarce. `kernel` only makes decisions quicker.
    """

    number: int
    at_us: int
    offers: OfferColumns
    prices: PriceColumns
    priced: Bools
    quotes: QuoteColumns
    circuit_open: Bools
    quota_blocked: Bools
    market_codes: Ints | None
    n_inflight: Floats
    tasks: Mapping[str, TaskColumns]
    generic: TaskColumns
    classes: Mapping[str, ClassPrices]
    classes_of_task: Mapping[str, tuple[ClassPrices, ...]]
    found: FoundTasks = field(default_factory=FoundTasks)
    half_open: Bools = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    shadow: ShadowPrices | None = None
    kernel: Kernel | None = None
    memo: Memo = field(default_factory=Memo, compare=False, repr=False)

    def task(self, name: str) -> TaskColumns:
        """Beliefs about the task, or the generic ones."""
        return self.tasks.get(name, self.generic)
