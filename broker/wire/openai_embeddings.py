"""OpenAI embeddings as we serve them: `POST /v1/embeddings`.

Vectors of different models do not mix: a store filled by one cannot be asked with another. So
the model must be named, and the auction is among the sellers of that one model.

Entry point: `OPENAI_EMBEDDINGS`, a `Surface` without a stream.
"""

from __future__ import annotations

import base64
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct

from bidding.errors import BadRequest
from bidding.request import Sla
from broker.wire.json_guard import decode_strictly
from broker.wire.neutral import Answer, Embedding, NeutralRequest, Usage
from broker.wire.openai_shared import Name, error_object
from broker.wire.surface import ErrorBody, ReplyMeta, StreamEncoder

_TokenId = Annotated[int, Meta(ge=0, le=10_000_000)]
_Input = str | list[str | _TokenId | list[_TokenId]]
MAX_INPUTS = 2048
"""OpenAI's own limit to a request."""


class EmbeddingsRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """The body as we accept it."""

    model: Name
    input: _Input
    sla: Sla | None = None
    dimensions: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    user: str | None = None


_decoder = msgspec.json.Decoder(EmbeddingsRequest)
_encode = msgspec.json.Encoder().encode


def to_neutral(body: EmbeddingsRequest) -> NeutralRequest:
    """The neutral form of a decoded body. Raises `BadRequest`."""
    if body.model == "market" or body.model.startswith("market:"):
        raise BadRequest(
            "vectors of different models do not mix",
            path="model",
            remedy="name one embedding model, or one offer of it; GET /v1/models lists them",
        )
    return NeutralRequest(
        model=body.model,
        messages=(),
        sla=body.sla,
        user=body.user,
        max_output_tokens=1,
        embedding=Embedding(
            inputs=_inputs(body.input),
            dimensions=body.dimensions,
            packed=body.encoding_format == "base64",
        ),
    )


def _inputs(given: _Input) -> tuple[str | tuple[int, ...], ...]:
    if isinstance(given, str):
        given = [given]
    if not given:
        raise BadRequest("input is empty", path="input", remedy="send at least one text")
    texts = [x for x in given if isinstance(x, str)]
    tokens = [x for x in given if isinstance(x, int)]
    lists = [tuple(x) for x in given if isinstance(x, list)]
    if len(tokens) == len(given):
        return (tuple(tokens),)
    if len(texts) != len(given) and len(lists) != len(given):
        raise BadRequest(
            "input mixes texts and tokens", path="input", remedy="send texts only, or tokens only"
        )
    if len(given) > MAX_INPUTS:
        raise BadRequest(
            f"more than {MAX_INPUTS} inputs", path="input", remedy="send several requests"
        )
    found: tuple[str | tuple[int, ...], ...] = (*texts, *lists)
    for i, one in enumerate(found):
        if not one:
            path = f"input[{i}]" if len(found) > 1 else "input"
            raise BadRequest(f"{path} is empty", path=path, remedy="leave it out")
    return found


class _Vector(Struct):
    object: str
    index: int
    embedding: str | tuple[float, ...]


class _Usage(Struct):
    prompt_tokens: int
    total_tokens: int


class _List(Struct):
    object: str
    data: list[_Vector]
    model: str
    usage: _Usage


def _packed(values: tuple[float, ...]) -> str:
    return base64.b64encode(np.array(values, dtype="<f4").tobytes()).decode()


class OpenAIEmbeddings:
    """The embeddings surface."""

    name = "openai_embeddings"
    id_prefix = "emb_"

    def decode(self, body: bytes) -> NeutralRequest:
        known = EmbeddingsRequest.__struct_fields__
        return to_neutral(decode_strictly(body, _decoder, known))

    def reply(self, request: NeutralRequest, answer: Answer, meta: ReplyMeta) -> bytes:
        packed = request.embedding is not None and request.embedding.packed
        data = [
            _Vector("embedding", v.index, _packed(v.values) if packed else v.values)
            for v in answer.vectors
        ]
        n = (answer.usage or Usage()).input_tokens
        return _encode(_List("list", data, meta.model, _Usage(n, n)))

    def stream(self, request: NeutralRequest, meta: ReplyMeta) -> StreamEncoder:
        raise BadRequest("embeddings do not stream", path="stream", remedy="remove it")

    def error(self, error: ErrorBody) -> bytes:
        return _encode(error_object(error))


OPENAI_EMBEDDINGS = OpenAIEmbeddings()
