"""The facts about offers: what the market believes of them, what sellers and feeds say of them.

One Struct a fact, as `feeds.records` has it of requests.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from msgspec import Meta, field

from bidding.asks import Ask
from bidding.estimators.seasons import HOURS, Season
from bidding.hearsay import Mute
from bidding.market import PriceList
from bidding.quote import Calibration, Position, Quote
from bidding.skill import Skill
from feeds.records import Int64, TimestampUs, Written


class QuoteRecord(Written, tag_field="kind", tag="quote/1", kw_only=True):
    """An offer's quote (topic `market.quotes`, key offer, compacted)."""

    quote: Quote
    at_us: TimestampUs


class CalibrationRecord(Written, tag_field="kind", tag="calibration/1", kw_only=True):
    """How well latency promises hold (topic `market.quotes`, key `*` and the estimator's id)."""

    estimator: str
    calibration: Calibration
    at_us: TimestampUs


class SkillRecord(Written, tag_field="kind", tag="skill/1", kw_only=True):
    """A task's skills and class prices (topic `market.skills`, key task, compacted).

    `skill` is what gateways read; `state` what the estimators resume from, `classes` the same
    for its class prices, `*models` the names behind the rows of the states.
    """

    task: str
    at_us: TimestampUs
    skill: Skill
    positions: list[Position]
    state: dict[str, list[float]] = field(default_factory=dict)
    classes: dict[str, list[float]] = field(default_factory=dict)
    models: list[str] = field(default_factory=list)
    quality_models: list[str] = field(default_factory=list)


class PriceRecord(Written, tag_field="kind", tag="price/1", kw_only=True):
    """A list price as a source reports it (topic `market.prices`, key offer, compacted).

    `old` is what was in force before; `quarantined` holds it back until confirmed, with why;
    `released` says that a price held back before no longer is: believed, or taken back.
    `withdrawn`: `source` says that the offer is sold no longer; `prices` are its last.
    """

    offer: str
    at_us: TimestampUs
    prices: PriceList
    source: str
    old: PriceList | None = None
    effective_at_us: TimestampUs = 0
    quarantined: str = ""
    released: bool = False
    withdrawn: bool = False


class AskRecord(Written, tag_field="kind", tag="ask/1", kw_only=True):
    """What a seller asks for one of its offers, for a while (topic `market.prices`, key `ask:` and
    the offer). `signed` is the body it sent and `signature` its own over it, in base64.
    """

    ask_id: str
    offer: str
    at_us: TimestampUs
    prices: PriceList
    from_us: TimestampUs
    until_us: TimestampUs
    seller: str
    key_id: str
    signature: str
    signed: str
    capacity_tokens: Int64 | None = None
    source: str = "ask"

    def ask(self) -> Ask:
        """As the book takes it."""
        return Ask(
            prices=self.prices,
            until_us=self.until_us,
            from_us=self.from_us,
            capacity_tokens=self.capacity_tokens,
        )


class NoticeRecord(Written, tag_field="kind", tag="notice/1", kw_only=True):
    """What became of a seller's ask since the last notice (topic `market.notices`, key offer).

    `n` auctions were `won` or `lost` for `reason`: `won`, `outbid`, or why it could not bid.
    `clearing_price_nusd` is the mean of what it could have charged and still won, or of what the
    winner cost; `short_nusd` by how much its bids lost, where they were ranked.
    """

    ask_id: str
    offer: str
    seller: str
    at_us: TimestampUs
    result: Literal["won", "lost"]
    reason: str
    n: Int64
    clearing_price_nusd: float | None = None
    short_nusd: float | None = None


class StatusRecord(Written, tag_field="kind", tag="status/1", kw_only=True):
    """What a provider says of itself (topic `market.status`, key provider and incident, compacted).

    `scope` says whether all of the provider's offers are concerned, those of `models`, or none,
    in `regions` only where any are told. `told_us` is when the page first told; `at_us` when we
    heard this word of it on `feed`.
    """

    provider: str
    at_us: TimestampUs
    component: str
    severity: Literal["none", "minor", "major", "critical", "maintenance"]
    state: str
    since_us: TimestampUs
    incident_id: str = ""
    title: str = ""
    models: list[str] = field(default_factory=list)
    scope: Literal["provider", "models", "none"] = "provider"
    regions: list[str] = field(default_factory=list)
    feed: str = ""
    told_us: TimestampUs = 0
    until_us: TimestampUs = 0


class FeedRecord(Written, tag_field="kind", tag="feed/1", kw_only=True):
    """How a feed is doing (topic `market.feeds`, key feed, compacted).

    `good_at_us` is when its document was last understood, or said to be unchanged; 0: never.
    `refused` counts what the way out would not take, by kind; `error` is the newest, empty when
    all is well. `n_items` are incidents going on, or offers priced; `n_held` prices in quarantine.
    """

    feed: str
    of: Literal["status", "prices"]
    provider: str
    format: str
    at_us: TimestampUs
    good_at_us: TimestampUs
    changed_at_us: TimestampUs
    poll_s: float
    n_polls: Int64 = 0
    n_unchanged: Int64 = 0
    n_bad: Int64 = 0
    refused: dict[str, Int64] = field(default_factory=dict)
    error: str = ""
    n_items: Int64 = 0
    n_held: Int64 = 0


class SourceRecord(Written, tag_field="kind", tag="source/1", kw_only=True):
    """A source of telemetry is not heard from `at_us` until `until_us` (topic `market.sources`,
    key source, compacted); if that is not later, it is heard again. What it claimed of `offer`
    and what we saw there say why, or whoever decided (`by`) says it in words.
    """

    source: str
    at_us: TimestampUs
    until_us: TimestampUs
    by: str = ""
    offer: str = ""
    n_conflicts: float = 0.0
    claimed_fail_share: float = 0.0
    own_fail_share: float = 0.0
    claimed_ttft_ms: float = 0.0
    own_ttft_ms: float = 0.0
    why: str = ""

    def mute(self) -> Mute:
        """As the estimators take it."""
        return Mute(source=self.source, at_us=self.at_us, until_us=self.until_us, offer=self.offer)


_Week = Annotated[list[float], Meta(min_length=168, max_length=168)]


class SeasonRecord(Written, tag_field="kind", tag="season/1", kw_only=True):
    """Multipliers of an offer's TTFT and failure odds by hour of the week, UTC, Monday 00:00
    first (topic `market.seasons`, key offer, compacted), and how much stands behind them.
    """

    offer: str
    at_us: TimestampUs
    latency: _Week
    errors: _Week
    n_calls: float = 0.0
    n_weeks: float = 0.0

    def seasons(self) -> tuple[Season, Season]:
        """Of latency and of errors, as the book takes them."""
        none = np.zeros(HOURS)
        return Season(np.array(self.latency), none), Season(np.array(self.errors), none)


class ViewRecord(Written, tag_field="kind", tag="view/1", kw_only=True):
    """What a gateway's view was made of (topic `market.views`, key gateway), if a decision read it.

    A change on the view numbered `base` of the same gateway and boot; 0: on nothing, it is all
    there. `applied` holds the offsets of the records that moved the book, by
    "log|topic|partition"; `overlay` the gateway's own columns, as row, value, row, value ….
    `catalogue` is the digest of the catalogue; `defaults` the params that this build starts
    with (both where `base` is 0).
    """

    view_number: Int64
    at_us: TimestampUs
    base: Int64 = 0
    applied: dict[str, list[Int64]] = field(default_factory=dict)
    overlay: dict[str, list[float]] = field(default_factory=dict)
    catalogue: str = ""
    defaults: str = ""
