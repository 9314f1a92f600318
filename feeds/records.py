"""The facts on the log: one Struct a fact, in one tagged union.

The tag `kind` is `name/version`. New fields get defaults and old ones keep their type, so old
readers ignore what they do not know and new readers understand old records; a change that
breaks this is a new version. Times are wall clock, µs since the epoch, UTC; money is whole
nano-dollars. No record ever holds a prompt or an answer, but `PromptRecord` a sealed one.

Every record names its writer (`gateway`, which is the writer's id, `boot` and `seq`), so that
a loss is a query and never a guess.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from msgspec import Meta, Struct, field

from bidding.asks import Ask
from bidding.estimators.seasons import HOURS, Season
from bidding.hearsay import Mute
from bidding.market import Catalogue, PriceList
from bidding.outcome import FailureClass, Outcome
from bidding.quote import Calibration, Position, Quote
from bidding.request import Sla
from bidding.skill import Skill

Source = Literal["gateway", "probe", "pushed", "app"]
FeedbackSource = Literal["user", "verifier", "judge", "app"]
# What 64 bits hold: neither numpy nor ClickHouse takes more, and both would wrap in silence.
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
TimestampUs = Annotated[int, Meta(ge=0, le=4_102_444_800_000_000)]


class Written(Struct, kw_only=True):
    """Who wrote a record: writer's id, a random number per start, and a running number."""

    gateway: str = ""
    boot: str = ""
    seq: Int64 = 0


class AttemptRecord(Written, tag_field="kind", tag="attempt/1", kw_only=True):
    """One call at one offer and how it ended (topic `market.attempts`, key offer).

    `n` counts the attempts of a decision from 1. `ttft_ms` is None when no token came,
    `waited_ms` is set for timeouts. `usage_estimated` marks tokens we counted ourselves.
    `pusher` names who told us of a call that was not ours (`source` is `pushed`).
    """

    attempt_id: str
    decision_id: str
    n: Int64
    offer: str
    provider: str
    model: str
    task: str
    tenant: str
    sla_class: str
    source: Source
    at_us: TimestampUs
    started_at_us: TimestampUs
    failure: FailureClass
    streaming: bool = False
    ttft_ms: float | None = None
    total_ms: float | None = None
    waited_ms: float | None = None
    input_tokens: Int64 = 0
    output_tokens: Int64 = 0
    cached_tokens: Int64 = 0
    usage_estimated: bool = False
    cost_nusd: Int64 = 0
    n_inflight: Int64 = 0
    http_status: Int64 = 0
    retry_after_s: float | None = None
    reason: str = ""
    hedge: bool = False
    trust: float = 1.0
    pusher: str = ""

    def outcome(self) -> Outcome:
        """The part that estimators fold."""
        return Outcome(
            offer=self.offer,
            at_us=self.at_us,
            failure=self.failure,
            ttft_ms=self.ttft_ms,
            total_ms=self.total_ms,
            waited_ms=self.waited_ms,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            cached_tokens=self.cached_tokens,
            cost_nusd=self.cost_nusd,
            n_inflight=self.n_inflight,
            trust=self.trust,
            task=self.task,
            pusher=(self.pusher or self.tenant or "unnamed") if self.source == "pushed" else "",
        )


class BidRecord(Struct, frozen=True, array_like=True):
    """One ranked bid of a decision, as the auction scored it."""

    offer: str
    score_nusd: float
    cost_nusd: float
    p_good: float
    p_on_time: float


class HandoffRecord(Struct, frozen=True, array_like=True):
    """A step of a session that another offer served than the step before: which decision, why
    (`gain`, `no_bid:REASON`, `failover:FAILURE`), what moving cost, and what it gained before
    that (None where the former offer had nothing to compare with); how many reasoning blocks of
    the history the new model could not be shown.
    """

    decision_id: str
    step: Int64
    source: str
    target: str
    why: str
    cost_nusd: float = 0.0
    gain_nusd: float | None = None
    n_dropped: Int64 = 0


class VerdictRecord(Struct, frozen=True, array_like=True):
    """An answer of attempt `n` that was checked: the check that it failed, or `passed`, or
    `unknown` where no verdict could be had; `score` is 1, 0 or what the app's webhook said.
    """

    n: Int64
    offer: str
    model: str
    check: str
    score: float
    took_ms: float
    cost_nusd: Int64


class DecisionRecord(Written, tag_field="kind", tag="decision/1", kw_only=True):
    """The flight record of one request, written at settlement (topic `market.decisions`, key task).

    What was asked (`sla` as JSON, sizes, needs, prompt features), what was decided (`ranked`,
    `no_bids` per reason, clearing price, propensity, everything needed to decide again: seed,
    params version, view), and what was delivered. `best_*` and `cheapest_*` are the bids of
    the offer with the highest P(good) and with the lowest cost, for counterfactuals.
    `on_time` is None when the request had no deadline. A request of a `session` (a name that says
    nothing) is its step `session_step`: `switch` is what the auction made of leaving its
    incumbent, as JSON, `handoff` that another offer served it in the end, and why, and
    `earlier_handoffs` those of the steps before. `cached_from` is the decision whose answer the
    response cache served again: then no auction was held. `verdicts` are those of answers that
    were checked before one was returned (`sla.verify`). `trimmed_*` is what was dropped of a
    conversation that fitted no offer, where the key lets it be shortened. `arm` names the trial of
    params the request was part of. `shadow_*` is what `shadow_version` of the params would have
    bought; 0 when none was being tried in the shadow.
    """

    decision_id: str
    at_us: TimestampUs
    task: str
    tenant: str
    sla_class: str
    sla: str
    input_tokens: Int64
    max_output_tokens: Int64 | None
    needs: Int64
    candidates: list[str] | None
    features: list[float]
    incumbent: str | None
    incumbent_cached_tokens: Int64
    reserve_nusd: float | None
    streaming: bool
    seed: int
    policy: str
    params_version: Int64
    view_number: Int64
    winner: str | None
    ranked: list[BidRecord]
    n_bids: Int64
    no_bids: dict[str, Int64]
    clearing_price_nusd: float | None
    propensity: float | None
    feasible: bool
    quality_price_nusd: float
    punctuality_price_nusd: float
    best_offer: str | None = None
    best_cost_nusd: float | None = None
    cheapest_offer: str | None = None
    cheapest_cost_nusd: float | None = None
    target_quality: float | None = None
    target_on_time: float | None = None
    only: bool = False
    delivered_offer: str | None = None
    delivered_model: str | None = None
    p_good: float | None = None
    p_on_time: float | None = None
    n_attempts: Int64 = 0
    failure: FailureClass | None = None
    ttft_ms: float | None = None
    total_ms: float | None = None
    on_time: bool | None = None
    input_tokens_billed: Int64 = 0
    output_tokens: Int64 = 0
    cost_nusd: Int64 = 0
    overhead_us: float | None = None
    arm: str = ""
    session: str = ""
    incumbent_blocks: Int64 = 0
    money_price: float = 0.0
    shadow_version: Int64 = 0
    shadow_winner: str | None = None
    shadow_cost_nusd: float | None = None
    shadow_p_good: float | None = None
    shadow_p_on_time: float | None = None
    session_step: Int64 = 0
    switch: str = ""
    handoff: str = ""
    handoff_dropped: Int64 = 0
    earlier_handoffs: list[HandoffRecord] = field(default_factory=list)
    cached_from: str = ""
    verdicts: list[VerdictRecord] = field(default_factory=list)
    trimmed_messages: Int64 = 0
    trimmed_tokens: Int64 = 0


class FeedbackRecord(Written, tag_field="kind", tag="feedback/1", kw_only=True):
    """A quality score of a decision, completed by the gateway so that learners join nothing
    (topic `market.feedback`, key task). `quality` is in 0..1; `propensity` is the decision's.
    """

    feedback_id: str
    decision_id: str
    at_us: TimestampUs
    task: str
    tenant: str
    sla_class: str
    offer: str
    model: str
    quality: Annotated[float, Meta(ge=0.0, le=1.0)]
    source: FeedbackSource
    features: list[float] = field(default_factory=list)
    p_good: float | None = None
    propensity: float | None = None
    labelled_share: float = 1.0
    weight: float = 1.0


class QuoteRecord(Written, tag_field="kind", tag="quote/1", kw_only=True):
    """An offer's quote (topic `market.quotes`, key offer, compacted)."""

    quote: Quote
    at_us: TimestampUs


class CalibrationRecord(Written, tag_field="kind", tag="calibration/1", kw_only=True):
    """How well latency promises hold (topic `market.quotes`, key `*` and the estimator's id)."""

    estimator: str
    calibration: Calibration
    at_us: TimestampUs


class PriceRecord(Written, tag_field="kind", tag="price/1", kw_only=True):
    """A list price as a source reports it (topic `market.prices`, key offer, compacted).

    `old` is what was in force before; `quarantined` holds it back until confirmed, with why;
    `released` says that a price held back before no longer is: believed, or taken back.
    """

    offer: str
    at_us: TimestampUs
    prices: PriceList
    source: str
    old: PriceList | None = None
    effective_at_us: TimestampUs = 0
    quarantined: str = ""
    released: bool = False


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
    and what we saw there say why; `by` is whoever decided.
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


class PromptRecord(Written, tag_field="kind", tag="prompt/1", kw_only=True):
    """A request as its app sent it, sealed (topic `market.prompts`, key decision).

    Only of tenants whose operator chose to keep them. `body` is ciphertext, see `broker.vault`.
    """

    decision_id: str
    tenant: str
    at_us: TimestampUs
    expires_at_us: TimestampUs
    body: str
    session: str = ""


class ParamsRecord(Written, tag_field="kind", tag="params/1", kw_only=True):
    """A version of the live parameters (topic `control.params`, key scope, compacted)."""

    scope: str
    version: Int64
    at_us: TimestampUs
    by: str
    why: str
    params: str


_Usd = Annotated[float, Meta(ge=0.0, le=1e9)]
_Limit = Annotated[int, Meta(gt=0, le=10**12)]


class KeyPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a key may do and asks for by default; None or empty: no limit of its own.

    `sla` fills in what requests leave open; its compliance rules bind whatever a request says.
    `models` are the models, offers or providers it may buy. Budgets run by UTC day and month,
    limits over any 60 seconds; `limit_tpm` counts tokens in and out. `cache_age_s` turns the
    exact response cache on for the key, `cache_any` also for requests that are not
    deterministic. `trim` lets conversations that fit nowhere be shortened, oldest turns first.
    `source` names whoever pushes telemetry with the key (empty: its tenant), and `trust` is what
    an event of theirs weighs against one of our own. `public_key` (Ed25519, base64) is what the
    spot asks of a seller's key are checked with; it may ask for the offers in `models`.
    """

    sla: Sla | None = None
    models: tuple[str, ...] = ()
    budget_day_usd: _Usd | None = None
    budget_month_usd: _Usd | None = None
    limit_rpm: _Limit | None = None
    limit_tpm: _Limit | None = None
    cache_age_s: Annotated[float, Meta(gt=0, le=31_536_000)] | None = None
    cache_any: bool = False
    trim: bool = False
    source: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{0,64}$")] = ""
    trust: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.3
    public_key: Annotated[str, Meta(pattern=r"^([A-Za-z0-9+/]{43}=)?$")] = ""


class KeyRecord(Written, tag_field="kind", tag="key/1", kw_only=True):
    """An API key, as its SHA-256 only (topic `control.keys`, key id, compacted).

    After a rotation `old_digest` is good as well, until `old_until_us`.
    """

    key_id: str
    digest: str
    tenant: str
    scopes: list[str]
    at_us: TimestampUs
    by: str
    revoked: bool = False
    expires_at_us: TimestampUs | None = None
    label: str = ""
    policy: KeyPolicy = field(default_factory=KeyPolicy)
    old_digest: str = ""
    old_until_us: TimestampUs = 0


class CatalogueRecord(Written, tag_field="kind", tag="catalogue/1", kw_only=True):
    """The whole catalogue, as of now (topic `control.catalogue`, key `catalogue`, compacted).

    With a `digest` it is what a gateway started with, kept under that digest for replays.
    """

    at_us: TimestampUs
    catalogue: Catalogue
    digest: str = ""


class DeadRecord(Written, tag_field="kind", tag="dead/1", kw_only=True):
    """Bytes that could not be read or stored, and why (topic `market.dead`, key source topic)."""

    at_us: TimestampUs
    topic: str
    partition: Int64
    offset: Int64
    reason: str
    payload: bytes


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


Record = (
    AttemptRecord
    | DecisionRecord
    | FeedbackRecord
    | QuoteRecord
    | CalibrationRecord
    | SkillRecord
    | PriceRecord
    | StatusRecord
    | AskRecord
    | NoticeRecord
    | SourceRecord
    | SeasonRecord
    | FeedRecord
    | ViewRecord
    | PromptRecord
    | ParamsRecord
    | KeyRecord
    | CatalogueRecord
    | DeadRecord
)
