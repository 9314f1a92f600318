"""OpenAI embeddings, and the sellers who speak them: `OPENAI_EMBEDDINGS`."""

from __future__ import annotations

import base64
import math
import struct
from typing import Any

import msgspec
from msgspec import Raw, Struct

from bidding.errors import BadRequest
from broker.providers.base import Reader, Seat, WireCall, loose_json, malformed, usage_of
from broker.providers.calling import wire_call
from broker.providers.failures import failed, read_error
from broker.providers.quirks import quirks_of
from broker.providers.whole import WholeBody
from broker.wire.json_guard import ABSENT, present
from broker.wire.neutral import Embedding, Event, Failed, NeutralRequest, Started, Vector

_encode = msgspec.json.Encoder().encode


def embedding_of(request: NeutralRequest) -> Embedding:
    """What `request` wants vectors of. Raises `BadRequest` where it wants something else."""
    if request.embedding is None:
        raise BadRequest("this model makes embeddings", path="model", remedy="name a chat model")
    return request.embedding


def texts_of(request: NeutralRequest) -> list[str]:
    """Its inputs as texts, for formats that take no token ids. Raises `BadRequest`."""
    inputs = embedding_of(request).inputs
    texts = [x for x in inputs if isinstance(x, str)]
    if len(texts) != len(inputs):
        raise BadRequest("token ids are not read here", path="input", remedy="send text")
    return texts


class _Item(Struct):
    index: int = 0
    embedding: list[float] | str = []


class _Body(Struct):
    data: list[_Item] | None = None
    model: str = ""
    usage: Raw = ABSENT
    error: Raw = ABSENT


_decoder = msgspec.json.Decoder(_Body)


def vector(index: int, values: list[float]) -> Vector | None:
    """The vector, unless it is none: empty, or with something in it that is no number."""
    if not values or not all(map(math.isfinite, values)):
        return None
    return Vector(index, tuple(values))


def _unpacked(text: str) -> list[float]:
    """Base64 of little-endian float32, as OpenAI packs them; empty where it is not."""
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        return []
    return list(struct.unpack(f"<{len(raw) // 4}f", raw)) if len(raw) % 4 == 0 else []


class EmbeddingsReader(WholeBody):
    """Reads one `list` of embeddings."""

    def read(self, body: bytes) -> list[Event]:
        answer = _decoder.decode(body)
        if present(answer.error) is not None or answer.data is None:
            error = read_error(body)
            return [failed(0, error) if error.message or error.code else malformed("no data")]
        out: list[Event] = [Started("", answer.model)]
        for item in answer.data:
            packed = item.embedding
            found = vector(item.index, _unpacked(packed) if isinstance(packed, str) else packed)
            if found is None:
                return [malformed("vector")]
            out.append(found)
        if len(out) == 1:
            return [malformed("empty data")]
        usage = loose_json(answer.usage) if present(answer.usage) is not None else None
        if isinstance(usage, dict):
            told = usage_of(usage.get("prompt_tokens"), 0)
            if told is not None:
                out.append(told)
        return out


class OpenAIEmbeddings:
    """`POST /embeddings`."""

    name = "openai"

    def build(self, request: NeutralRequest, seat: Seat, *, stream: bool) -> WireCall:
        quirks = quirks_of(seat.provider)
        wanted = embedding_of(request)
        body: dict[str, Any] = {
            "model": seat.offer.wire_model,
            "input": wanted.inputs,
            "encoding_format": "float",
        }
        if wanted.dimensions is not None:
            body["dimensions"] = wanted.dimensions
        if request.user is not None and "user" not in quirks.drop:
            body["user"] = request.user
        return wire_call(seat, quirks, quirks.embeddings_path, _encode(body), stream=False)

    def reader(self, *, stream: bool, seat: Seat | None = None) -> Reader:
        return EmbeddingsReader()

    def refusal(
        self, status: int, body: bytes, retry_after_s: float | None, seat: Seat | None = None
    ) -> Failed:
        quirks = quirks_of(seat.provider) if seat is not None else None
        return failed(status, read_error(body), retry_after_s=retry_after_s, quirks=quirks)


OPENAI_EMBEDDINGS = OpenAIEmbeddings()
