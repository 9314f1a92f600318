"""What every surface offers: a way in, a way out whole, a way out in pieces, and its errors.

A surface is a stateless object; only a stream's encoder has state. All of it is pure: bytes
and values in, bytes out.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Raw, Struct

from broker.wire.neutral import Answer, Event, NeutralRequest


class ReplyMeta(Struct, frozen=True, kw_only=True):
    """What a reply says of itself. `model` is the canonical model that answered;
    `broker` is our own addition (decision, bids) when the app asked to have it explained.
    """

    id: str
    created_s: int
    model: str
    broker: Raw | None = None


class ErrorBody(Struct, frozen=True, kw_only=True):
    """An error as the app shall see it; the surface puts it into its vendor's shape."""

    status: int
    kind: str
    message: str
    code: str | None = None
    param: str | None = None


class StreamEncoder(Protocol):
    """One reply in pieces. Call `start`, `event` for each, then `end` or `error`, once."""

    def start(self) -> bytes:
        """What opens the stream; may be empty."""
        ...

    def event(self, event: Event) -> bytes:
        """The bytes for one event; empty where the surface has no word for it."""
        ...

    def end(self) -> bytes:
        """What closes a stream that ended well."""
        ...

    def error(self, error: ErrorBody) -> bytes:
        """What closes a stream that broke: the vendor's error event, never a clean ending."""
        ...


class Surface(Protocol):
    """One API that apps speak to us. `id_prefix` begins the ids of its replies."""

    name: str
    id_prefix: str

    def decode(self, body: bytes) -> NeutralRequest:
        """Raises `BadRequest` with the path to what is wrong and what to change."""
        ...

    def reply(self, request: NeutralRequest, answer: Answer, meta: ReplyMeta) -> bytes: ...

    def stream(self, request: NeutralRequest, meta: ReplyMeta) -> StreamEncoder: ...

    def error(self, error: ErrorBody) -> bytes: ...
