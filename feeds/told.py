"""A call as others tell of it: one line of pushed telemetry, whoever writes or reads it."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from bidding.outcome import FailureClass

Milliseconds = Annotated[float, Meta(ge=0.0, le=86_400_000.0)]
Tokens = Annotated[int, Meta(ge=0, le=1_000_000_000)]


class TelemetryLine(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """One call: `error` is a failure class, absent when it went well; times are milliseconds.

    What was called is an `offer` of the broker's, or a `provider` and `model` by any of their
    usual names. `at_us` is the call's end, µs since the epoch (absent: now). `waited_ms` is how
    long a timeout waited in vain.
    """

    offer: Annotated[str, Meta(max_length=256)] = ""
    provider: Annotated[str, Meta(max_length=128)] = ""
    model: Annotated[str, Meta(max_length=256)] = ""
    at_us: Annotated[int, Meta(ge=0, le=4_102_444_800_000_000)] | None = None
    error: FailureClass = FailureClass.OK
    ttft_ms: Milliseconds | None = None
    latency_ms: Milliseconds | None = None
    waited_ms: Milliseconds | None = None
    input_tokens: Tokens = 0
    output_tokens: Tokens = 0
    cached_tokens: Tokens = 0
    streaming: bool = False
    http_status: Annotated[int, Meta(ge=0, le=999)] = 0
    task: Annotated[str, Meta(max_length=64)] = ""


class Told(Struct, kw_only=True):
    """What a body tells of: calls, what was refused and why. What is no call is passed over."""

    lines: list[TelemetryLine] = []
    n_rejected: int = 0
    why: str = ""
