"""Kinds of request: those for which gates, probabilities and expected costs are the same.

Same SLA, task, needs and size class. A kind is the key of a slate, and holds all that a slate
is made of beside the view, so that one can be made before anybody asks for it.
"""

from __future__ import annotations

from typing import NamedTuple

from bidding.gates import GateKey
from bidding.request import ARM_MARK, BidRequest, Sla
from bidding.view import MarketView

_TYPICAL_TOKENS = 500.0

KindKey = tuple[Sla, str, str, int, tuple[str, ...] | None, int | None, int, int, str, int]
RulesKey = tuple[float | None, float | None, int]
OnTimeKey = tuple[float | None, float | None, int, float, str, int | None]


class Kind(NamedTuple):
    """A kind of request under one version of the params; equal to its `KindKey`."""

    sla: Sla
    tenant: str
    task: str
    needs: int
    candidates: tuple[str, ...] | None
    max_output_tokens: int | None
    size: int
    band: int
    arm: str
    params_version: int

    @property
    def class_key(self) -> str:
        key = self.sla.class_key(self.tenant, self.task)
        return f"{key}{ARM_MARK}{self.arm}" if self.arm else key

    @property
    def typical_tokens(self) -> float:
        """The prompt that stands for all of a kind: the octave's middle."""
        if self.size < 0:
            return float(-self.size)
        return 2.0 ** (self.size - 0.5) if self.size else _TYPICAL_TOKENS

    @property
    def has_floors(self) -> bool:
        """Whether the request holds quality and deadlines for itself, not on average."""
        return self.sla.strict or self.sla.on_miss == "reject"

    def gate_key(self, smallest_max_output: float) -> GateKey:
        """What the gates' rules look at; sizes only where some offer's limit is near."""
        wanted = self.max_output_tokens or 0
        near = self.size < 0
        return (
            self.sla.compliance,
            self.needs,
            self.candidates,
            -self.size if near else 0,
            wanted if near or wanted > smallest_max_output else 0,
        )

    def on_time_key(self, optimism_sd: float, task: str) -> OnTimeKey:
        """What P(on time) depends on; the answer's length only where it must be complete."""
        sla = self.sla
        whole = sla.latency_ms is not None
        return (
            sla.ttft_ms,
            sla.latency_ms,
            self.size,
            optimism_sd,
            task if whole else "",
            self.max_output_tokens if whole else None,
        )


def size_class(input_tokens: int) -> int:
    """Octave of a prompt's length; TTFT barely differs within one.

    Examples
    --------
    >>> size_class(1000) == size_class(513), size_class(1000) == size_class(1500)
    (True, False)
    """
    return input_tokens.bit_length()


def kind_key(view: MarketView, request: BidRequest, params_version: int) -> KindKey:
    """The key of the request's kind.

    Of the prompt's length a slate depends on: its octave where there is a deadline, nothing
    where there is none, all of it (negative) where a context window might end within the octave;
    and the band of prices, where some offer has tiers.
    """
    sla = request.sla
    tokens = max(request.input_tokens, 0)
    cap = request.max_output_tokens
    size = tokens.bit_length()
    if (1 << size) + (cap or 0) > view.offers.smallest_context:
        size = -(tokens or 1)
    elif sla.ttft_ms is None and sla.latency_ms is None:
        size = 0
    return (
        sla,
        request.tenant,
        request.task,
        request.needs,
        request.candidates,
        cap,
        size,
        view.prices.band(tokens) if view.prices.edges else 0,
        request.arm,
        params_version,
    )


def on_time_target(sla: Sla) -> float | None:
    """The promised share on time; None without a deadline."""
    return None if sla.ttft_ms is None and sla.latency_ms is None else sla.percentile
