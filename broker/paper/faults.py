"""Every way a seller can fail, by name, and which of them are on.

A fault concerns a provider or one of its offers, and hits a `share` of calls. `die`, `refuse`
and `black_hole` concern the port, so they are a provider's only. Clearing all faults revives.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Annotated, Literal

from msgspec import Meta, Struct

from broker.paper.errors import BadControl

Factor = Annotated[float, Meta(ge=0.0, le=10_000.0)]
UsageLie = Literal["zero", "negative", "tenfold", "missing", "strings"]


class Fault(enum.StrEnum):
    """Names of faults, as the control port takes them."""

    SLOW = "slow"
    DEGRADE = "degrade"
    REPRICE = "reprice"
    WITHDRAW = "withdraw"
    LYING_USAGE = "lying_usage"
    BROKEN_JSON = "broken_json"
    DIE = "die"
    REFUSE = "refuse"
    BLACK_HOLE = "black_hole"
    ERROR = "error"
    RATE_LIMIT = "rate_limit"
    QUOTA = "quota"
    HANG = "hang"
    HANG_AFTER_HEADERS = "hang_after_headers"
    STALL = "stall"
    DRIP = "drip"
    KEEPALIVE = "keepalive"
    IN_BAND_ERROR = "in_band_error"
    ERROR_BODY = "error_body"
    EMPTY_CHOICES = "empty_choices"
    TRUNCATED_JSON = "truncated_json"
    NO_FINISH = "no_finish"
    HTML = "html"
    BAD_BYTES = "bad_bytes"
    GIANT_LINE = "giant_line"
    GZIP_BOMB = "gzip_bomb"
    DUPLICATE_CHUNKS = "duplicate_chunks"
    REORDER_CHUNKS = "reorder_chunks"
    TWO_FINISHES = "two_finishes"


MODIFIERS = frozenset(
    {
        Fault.SLOW,
        Fault.DEGRADE,
        Fault.REPRICE,
        Fault.WITHDRAW,
        Fault.LYING_USAGE,
        Fault.QUOTA,
        Fault.BROKEN_JSON,
    }
)
PORT_FAULTS = frozenset({Fault.DIE, Fault.REFUSE, Fault.BLACK_HOLE})


class FaultSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fault and how badly.

    Attributes
    ----------
    share : share of calls it hits.
    factor : slow: latency × this; giant_line and gzip_bomb: mebibytes sent.
    input_factor, output_factor : reprice: input (and cache) and output prices × this.
    status : error: the HTTP status.
    retry_after_s : rate_limit: value of `Retry-After`; None sends none.
    per_minute : rate_limit: calls a minute that are still served.
    per_window, window_s : quota: calls served in each window of so many seconds; the headers of
        every answer tell what is left.
    points : degrade: percentage points fewer right answers.
    after_chunks : stall, drip: how many content chunks come first.
    every_s : drip, keepalive: seconds between bytes or comments.
    lie : lying_usage: what is wrong with it.
    """

    kind: Fault
    share: Annotated[float, Meta(ge=0.0, le=1.0)] = 1.0
    factor: Factor = 1.0
    input_factor: Factor = 1.0
    output_factor: Factor = 1.0
    status: Annotated[int, Meta(ge=400, le=599)] = 503
    retry_after_s: Annotated[float, Meta(ge=0.0, le=3600.0)] | None = None
    per_minute: Annotated[int, Meta(ge=0)] = 0
    per_window: Annotated[int, Meta(ge=0)] = 60
    window_s: Annotated[float, Meta(gt=0.0, le=3600.0)] = 60.0
    points: Annotated[float, Meta(ge=0.0, le=100.0)] = 0.0
    after_chunks: Annotated[int, Meta(ge=0)] = 5
    every_s: Annotated[float, Meta(gt=0.0, le=3600.0)] = 1.0
    lie: UsageLie = "zero"


class FaultPatch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A change of what is on: `faults` replaces everything, then `clear`, then `add`."""

    faults: list[FaultSpec] | None = None
    clear: list[Fault] = []
    add: list[FaultSpec] = []


class FaultBoard:
    """The faults that are on at one provider: for all of it, and per offer."""

    def __init__(self) -> None:
        self._on: dict[str | None, dict[Fault, FaultSpec]] = {}

    def apply(self, patch: FaultPatch, offers: Sequence[str] | None = None) -> None:
        """Change the faults of `offers`, or of the provider. Raises `BadControl`."""
        wanted = [*(patch.faults or []), *patch.add]
        if offers is not None and any(spec.kind in PORT_FAULTS for spec in wanted):
            raise BadControl("die, refuse and black_hole concern a whole provider, not one model")
        for scope in [None] if offers is None else offers:
            on = {} if patch.faults is not None else dict(self._on.get(scope, {}))
            if patch.faults is not None and offers is None and not patch.faults:
                self._on.clear()
            for kind in patch.clear:
                on.pop(kind, None)
            on |= {spec.kind: spec for spec in wanted}
            self._on[scope] = on
            if not on:
                del self._on[scope]

    def of(self, offer: str | None = None) -> dict[Fault, FaultSpec]:
        """What is on at an offer, its own faults before the provider's; None: the provider's."""
        everywhere = self._on.get(None, {})
        own = self._on.get(offer) if offer is not None else None
        return everywhere | own if own else everywhere

    def all(self) -> dict[str, list[FaultSpec]]:
        """Everything that is on, by offer id; the provider's own under `*`."""
        return {scope or "*": list(on.values()) for scope, on in self._on.items()}
