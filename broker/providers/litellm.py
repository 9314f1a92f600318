"""Whatever LiteLLM's SDK reaches: `LITELLM`. Its calls are OpenAI bodies that do not travel.

LiteLLM speaks OpenAI's format on our side and some hundred others on the far one, so a call is
an OpenAI body with a scheme of its own, which `broker.litellm_reach` hands to the SDK instead of
a socket; what comes back is read as OpenAI's. The offer's upstream model is LiteLLM's name
(`vendor/model`), the provider's base URL its `api_base` (empty: LiteLLM knows).
"""

from __future__ import annotations

import msgspec

from broker.providers.base import Reader, Seat, WireCall
from broker.providers.openai import OPENAI, build_body
from broker.providers.openai_embeddings import OPENAI_EMBEDDINGS, embedding_of
from broker.providers.quirks import quirks_of
from broker.wire.neutral import Failed, NeutralRequest

CHAT = "litellm:chat"
EMBEDDINGS = "litellm:embeddings"
KEY_HEADER = "x-api-key"


def _headers(seat: Seat) -> dict[str, str]:
    return {} if seat.key is None else {KEY_HEADER: seat.key}


class LiteLLMDialect:
    """Chat."""

    name = "litellm"

    def build(self, request: NeutralRequest, seat: Seat, *, stream: bool) -> WireCall:
        body = build_body(request, seat, quirks_of(seat.provider), stream=stream)
        return WireCall(url=CHAT, headers=_headers(seat), body=body)

    def reader(self, *, stream: bool, seat: Seat | None = None) -> Reader:
        return OPENAI.reader(stream=stream)

    def refusal(
        self, status: int, body: bytes, retry_after_s: float | None, seat: Seat | None = None
    ) -> Failed:
        return OPENAI.refusal(status, body, retry_after_s)


class LiteLLMEmbeddings:
    """Embeddings."""

    name = "litellm"

    def build(self, request: NeutralRequest, seat: Seat, *, stream: bool) -> WireCall:
        wanted = embedding_of(request)
        body: dict[str, object] = {"model": seat.offer.wire_model, "input": wanted.inputs}
        if wanted.dimensions is not None:
            body["dimensions"] = wanted.dimensions
        return WireCall(url=EMBEDDINGS, headers=_headers(seat), body=msgspec.json.encode(body))

    def reader(self, *, stream: bool, seat: Seat | None = None) -> Reader:
        return OPENAI_EMBEDDINGS.reader(stream=False)

    def refusal(
        self, status: int, body: bytes, retry_after_s: float | None, seat: Seat | None = None
    ) -> Failed:
        return OPENAI.refusal(status, body, retry_after_s)


LITELLM = LiteLLMDialect()
LITELLM_EMBEDDINGS = LiteLLMEmbeddings()
