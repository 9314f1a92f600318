"""How calls to sellers are made: waits, budgets for what is more than one attempt, hedging."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, field

from bidding.waiting import WaitRules

Share = Annotated[float, Meta(ge=0.0, le=1.0)]


class DispatchSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How calls are made.

    `gap_ms` is the longest silence within an answer; less, though not below `least_gap_ms`, where
    an offer's own pace or the deadline say so. `stream_upstream` asks sellers to stream
    even when the app does not, so that a hang shows at the first token, not at the deadline.
    `retry_share` bounds attempts at sellers whose last attempt failed, and repeats at the same
    one, per request of the last `budget_window_s`; `hedge_share` hedges. The floors are what a
    gateway without traffic may do in as long.
    """

    wait: WaitRules = field(default_factory=WaitRules)
    gap_ms: Annotated[float, Meta(gt=0, le=600_000)] = 10_000.0
    least_gap_ms: Annotated[float, Meta(gt=0, le=600_000)] = 1_000.0
    stream_upstream: bool = True
    budget_window_s: Annotated[float, Meta(ge=0.1, le=3_600)] = 10.0
    retry_share: Share = 0.1
    retry_floor: Annotated[float, Meta(ge=1.0)] = 3.0
    hedge: bool = True
    hedge_share: Share = 0.03
    hedge_floor: Annotated[float, Meta(ge=1.0)] = 2.0
    max_busy_s: Annotated[float, Meta(gt=0)] = 60.0
