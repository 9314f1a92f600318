"""Cohere v2 `embed`."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from broker.providers.base import Reader, Seat, WireCall, malformed, usage_of
from broker.providers.calling import wire_call
from broker.providers.failures import failed, read_error
from broker.providers.openai_embeddings import embedding_of, texts_of, vector
from broker.providers.quirks import quirks_of
from broker.providers.whole import WholeBody
from broker.wire.neutral import Event, Failed, NeutralRequest, Started

INPUT_TYPE = "search_document"
"""Cohere wants to know what for; OpenAI's format does not say. Documents are the safe reading:
vectors of a collection must agree among themselves.
"""
_encode = msgspec.json.Encoder().encode


class _ByType(Struct):
    floats: list[list[float]] = msgspec.field(default_factory=list, name="float")


class _Units(Struct):
    input_tokens: float = 0


class _Meta(Struct):
    billed_units: _Units | None = None


class _Body(Struct):
    embeddings: _ByType | None = None
    meta: _Meta | None = None


_decoder = msgspec.json.Decoder(_Body)


class EmbeddingsReader(WholeBody):
    """Reads one answer."""

    def read(self, body: bytes) -> list[Event]:
        answer = _decoder.decode(body)
        if answer.embeddings is None or not answer.embeddings.floats:
            error = read_error(body)
            return [failed(0, error) if error.message else malformed("no embeddings")]
        out: list[Event] = [Started()]
        for index, values in enumerate(answer.embeddings.floats):
            made = vector(index, values)
            if made is None:
                return [malformed("vector")]
            out.append(made)
        units = answer.meta.billed_units if answer.meta is not None else None
        told = usage_of(units.input_tokens, 0) if units is not None else None
        return out if told is None else [*out, told]


class CohereEmbeddings:
    """`POST /v2/embed`."""

    name = "cohere"

    def build(self, request: NeutralRequest, seat: Seat, *, stream: bool) -> WireCall:
        size = embedding_of(request).dimensions
        body: dict[str, Any] = {
            "model": seat.offer.wire_model,
            "texts": texts_of(request),
            "input_type": INPUT_TYPE,
            "embedding_types": ["float"],
        }
        if size is not None:
            body["output_dimension"] = size
        return wire_call(seat, quirks_of(seat.provider), "/embed", _encode(body), stream=False)

    def reader(self, *, stream: bool, seat: Seat | None = None) -> Reader:
        return EmbeddingsReader()

    def refusal(
        self, status: int, body: bytes, retry_after_s: float | None, seat: Seat | None = None
    ) -> Failed:
        quirks = quirks_of(seat.provider) if seat is not None else None
        return failed(status, read_error(body), retry_after_s=retry_after_s, quirks=quirks)


COHERE_EMBEDDINGS = CohereEmbeddings()
