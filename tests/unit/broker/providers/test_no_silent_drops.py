"""What a seller would drop of a request keeps the request from it."""

from __future__ import annotations

import json

import pytest

from bidding.errors import BadRequest
from bidding.market import Capability
from broker.paper.market_data import load
from broker.providers.capable import completed
from broker.wire.anthropic_messages import ANTHROPIC_MESSAGES
from broker.wire.needs import needs
from broker.wire.openai_chat import OPENAI_CHAT
from broker.wire.openai_responses import OPENAI_RESPONSES

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
    assert not {"openai", "cohere"} & lackers
    for offer in ("anthropic/claude-3-haiku", "google/claude-3-haiku", "aws/claude-3-haiku"):
        assert "strict_tools" in LACKS[offer]
    for seller in ("anthropic", "google", "aws"):
        offer = f"{seller}/claude-haiku-4.5"
        assert "strict_tools" not in LACKS[offer]


SAID, SILENT = {"role": "user", "content": "Hi"}, {"role": "user", "content": " \n"}
ORDERED, GREETED = (
    {"role": "system", "content": "Be short."},
    {"role": "assistant", "content": "Hi"},
)


@pytest.mark.parametrize(
    ("messages", "needed"),
    [
        ([ORDERED], Capability.NO_USER),
        ([SILENT], Capability.NO_USER),
        ([ORDERED, GREETED, SAID], Capability.ASSISTANT_FIRST),
        ([ORDERED, SAID, GREETED], Capability(0)),
    ],
)
def test_conversations_that_some_sellers_refuse_go_to_others(
    messages: list[dict[str, str]], needed: Capability
) -> None:
    body = {"model": "market", "messages": messages}
    mask = needs(OPENAI_CHAT.decode(json.dumps(body).encode()))
    assert mask & (Capability.NO_USER | Capability.ASSISTANT_FIRST) == needed
    assert {"anthropic", "gemini", "google", "aws", "mistral"} <= _lackers("no_user")
    assert "aws" in _lackers("assistant_first")
    assert not {"openai", "groq"} & (_lackers("no_user") | _lackers("assistant_first"))


@pytest.mark.parametrize("schema", [[1], "object", 7, True])
def test_a_schema_that_is_no_object_is_refused_by_its_path(schema: object) -> None:
    tool = {"name": "f", "parameters": schema}
    named = {"name": "x", "schema": schema}
    chat = {"model": "market", "messages": ASK}
    asked = [
        (OPENAI_CHAT, chat | {"tools": [{"type": "function", "function": tool}]}),
        (OPENAI_CHAT, chat | {"response_format": {"type": "json_schema", "json_schema": named}}),
        (
            OPENAI_RESPONSES,
            {"model": "market", "input": "Hi", "tools": [{"type": "function"} | tool]},
        ),
        (
            OPENAI_RESPONSES,
            {"model": "market", "input": "Hi"}
            | {"text": {"format": {"type": "json_schema"} | named}},
        ),
        (
            ANTHROPIC_MESSAGES,
            chat | {"max_tokens": 9, "tools": [{"name": "f", "input_schema": schema}]},
        ),
    ]
    paths = [
        "tools[0].function.parameters",
        "response_format.json_schema.schema",
        "tools[0].parameters",
        "text.format.schema",
        "tools[0].input_schema",
    ]
    for (surface, body), path in zip(asked, paths, strict=True):
        with pytest.raises(BadRequest, match="is no object") as refused:
            surface.decode(json.dumps(body).encode())
        assert refused.value.path == path


@pytest.mark.parametrize(
    ("stop", "needed"),
    [
        (["END"], Capability.STOP),
        (["END", "\n\n"], Capability.STOP | Capability.BLANK_STOP),
        (list("abcde"), Capability.STOP | Capability.MANY_STOPS),
    ],
)
def test_stops_are_asked_of_those_that_stop_there(stop: list[str], needed: Capability) -> None:
    body = {"model": "market", "max_tokens": 9, "messages": ASK, "stop_sequences": stop}
    mask = needs(ANTHROPIC_MESSAGES.decode(json.dumps(body).encode()))
    assert mask & (Capability.STOP | Capability.BLANK_STOP | Capability.MANY_STOPS) == needed
    assert {"anthropic", "google", "aws"} <= _lackers("blank_stop")
    assert {"openai", "azure", "gemini", "google", "cohere"} <= _lackers("many_stops")
    assert not {"anthropic", "aws"} & _lackers("many_stops")
    assert "openai" not in _lackers("blank_stop")
