"""What a seller would drop of a request keeps the request from it."""

from __future__ import annotations

import json

import pytest

from bidding.market import Capability
from broker.paper.market_data import load
from broker.providers.capable import completed
from broker.wire.anthropic_messages import ANTHROPIC_MESSAGES
from broker.wire.neutral import needs
from broker.wire.openai_chat import OPENAI_CHAT

ASK = [{"role": "user", "content": "What is 6 * 7?"}]
LACKS = {o.id: set(o.lacks) for o in completed(load().catalogue).offers}


def _lackers(capability: str) -> set[str]:
    return {offer.partition("/")[0] for offer, lacks in LACKS.items() if capability in lacks}


@pytest.mark.parametrize(("verbosity", "needed"), [("low", True), ("medium", False)])
def test_verbosity_is_asked_of_those_that_have_it(verbosity: str, needed: bool) -> None:
    body = {"model": "market", "messages": ASK, "verbosity": verbosity}
    mask = needs(OPENAI_CHAT.decode(json.dumps(body).encode()))
    assert (Capability.VERBOSITY in mask) == needed
    lackers = _lackers("verbosity")
    assert {"anthropic", "gemini", "google", "aws", "cohere", "groq", "together"} <= lackers
    assert "openai" not in lackers


def test_strict_tools_are_asked_of_those_that_hold_them() -> None:
    tool = {"name": "f", "input_schema": {"type": "object"}}
    for strict in (None, True, False):
        tools = [tool if strict is None else tool | {"strict": strict}]
        body = {"model": "market", "max_tokens": 9, "messages": ASK, "tools": tools}
        mask = needs(ANTHROPIC_MESSAGES.decode(json.dumps(body).encode()))
        assert (Capability.STRICT_TOOLS in mask) == bool(strict)
    lackers = _lackers("strict_tools")
    assert {"anthropic", "gemini", "google"} <= lackers
    assert not {"openai", "cohere", "aws"} & lackers
