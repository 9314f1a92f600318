"""Which format an address speaks, what it names, and how a caller proves itself there."""

from __future__ import annotations

import re
from types import ModuleType
from typing import NamedTuple
from urllib.parse import unquote

from aiohttp import web

from bidding.market import Provider, Wire
from broker.paper import (
    anthropic_wire,
    bedrock_wire,
    cohere_wire,
    gemini_wire,
    openai_wire,
    vertex_wire,
)
from broker.paper.errors import BadAsk
from broker.paper.sigv4 import ACCESS_KEY_ID, fault_in


class Route(NamedTuple):
    """What an address asks for: in which format, of which model if it says, streamed or not."""

    wire: ModuleType
    model: str | None = None
    stream: bool = False
    embeds: bool = False


WIRES: dict[Wire, ModuleType] = {
    "openai": openai_wire,
    "anthropic": anthropic_wire,
    "gemini": gemini_wire,
    "vertex": vertex_wire,
    "bedrock": bedrock_wire,
    "cohere": cohere_wire,
}
BASE_PATHS: dict[Wire, str] = {
    "openai": "/v1",
    "anthropic": "",
    "gemini": "/v1beta",
    "vertex": "/v1/projects/paper/locations/us-central1",
    "bedrock": "",
    "cohere": "/v2",
}
_AZURE = re.compile(r"/openai/deployments/([^/]+)/(chat/completions|embeddings)$")
_INVOCATIONS = re.compile(r"/([^/]+)/invocations$")
_GEMINI = re.compile(
    r"/models/([^/:]+):(generateContent|streamGenerateContent|batchEmbedContents)$"
)
_VERTEX = re.compile(
    r"/publishers/(google|anthropic)/models/([^/:]+):"
    r"(generateContent|streamGenerateContent|predict|rawPredict|streamRawPredict)$"
)
_BEDROCK = re.compile(r"/model/([^/]+)/(converse|converse-stream|invoke)$")


def base_path(provider: Provider) -> str:
    """What a provider's base URL ends in."""
    return "" if provider.id == "azure" else BASE_PATHS[provider.wire]


def route_of(provider: Provider, raw_path: str, sold: frozenset[str]) -> Route | None:
    """What `raw_path` asks of `provider`; None for an address it does not have.

    Parameters
    ----------
    sold : names under which embedding models are sold, where the address alone does not say.
    """
    path = raw_path.partition("?")[0]
    wire = provider.wire
    if wire == "openai":
        return _openai_route(provider, path, sold)
    if wire == "anthropic":
        return Route(anthropic_wire) if path.endswith("/v1/messages") else None
    if wire == "cohere":
        if path in ("/v2/chat", "/v2/embed"):
            return Route(cohere_wire, embeds=path.endswith("/embed"))
        return None
    if wire == "gemini":
        found = _GEMINI.search(path)
        if found is None:
            return None
        verb = found.group(2)
        streams = verb.startswith("stream")
        return Route(gemini_wire, unquote(found.group(1)), streams, verb.startswith("batch"))
    if wire == "vertex":
        found = _VERTEX.search(path)
        if found is None:
            return None
        publisher, model, verb = found.groups()
        if (publisher == "anthropic") != verb.lower().endswith("rawpredict"):
            return None
        spoken = anthropic_wire if publisher == "anthropic" else vertex_wire
        return Route(spoken, unquote(model), verb.startswith("stream"), verb == "predict")
    found = _BEDROCK.search(path)
    if found is None:
        return None
    verb = found.group(2)
    return Route(bedrock_wire, unquote(found.group(1)), verb.endswith("stream"), verb == "invoke")


def _openai_route(provider: Provider, path: str, sold: frozenset[str]) -> Route | None:
    if provider.id == "azure":
        found = _AZURE.search(path)
        if found is None:
            return None
        return Route(openai_wire, unquote(found.group(1)), embeds=found.group(2) == "embeddings")
    if provider.id == "databricks":
        found = _INVOCATIONS.search(path)
        if found is None:
            return None
        name = unquote(found.group(1))
        return Route(openai_wire, name, embeds=name in sold)
    if path.endswith("/chat/completions"):
        return Route(openai_wire)
    return Route(openai_wire, embeds=True) if path.endswith("/embeddings") else None


def key_at(provider: Provider, api_key: str) -> str:
    """The key that a buyer needs at `provider`, where all accept `api_key`."""
    return f"{ACCESS_KEY_ID}:{api_key}" if provider.wire == "bedrock" else api_key


def authenticate(
    provider: Provider, request: web.BaseRequest, body: bytes, api_key: str, now_s: float
) -> None:
    """Raises `BadAsk` as the provider refuses a caller it does not know."""
    headers = request.headers
    bearer = headers.get("authorization", "").removeprefix("Bearer ")
    if provider.wire == "bedrock" and bearer.startswith("AWS4-"):
        fault = fault_in(
            request.method, request.raw_path, headers, body, secret=api_key, now_s=now_s
        )
        if fault is not None:
            raise BadAsk(fault, status=403)
        return
    given = bearer
    if provider.wire == "anthropic":
        given = headers.get("x-api-key") or bearer
    elif provider.wire == "gemini":
        given = headers.get("x-goog-api-key") or request.query.get("key", "")
    elif provider.id == "azure":
        given = headers.get("api-key", "")
    if given != api_key:
        hint = "Incorrect API key provided" if given else "You didn't provide an API key"
        raise BadAsk(f"{hint}.", status=401, code="invalid_api_key")
