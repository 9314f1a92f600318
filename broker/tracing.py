"""What is traced of a request: the seam between the request's line and OpenTelemetry.

The line, and each call at a seller, tell a trace what they know as they go, if there is one; what
becomes of it is in `otel`, which is imported only where an operator named an endpoint. Without
one, a request pays for one look at an attribute that is None.

Nothing here, and nothing in `otel`, ever sees a prompt or an answer: ids, names, counts, times.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Annotated, Protocol

from msgspec import Meta, Struct

from broker.providers.base import Seat
from broker.wire.neutral import NeutralRequest
from feeds.records import AttemptRecord, DecisionRecord


class OtelSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where traces and metrics go, over OTLP/HTTP; `endpoint` empty: nowhere.

    Attributes
    ----------
    endpoint : base URL; `/v1/traces` and `/v1/metrics` are added
    headers : sent with every export, for a collector that asks for a key
    traces_share : of the traces that begin here; one that comes with an app's is its to decide
    propagate : whether sellers are told the trace, by the header `traceparent`
    """

    endpoint: Annotated[str, Meta(pattern=r"^(https?://.+)?$")] = ""
    headers: dict[str, str] = {}
    service_name: str = "model-market-broker"
    traces_share: Annotated[float, Meta(ge=0, le=1)] = 1.0
    metrics_interval_s: Annotated[float, Meta(gt=0, le=3600)] = 15.0
    timeout_s: Annotated[float, Meta(gt=0, le=60)] = 5.0
    propagate: bool = True


class CallTrace(Protocol):
    """One call at one seller."""

    def inject(self, headers: dict[str, str]) -> None:
        """Put the trace into the call's headers (W3C Trace Context)."""
        ...

    def end(self, record: AttemptRecord) -> None:
        """The call has ended."""
        ...


class RequestTrace(Protocol):
    """One request of an app."""

    def decided(self, request: NeutralRequest, record: DecisionRecord, took_ns: int) -> None:
        """What was asked and decided, `took_ns` after the request's arrival."""
        ...

    def call(self, seat: Seat, n: int, *, hedge: bool) -> CallTrace:
        """A call begins."""
        ...

    def settled(self, record: DecisionRecord) -> None:
        """What was delivered."""
        ...

    def answered(self, status: int) -> None:
        """The answer's status; an error that is raised instead speaks for itself."""
        ...


class Tracing(Protocol):
    """The way out."""

    def request(
        self, headers: Mapping[str, str], route: str
    ) -> AbstractContextManager[RequestTrace]:
        """A request has arrived, with the app's trace in its headers, if it has one."""
        ...

    def close(self) -> None:
        """Send what is owed, within the timeout. Blocks."""
        ...
