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
    `failing_share` bounds attempts at sellers whose last attempt failed, per request;
    `same_offer_share` repeats at the same seller; `hedge_share` hedges.
    """

    wait: WaitRules = field(default_factory=WaitRules)
    gap_ms: Annotated[float, Meta(gt=0, le=600_000)] = 10_000.0
    least_gap_ms: Annotated[float, Meta(gt=0, le=600_000)] = 1_000.0
    stream_upstream: bool = True
    failing_share: Share = 0.1
    failing_burst: Annotated[float, Meta(ge=1.0)] = 10.0
    same_offer_share: Share = 0.1
    same_offer_burst: Annotated[float, Meta(ge=1.0)] = 5.0
    hedge: bool = True
    hedge_share: Share = 0.05
    hedge_burst: Annotated[float, Meta(ge=1.0)] = 5.0
    max_busy_s: Annotated[float, Meta(gt=0)] = 60.0
