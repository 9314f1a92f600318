"""The dialects by the name a provider's `wire` has in the catalogue, and what each cannot say."""

from __future__ import annotations

from broker.providers.anthropic import ANTHROPIC
from broker.providers.base import Dialect, Seat
from broker.providers.openai import OPENAI
from broker.providers.openai_embeddings import OPENAI_EMBEDDINGS
from broker.wire.neutral import NeutralRequest

DIALECTS: dict[str, Dialect] = {"openai": OPENAI, "anthropic": ANTHROPIC}
EMBEDDINGS: dict[str, Dialect] = {"openai": OPENAI_EMBEDDINGS}


def dialect_of(seat: Seat, request: NeutralRequest) -> Dialect:
    """The dialect in which `seat` is asked for `request`.

    Raises
    ------
    KeyError
        The format has no word for such a request; the gates keep it away.
    """
    table = DIALECTS if request.embedding is None else EMBEDDINGS
    return table[seat.provider.wire]
