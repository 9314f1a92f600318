"""Google's embeddings: `batchEmbedContents` (Gemini API) and `predict` (Vertex)."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct

from broker.providers.base import Reader, Seat, WireCall, malformed, usage_of
from broker.providers.calling import wire_call
from broker.providers.failures import failed, read_error
from broker.providers.openai_embeddings import embedding_of, texts_of, vector
from broker.providers.quirks import quirks_of
from broker.providers.whole import WholeBody
from broker.wire.neutral import Event, Failed, NeutralRequest, Started

_encode = msgspec.json.Encoder().encode


class _Statistics(Struct):
    token_count: float = 0


class _Values(Struct):
    values: list[float] = []
    statistics: _Statistics | None = None


class _Prediction(Struct):
    embeddings: _Values


class _Meta(Struct, rename="camel"):
    prompt_token_count: int = 0


class _Body(Struct, rename="camel"):
    embeddings: list[_Values] | None = None
    predictions: list[_Prediction] | None = None
    usage_metadata: _Meta | None = None


_decoder = msgspec.json.Decoder(_Body)


class EmbeddingsReader(WholeBody):
    """Reads either answer."""

    def read(self, body: bytes) -> list[Event]:
        answer = _decoder.decode(body)
        found = answer.embeddings
        if found is None and answer.predictions is not None:
            found = [p.embeddings for p in answer.predictions]
        if not found:
            error = read_error(body)
            return [failed(0, error) if error.message else malformed("no embeddings")]
        out: list[Event] = [Started()]
        n_tokens = 0 if answer.usage_metadata is None else answer.usage_metadata.prompt_token_count
        for index, item in enumerate(found):
            made = vector(index, item.values)
            if made is None:
                return [malformed("vector")]
            out.append(made)
            if item.statistics is not None:
                n_tokens += int(item.statistics.token_count)
        told = usage_of(n_tokens, 0)
        return out if told is None else [*out, told]


class GoogleEmbeddings:
    """Both addresses; `vertex` says which."""

    def __init__(self, *, vertex: bool) -> None:
        self.name = "vertex" if vertex else "gemini"
        self._vertex = vertex

    def build(self, request: NeutralRequest, seat: Seat, *, stream: bool) -> WireCall:
        texts, size = texts_of(request), embedding_of(request).dimensions
        model = seat.offer.wire_model
        body: dict[str, Any]
        if self._vertex:
            path = f"/publishers/google/models/{quote(model, safe='')}:predict"
            body = {"instances": [{"content": text} for text in texts]}
            if size is not None:
                body["parameters"] = {"outputDimensionality": size}
        else:
            path = f"/models/{quote(model, safe='')}:batchEmbedContents"
            shape = {} if size is None else {"outputDimensionality": size}
            body = {
                "requests": [
                    {"model": f"models/{model}", "content": {"parts": [{"text": text}]}, **shape}
                    for text in texts
                ]
            }
        return wire_call(seat, quirks_of(seat.provider), path, _encode(body), stream=False)

    def reader(self, *, stream: bool, seat: Seat | None = None) -> Reader:
        return EmbeddingsReader()

    def refusal(
        self, status: int, body: bytes, retry_after_s: float | None, seat: Seat | None = None
    ) -> Failed:
        return failed(status, read_error(body), retry_after_s=retry_after_s)


GEMINI_EMBEDDINGS = GoogleEmbeddings(vertex=False)
VERTEX_EMBEDDINGS = GoogleEmbeddings(vertex=True)
