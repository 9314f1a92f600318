"""A decided request on its way to sellers, and what became of it so far."""

from __future__ import annotations

from msgspec import Struct, field

from bidding.decision import Decision
from bidding.market import PriceList
from bidding.waiting import Aim
from broker.tracing import RequestTrace
from broker.wire.neutral import NeutralRequest
from feeds.records import AttemptRecord, Source


class Order(Struct, kw_only=True):
    """A decided request on its way to sellers.

    Attributes
    ----------
    deadline_ns : int
        Monotonic; ends the request whatever happens.
    ttft_target_ns, latency_target_ns : int or None
        Monotonic; the SLA's, which may be missed: they steer timeouts and fallback.
    is_promised : bool
        The app has stated the latency target; else it is how long we would wait for an answer.
    input_tokens, output_tokens : int, float
        Our estimate of the prompt, and the expected length of the answer.
    history_family : str or None
        Family of models that wrote the reasoning in the history; others are not shown it.
    prices : dict of str to PriceList
        What each offer that bid asked when it was decided; what is owed goes by it.
    most_tokens : int
        Prompt and longest answer: what is set aside of a seller's spot ask.
    attempts : list of AttemptRecord
        Filled as attempts end, whatever becomes of the request.
    retry_paid : bool
        An attempt was given up for another; where that call is a retry, it is counted already.
    rejected : list of str
        Ids of attempts whose answer came whole and failed its check.
    """

    decision_id: str
    decision: Decision
    request: NeutralRequest
    tenant: str
    task: str
    sla_class: str
    started_ns: int
    deadline_ns: int
    input_tokens: int
    output_tokens: float = 256.0
    ttft_target_ns: int | None = None
    latency_target_ns: int | None = None
    is_promised: bool = True
    source: Source = "gateway"
    hedge: bool = False
    history_family: str | None = None
    attempts: list[AttemptRecord] = field(default_factory=list)
    trace: RequestTrace | None = None
    rejected: list[str] = field(default_factory=list)
    prices: dict[str, PriceList] = field(default_factory=dict)
    most_tokens: int = 0
    retry_paid: bool = False

    def aim(self, now_ns: int) -> Aim:
        """What is left of its times at `now_ns`."""
        ttft, latency = self.ttft_target_ns, self.latency_target_ns
        return Aim(
            hard_ms=(self.deadline_ns - now_ns) * 1e-6,
            ttft_ms=None if ttft is None else (ttft - now_ns) * 1e-6,
            latency_ms=None if latency is None else (latency - now_ns) * 1e-6,
            n_tokens=self.output_tokens,
        )
