"""What every dialect offers: a call to make, and a reader of what comes back. No sockets.

A dialect is a stateless object: `build` turns a neutral request into bytes and headers,
`reader` gives the state machine for one answer. A reader never raises: whatever a seller sends
ends in events, the last of which may be `Failed`. After it, or after `close`, it is spent.
"""

from __future__ import annotations

import hashlib
from typing import Any, Protocol

import msgspec
from msgspec import Raw, Struct

from bidding.market import Model, Offer, Provider
from bidding.outcome import FailureClass
from broker.wire.neutral import Event, Failed, NeutralRequest, Usage


class Seat(Struct, frozen=True, kw_only=True):
    """An offer with all that is needed to call it: who sells it, as what, with which key."""

    offer: Offer
    provider: Provider
    model: Model | None = None
    key: str | None = None


class WireCall(Struct, frozen=True, kw_only=True):
    """One HTTP request, ready to be sent."""

    method: str = "POST"
    url: str
    headers: dict[str, str]
    body: bytes


class Reader(Protocol):
    """Reads one answer, piece by piece."""

    def feed(self, piece: bytes) -> list[Event]:
        """The events that `piece` completes."""
        ...

    def close(self) -> list[Event]:
        """What is left when the body ends; `Failed` if it ended too early."""
        ...

    @property
    def done(self) -> bool:
        """Whether the answer is complete, so that nothing more need be read."""
        ...


class Dialect(Protocol):
    """One wire format of sellers."""

    name: str

    def build(self, request: NeutralRequest, seat: Seat, *, stream: bool) -> WireCall:
        """The call that asks `seat` for `request`. Raises `BadRequest` where the format has
        no word for something asked.
        """
        ...

    def reader(self, *, stream: bool, seat: Seat | None = None) -> Reader:
        """Reads the answer of `seat`; without one, of a seller that keeps to the format."""
        ...

    def refusal(
        self, status: int, body: bytes, retry_after_s: float | None, seat: Seat | None = None
    ) -> Failed:
        """What an answer other than 200 means."""
        ...


def malformed(what: str, seen: bytes = b"") -> Failed:
    """An answer that cannot be read. Kept of it are what was wrong and a hash of the bytes."""
    digest = f" sha256:{hashlib.sha256(seen).hexdigest()[:12]}" if seen else ""
    return Failed(failure=FailureClass.MALFORMED, reason=what + digest)


def truncated(what: str) -> Failed:
    """An answer that stopped before its end."""
    return Failed(failure=FailureClass.TRUNCATED, reason=what)


def filtered() -> Failed:
    """An answer withheld by the seller's filter before a word of it came; others may differ."""
    return Failed(failure=FailureClass.REFUSED, reason="content filter")


def loose_json(raw: Raw | bytes) -> Any:
    """A small part of a seller's message as plain values; None when it is no JSON."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def count(value: Any) -> int | None:
    """`value` as a token count if it is one: a whole number, not negative, not absurd."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if value != value or not 0 <= value <= 1e9 or value != int(value):
        return None
    return int(value)


def usage_of(
    input_tokens: Any,
    output_tokens: Any,
    *,
    cached: Any = 0,
    written: Any = 0,
    reasoning: Any = 0,
) -> Usage | None:
    """A seller's usage if it makes sense, else None: then we estimate it, and say so.

    No prompt has no tokens, so zero input is nonsense; the parts may not exceed the whole.
    """
    n_in = count(input_tokens)
    n_out = count(output_tokens)
    if not n_in or n_out is None:
        return None
    n_cached = min(count(cached) or 0, n_in)
    return Usage(
        input_tokens=n_in,
        output_tokens=n_out,
        cached_tokens=n_cached,
        written_tokens=min(count(written) or 0, n_in - n_cached),
        reasoning_tokens=min(count(reasoning) or 0, n_out),
    )
