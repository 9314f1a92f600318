"""The facts on the log, and those that requests leave: one Struct a fact.

Facts about offers are in `feeds.market_records`, what operators set in `feeds.control_records`;
`feeds.codec` has all of them as one tagged union.

The tag `kind` is `name/version`. New fields get defaults and old ones keep their type, so old
readers ignore what they do not know and new readers understand old records; a change that
breaks this is a new version. Times are wall clock, µs since the epoch, UTC; money is whole
nano-dollars. No record ever holds a prompt or an answer, but `PromptRecord` a sealed one.

Every record names its writer (`gateway`, which is the writer's id, `boot` and `seq`), so that
a loss is a query and never a guess.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from bidding.outcome import FailureClass, Outcome

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
    `pusher` names who told us of a call that was not ours (`source` is `pushed`). `unseen_*` is
    what a seller may have written and billed beyond what stands here, after we had hung up: an
    estimate, no part of `cost_nusd`.
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
    unseen_tokens: Int64 = 0
    unseen_nusd: Int64 = 0

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


class BudgetRecord(Struct, frozen=True, kw_only=True):
    """The tightest budget that a request was paid from.

    `name` is the app's own (`sla.budget`), empty for one of the key's; `period` is like
    `day 2026-11-25`. `left_nusd` is what it held beside the `set_aside_nusd` for this request (0:
    too little, refused); where it was tight the answer was held to `most_tokens`.
    """

    name: str
    period: str
    cap_nusd: Int64
    left_nusd: Int64
    set_aside_nusd: Int64
    most_tokens: Int64 | None = None


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
    params the request was part of. `shadow_*` is what other params (`shadow_version`) would have
    bought on the same view: those tried in the shadow, or, of a request in a canary, those in
    force. They are empty where that was not computed. `budget` is the tightest one that the request
    was paid from, as JSON (`BudgetRecord`); empty without one.
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
    budget: str = ""


class FeedbackRecord(Written, tag_field="kind", tag="feedback/1", kw_only=True):
    """A quality score of a decision, completed by the gateway so that learners join nothing
    (topic `market.feedback`, key task). `quality` is in 0..1; `propensity` is the decision's.
    `params_version` is the one the answer was bought under, -1 where that is not known or the
    answer was not bought and returned: decided only, from the cache, caught by a check.
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
    params_version: Int64 = -1


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


class DeadRecord(Written, tag_field="kind", tag="dead/1", kw_only=True):
    """Bytes that could not be read or stored, and why (topic `market.dead`, key source topic)."""

    at_us: TimestampUs
    topic: str
    partition: Int64
    offset: Int64
    reason: str
    payload: bytes
