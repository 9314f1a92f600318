"""The public API as an OpenAPI 3.1 document, made of the types that requests are decoded with.

What a body may hold is exactly what its decoder takes; what an answer holds is its vendor's
published format, named and not repeated here. A test holds that no route is missing.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from broker.auctions import AuctionBody
from broker.json_schema import Schema, Schemas
from broker.outcomes import OutcomeLine
from broker.wire.anthropic_messages import MessagesRequest
from broker.wire.openai_chat import ChatRequest
from broker.wire.openai_embeddings import EmbeddingsRequest
from broker.wire.openai_responses_body import ResponsesRequest

Route = tuple[str, str, str | None, Callable[..., Awaitable[Any]]]

BODIES: Final[dict[str, type]] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/responses": ResponsesRequest,
    "/v1/embeddings": EmbeddingsRequest,
    "/v1/messages": MessagesRequest,
    "/v1/messages/count_tokens": MessagesRequest,
    "/v1/auctions": AuctionBody,
    "/v1/outcomes": OutcomeLine,
}
"""What is decoded where. Telemetry is NDJSON of its own and described in the guides."""
_ERROR: Final[Schema] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
        },
    },
}
_CODES: Final = {
    "400": "Malformed, or asks for what cannot be; names the field.",
    "401": "No key, or one that is not good.",
    "403": "The key lacks the scope, or may not use the model.",
    "404": "No such model, decision or path.",
    "413": "The body is over the limit.",
    "422": "No offer can serve this request; says why each was turned away.",
    "429": "Over the key's limits or a budget, or we are full; says when to try again.",
    "503": "No seller delivered; says when to try again.",
    "504": "The deadline passed.",
}


def document(routes: Sequence[Route]) -> Schema:
    """The document over `routes` (method, path, scope, handler), the market page's left out."""
    schemas = Schemas()
    schemas.components["Error"] = _ERROR
    paths: dict[str, Schema] = {}
    for method, path, scope, handler in routes:
        if path == "/" or path.startswith("/page"):
            continue
        plain = re.sub(r"{(\w+):[^}]*}", r"{\1}", path)
        paths.setdefault(plain, {})[method.lower()] = _operation(plain, scope, handler, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Model Market Broker",
            "version": _version(),
            "description": "OpenAI's and Anthropic's formats, with `sla` and `models` beside them.",
        },
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(
    path: str, scope: str | None, handler: Callable[..., Awaitable[Any]], schemas: Schemas
) -> Schema:
    words = inspect.getdoc(handler) or handler.__name__
    told: Schema = {
        "operationId": handler.__name__,
        "summary": words.partition("\n")[0],
        "responses": {
            "200": {"description": "Answered."},
            "202": {"description": "Taken in."},
            **{code: _error(words) for code, words in _CODES.items()},
        },
    }
    if scope is None:
        told["security"] = []
    else:
        told["description"] = f"For keys with the scope `{scope}`."
    names = re.findall(r"{(\w+)}", path)
    if names:
        kind = {"type": "string", "minLength": 1}
        told["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": kind} for name in names
        ]
    body = BODIES.get(path)
    if body is not None:
        content = {"application/json": {"schema": schemas.of(body)}}
        told["requestBody"] = {"required": True, "content": content}
    return told


def _error(words: str) -> Schema:
    schema = {"$ref": "#/components/schemas/Error"}
    return {"description": words, "content": {"application/json": {"schema": schema}}}


def _version() -> str:
    try:
        return version("model-market-broker")
    except PackageNotFoundError:
        return "0"
