"""Embeddings on Bedrock by `InvokeModel`: Amazon Titan's body, and Cohere's."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from broker.providers.base import Reader, Seat, WireCall, malformed, usage_of
from broker.providers.bedrock import bedrock_call
from broker.providers.cohere_embeddings import INPUT_TYPE
from broker.providers.failures import failed, read_error
from broker.providers.model_rules import bare
from broker.providers.openai_embeddings import embedding_of, texts_of, vector
from broker.providers.whole import WholeBody
from broker.wire.neutral import Event, Failed, NeutralRequest, Started

_encode = msgspec.json.Encoder().encode


class _ByType(Struct):
    floats: list[list[float]] = msgspec.field(default_factory=list, name="float")


class _Body(Struct):
    embedding: list[float] | None = None
    input_text_token_count: int = msgspec.field(default=0, name="inputTextTokenCount")
    embeddings: list[list[float]] | _ByType | None = None


_decoder = msgspec.json.Decoder(_Body)


class EmbeddingsReader(WholeBody):
    """Reads either answer; Cohere's tells no usage here."""

    def read(self, body: bytes) -> list[Event]:
        answer = _decoder.decode(body)
        found = [answer.embedding] if answer.embedding is not None else []
        if isinstance(answer.embeddings, _ByType):
            found = answer.embeddings.floats
        elif answer.embeddings is not None:
            found = answer.embeddings
        if not found:
            error = read_error(body)
            return [failed(0, error) if error.message else malformed("no embedding")]
        out: list[Event] = [Started()]
        for index, values in enumerate(found):
            made = vector(index, values)
            if made is None:
                return [malformed("vector")]
            out.append(made)
        told = usage_of(answer.input_text_token_count, 0)
        return out if told is None else [*out, told]


class BedrockEmbeddings:
    """By the model's family."""

    name = "bedrock"

    def build(self, request: NeutralRequest, seat: Seat, *, stream: bool) -> WireCall:
        texts, size = texts_of(request), embedding_of(request).dimensions
        name = bare(seat.offer.wire_model)
        body: dict[str, Any]
        if name.startswith("embed"):
            body = {"texts": texts, "input_type": INPUT_TYPE, "embedding_types": ["float"]}
            if size is not None:
                body["output_dimension"] = size
        else:
            body = {"inputText": texts[0]}
            if size is not None:
                body["dimensions"] = size
        return bedrock_call(seat, "invoke", _encode(body), stream=False)

    def reader(self, *, stream: bool, seat: Seat | None = None) -> Reader:
        return EmbeddingsReader()

    def refusal(
        self, status: int, body: bytes, retry_after_s: float | None, seat: Seat | None = None
    ) -> Failed:
        return failed(status, read_error(body), retry_after_s=retry_after_s)


BEDROCK_EMBEDDINGS = BedrockEmbeddings()
