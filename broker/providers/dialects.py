"""The dialects by the name a provider's `wire` has in the catalogue, and what each cannot say."""

from __future__ import annotations

from broker.providers.anthropic import ANTHROPIC
from broker.providers.base import Dialect, Seat
from broker.providers.bedrock import BEDROCK
from broker.providers.bedrock_embeddings import BEDROCK_EMBEDDINGS
from broker.providers.cohere import COHERE
from broker.providers.cohere_embeddings import COHERE_EMBEDDINGS
from broker.providers.gemini import GEMINI
from broker.providers.google_embeddings import GEMINI_EMBEDDINGS, VERTEX_EMBEDDINGS
from broker.providers.litellm import LITELLM, LITELLM_EMBEDDINGS
from broker.providers.openai import OPENAI
from broker.providers.openai_embeddings import OPENAI_EMBEDDINGS
from broker.providers.vertex import VERTEX
from broker.wire.neutral import NeutralRequest

DIALECTS: dict[str, Dialect] = {
    "openai": OPENAI,
    "anthropic": ANTHROPIC,
    "gemini": GEMINI,
    "vertex": VERTEX,
    "bedrock": BEDROCK,
    "cohere": COHERE,
    "litellm": LITELLM,
}
EMBEDDINGS: dict[str, Dialect] = {
    "openai": OPENAI_EMBEDDINGS,
    "gemini": GEMINI_EMBEDDINGS,
    "vertex": VERTEX_EMBEDDINGS,
    "bedrock": BEDROCK_EMBEDDINGS,
    "cohere": COHERE_EMBEDDINGS,
    "litellm": LITELLM_EMBEDDINGS,
}


def dialect_of(seat: Seat, request: NeutralRequest) -> Dialect:
    """The dialect in which `seat` is asked for `request`.

    Raises
    ------
    KeyError
        The format has no word for such a request; the gates keep it away.
    """
    table = DIALECTS if request.embedding is None else EMBEDDINGS
    return table[seat.provider.wire]
