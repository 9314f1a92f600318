"""The SLA as the app states it, and the request as the auction sees it.

`Sla` is decoded strictly from the app's JSON: an unknown field or a wrong type is refused with
its path. `BidRequest` is what is left once tenant, task, size and needs are known; it never
holds the prompt itself.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct, field

from bidding.market import Capability

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
PositiveMs = Annotated[float, Meta(gt=0.0, le=3_600_000.0)]
Usd = Annotated[float, Meta(ge=0.0, le=1_000_000.0)]
MAX_MONEY_PRICE: Final = 1e6
ARM_MARK: Final = "~"
"""Between an SLA class's name and the trial of params it is part of."""
Label = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._:/@-]+$")]


class Compliance(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hard rules, checked before price and never traded off.

    `regions` are jurisdictions the data may go to ("eu", "us"); empty means anywhere.
    `allow` and `deny` name providers, models or offers.
    """

    regions: tuple[Label, ...] = ()
    zdr: bool = False
    no_training: bool = False
    pii: bool = False
    allow: tuple[Label, ...] = ()
    deny: tuple[Label, ...] = ()


class Verify(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Checks an answer must pass before it is returned; one that fails is bought again elsewhere.

    Attributes
    ----------
    json_schema : the answer is JSON that fits this schema; True: the request's own
    tools : calls name a tool on offer, with arguments that fit its schema
    regex : the answer contains a match (RE2's syntax)
    not_refused : the model did not decline
    webhook : an address that the operator allows; it is sent the answer and says what it is worth
    most_answers : how many may be bought
    on_fail : what to do when none passes: return the last one, marked, or answer 422
    weight : what a verdict weighs as a quality score, where the checks' own weight is not right
    """

    json_schema: dict[str, Any] | bool = False
    tools: bool = False
    regex: Annotated[str, Meta(min_length=1, max_length=4096)] | None = None
    not_refused: bool = False
    webhook: Annotated[str, Meta(min_length=1, max_length=2048)] | None = None
    most_answers: Annotated[int, Meta(ge=1, le=8)] = 3
    on_fail: Literal["return", "reject"] = "return"
    weight: Share | None = None


class Budget(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an app's requests may cost together in every hour, day or month (UTC).

    All requests of a key that state the same `name` and `period` spend from it, each held to the
    `usd` that it states itself.
    """

    usd: Annotated[float, Meta(gt=0.0, le=1_000_000.0)]
    period: Literal["hour", "day", "month"]
    name: Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._:/@-]+$")] = (
        "default"
    )


CHECKED: Final = Verify()
"""What is left of an SLA's checks once they are out of the way: that there were some."""


class Sla(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an app asks for; every field is optional.

    `quality` is the promised average share of good answers of the request's SLA class (with
    `strict`: a floor for this very request). `ttft_ms` and `latency_ms` are deadlines to be
    met with probability `percentile`. `value_usd` states what a good answer is worth. With
    `resume` a stream of plain text that breaks off is continued by the runner-up. `verify` are
    checks of the answer; a stream is then held back until it has passed. `budget` is money of the
    app's own for a period, beside whatever its key may spend.
    """

    quality: Share | None = None
    strict: bool = False
    value_usd: Usd | None = None
    ttft_ms: PositiveMs | None = None
    latency_ms: PositiveMs | None = None
    percentile: Annotated[float, Meta(gt=0.0, lt=1.0)] = 0.95
    max_cost_usd: Usd | None = None
    task: Label | None = None
    session: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    compliance: Compliance = field(default_factory=Compliance)
    on_miss: Literal["best_effort", "reject"] = "best_effort"
    resume: bool = False
    explain: bool = False
    verify: Verify | None = None
    budget: Budget | None = None

    def class_key(self, tenant: str, task: str) -> str:
        """Name of the SLA class whose average this request belongs to: tenant × task × targets.

        Examples
        --------
        >>> Sla(quality=0.95, ttft_ms=1000).class_key("acme", "math")
        'acme|math|q0.95|t1000@0.95'
        """
        parts = [tenant, task]
        if self.quality is not None:
            parts.append(f"q{self.quality:g}")
        if self.ttft_ms is not None:
            parts.append(f"t{self.ttft_ms:g}@{self.percentile:g}")
        if self.latency_ms is not None:
            parts.append(f"l{self.latency_ms:g}@{self.percentile:g}")
        if self.verify is not None:
            parts.append("v")
        return "|".join(parts)


class BidRequest(Struct, frozen=True, kw_only=True):
    """One request as the auction sees it.

    Attributes
    ----------
    input_tokens : int
        Estimated length of the prompt, tokens.
    max_output_tokens : int or None
        Cap the app set on the answer, tokens.
    needs : int
        Mask of `Capability` bits the request cannot do without.
    candidates : tuple of str or None
        Model or offer ids the app limits itself to; None means the whole market.
    features : tuple of float
        Prompt features for the quality model (never the prompt); may be empty.
    incumbent : str or None
        Offer that served this session last; `incumbent_cached_tokens` of the prompt are warm
        there, and `incumbent_blocks` of the history (reasoning, tool calls in a seller's own
        form) would be rewritten or lost with a model of another family.
    reserve_nusd : float
        Most this request may be expected to cost, from the app's cap and the tenant's budget.
    money_price : float
        κ, the dual price of the buyer's budget: a dollar counts as 1 + κ dollars against what
        an answer is worth. 0 where money is not short.
    arm : str
        Which trial of params the request is part of; empty for none. Classes of a trial have
        prices of their own, so that a trial cannot move those of everybody else.
    """

    tenant: str
    task: str
    sla: Sla
    input_tokens: int
    max_output_tokens: int | None = None
    needs: int = int(Capability(0))
    candidates: tuple[str, ...] | None = None
    features: tuple[float, ...] = ()
    incumbent: str | None = None
    incumbent_cached_tokens: int = 0
    reserve_nusd: float = math.inf
    streaming: bool = False
    incumbent_blocks: int = 0
    money_price: float = 0.0
    arm: str = ""

    @property
    def class_key(self) -> str:
        key = self.sla.class_key(self.tenant, self.task)
        return f"{key}{ARM_MARK}{self.arm}" if self.arm else key

    @property
    def worth_scale(self) -> float:
        """1 / (1 + κ): what a dollar's worth of answer may cost. Out of bounds, κ counts as 0."""
        kappa = self.money_price
        return 1.0 / (1.0 + kappa) if 0.0 < kappa <= MAX_MONEY_PRICE else 1.0


def decode_sla(raw: bytes | msgspec.Raw) -> Sla:
    """Strictly decode an SLA object. Raises `msgspec.ValidationError` naming the path."""
    return msgspec.json.decode(raw, type=Sla)
