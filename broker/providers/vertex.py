"""Google Vertex AI: `VERTEX`. Gemini by `generateContent`, Claude by `rawPredict`.

The base URL ends in the project and location; the publisher follows from the model. The key is
an OAuth access token, which somebody has to keep fresh (`provider_keys` may name a file).
"""

from __future__ import annotations

from urllib.parse import quote

from broker.providers import anthropic, gemini
from broker.providers.anthropic import ANTHROPIC
from broker.providers.base import Dialect, Reader, Seat, WireCall
from broker.providers.calling import wire_call
from broker.providers.gemini import GEMINI
from broker.providers.model_rules import bare
from broker.providers.quirks import quirks_of
from broker.wire.neutral import Failed, NeutralRequest

ANTHROPIC_VERSION = "vertex-2023-10-16"


def is_claude(seat: Seat) -> bool:
    """Whether Anthropic publishes the model of `seat`."""
    return bare(seat.offer.wire_model).startswith("claude")


class VertexDialect:
    """Both publishers."""

    name = "vertex"

    def build(self, request: NeutralRequest, seat: Seat, *, stream: bool) -> WireCall:
        if is_claude(seat):
            verb = "streamRawPredict" if stream else "rawPredict"
            path = f"/publishers/anthropic/models/{quote(seat.offer.wire_model, safe='@')}:{verb}"
            head = {"anthropic_version": ANTHROPIC_VERSION}
            body = anthropic.build_body(request, seat, stream=stream, head=head)
        else:
            path = "/publishers/google/models/" + gemini.method(seat, stream=stream)
            body = gemini.build_body(request, seat)
        return wire_call(seat, quirks_of(seat.provider), path, body, stream=stream)

    def reader(self, *, stream: bool, seat: Seat | None = None) -> Reader:
        return _published(seat).reader(stream=stream, seat=seat)

    def refusal(
        self, status: int, body: bytes, retry_after_s: float | None, seat: Seat | None = None
    ) -> Failed:
        return _published(seat).refusal(status, body, retry_after_s, seat)


def _published(seat: Seat | None) -> Dialect:
    return ANTHROPIC if seat is not None and is_claude(seat) else GEMINI


VERTEX = VertexDialect()
