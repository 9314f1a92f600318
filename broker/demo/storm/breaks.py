"""The ways in which the cheapest seller is broken, one after another."""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

from broker.paper.faults import Fault, FaultSpec

Shows = Literal["failures", "full", "slow"]
"""By what a break is noticed: failed attempts (the circuit opens), calls turned away as full
(the offer is held), or nothing but time (the auction turns away)."""


class Break(Struct, frozen=True, kw_only=True):
    """One way to break a seller.

    `mid_stream` says that it may show only after output has gone out: then the app sees an error
    event in its stream, since no second seller's words may follow.
    """

    name: str
    fault: FaultSpec
    shows: Shows = "failures"
    mid_stream: bool = False


BREAKS: Final = (
    # Calls under way when the process dies break in mid-stream.
    Break(name="dead", fault=FaultSpec(kind=Fault.DIE), mid_stream=True),
    Break(name="refuse", fault=FaultSpec(kind=Fault.REFUSE), mid_stream=True),
    Break(name="hang", fault=FaultSpec(kind=Fault.HANG)),
    Break(name="hang_after_headers", fault=FaultSpec(kind=Fault.HANG_AFTER_HEADERS)),
    Break(name="stall", fault=FaultSpec(kind=Fault.STALL, after_chunks=2), mid_stream=True),
    Break(
        name="429_with_retry_after",
        fault=FaultSpec(kind=Fault.RATE_LIMIT, retry_after_s=1.0),
        shows="full",
    ),
    Break(name="429", fault=FaultSpec(kind=Fault.RATE_LIMIT), shows="full"),
    Break(name="500", fault=FaultSpec(kind=Fault.ERROR, status=500)),
    Break(name="error_in_200", fault=FaultSpec(kind=Fault.ERROR_BODY)),
    Break(name="truncated_json", fault=FaultSpec(kind=Fault.TRUNCATED_JSON), mid_stream=True),
    Break(name="wrong_content_type", fault=FaultSpec(kind=Fault.HTML)),
    Break(
        name="drip",
        fault=FaultSpec(kind=Fault.DRIP, after_chunks=2, every_s=0.2),
        mid_stream=True,
    ),
    Break(name="keepalive_only", fault=FaultSpec(kind=Fault.KEEPALIVE, every_s=0.1)),
    Break(name="10x_slow", fault=FaultSpec(kind=Fault.SLOW, factor=10.0), shows="slow"),
)


def named(names: list[str] | None) -> list[Break]:
    """The breaks of these names, all without any. Raises `KeyError`."""
    by_name = {b.name: b for b in BREAKS}
    return list(BREAKS) if names is None else [by_name[name] for name in names]
