"""Vertex AI's `predict` for embeddings; all else there is Gemini's format or Anthropic's."""

from __future__ import annotations

from typing import Any

import msgspec

from broker.paper.embedders import EmbedAsk
from broker.paper.gemini_wire import (
    ID_PREFIX,
    STREAM_TYPE,
    decode,
    decode_embed,
    encode,
    error_body,
    error_frame,
    frames,
)


def encode_embed(ask: EmbedAsk, vectors: list[list[float]], n_tokens: int) -> bytes:
    """The answer of `predict`; tokens are told per instance."""
    share, rest = divmod(n_tokens, len(vectors))
    predictions: list[dict[str, Any]] = []
    for i, vector in enumerate(vectors):
        statistics = {"truncated": False, "token_count": share + (rest if i == 0 else 0)}
        predictions.append({"embeddings": {"values": vector, "statistics": statistics}})
    return msgspec.json.encode({"predictions": predictions})


__all__ = [
    "ID_PREFIX",
    "STREAM_TYPE",
    "decode",
    "decode_embed",
    "encode",
    "encode_embed",
    "error_body",
    "error_frame",
    "frames",
]
