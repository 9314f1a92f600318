"""What is asked of each surface, feature by feature, and how an answer shows that it was done."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.compat.answers import Read

PATHS = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
    "embeddings": "/v1/embeddings",
}
_PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
_QUESTION = "What is 6 * 7?"
_WEATHER = "Use get_weather for Rome."
_SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
_FUNCTION = {"name": "get_weather", "parameters": _SCHEMA}


class Feature(NamedTuple):
    """`bodies` by surface. `field`: what the surfaces themselves refuse by that name."""

    name: str
    bodies: dict[str, dict[str, Any]]
    shown: Callable[[Read], bool]
    field: str = ""


def _user(content: Any = _QUESTION) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


def _three(**more: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The plain question on each surface named in `more`, with what is added to it there."""
    plain: dict[str, dict[str, Any]] = {
        "chat": _user(),
        "responses": {"input": _QUESTION},
        "messages": {"max_tokens": 2000, **_user()},
    }
    return {surface: plain[surface] | added for surface, added in more.items()}


def _tools(content: str = _WEATHER, **more: dict[str, Any]) -> dict[str, dict[str, Any]]:
    added: dict[str, dict[str, Any]] = {
        "chat": {**_user(content), "tools": [{"type": "function", "function": _FUNCTION}]},
        "responses": {"input": content, "tools": [{"type": "function", **_FUNCTION}]},
        "messages": {
            **_user(content),
            "tools": [{"name": "get_weather", "input_schema": _SCHEMA}],
        },
    }
    return _three(**{name: body | more.get(name, {}) for name, body in added.items()})


def _results() -> dict[str, dict[str, Any]]:
    user = {"role": "user", "content": _WEATHER}
    call = {"name": "get_weather", "arguments": '{"city":"Rome"}'}
    chat = [
        user,
        {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function", "function": call}]},
        {"role": "tool", "tool_call_id": "c1", "content": "22 degrees"},
    ]
    items = [
        user,
        {"type": "function_call", "call_id": "c1", **call},
        {"type": "function_call_output", "call_id": "c1", "output": "22 degrees"},
    ]
    use = {"type": "tool_use", "id": "c1", "name": "get_weather", "input": {"city": "Rome"}}
    result = {"type": "tool_result", "tool_use_id": "c1", "content": "22 degrees"}
    turns = [
        user,
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result]},
    ]
    return _tools(chat={"messages": chat}, responses={"input": items}, messages={"messages": turns})


def _image() -> dict[str, dict[str, Any]]:
    url = f"data:image/png;base64,{_PIXEL}"
    source = {"type": "base64", "media_type": "image/png", "data": _PIXEL}
    words = {"type": "text", "text": _QUESTION}
    picture = [
        {"type": "input_text", "text": _QUESTION},
        {"type": "input_image", "image_url": url},
    ]
    return _three(
        chat=_user([words, {"type": "image_url", "image_url": {"url": url}}]),
        responses={"input": [{"role": "user", "content": picture}]},
        messages=_user([words, {"type": "image", "source": source}]),
    )


def _said(read: Read) -> bool:
    return bool(read.text) and read.ended and read.output_tokens > 0


def _called(read: Read) -> bool:
    (call,) = read.calls
    name, arguments = call
    return name == "get_weather" and "city" in json.loads(arguments) and read.ended


def _fits(read: Read) -> bool:
    return set(json.loads(read.text)) == {"city"}


_STREAM = {"stream": True}
_FORMAT = {"type": "json_schema", "name": "place", "schema": _SCHEMA}
_CHAT_FORMAT = {"type": "json_schema", "json_schema": {"name": "place", "schema": _SCHEMA}}

FEATURES = (
    Feature("text", _three(chat={}, responses={}, messages={}), _said),
    Feature(
        "stream",
        _three(
            chat=_STREAM | {"stream_options": {"include_usage": True}},
            responses=_STREAM,
            messages=_STREAM,
        ),
        _said,
    ),
    Feature(
        "system prompt",
        _three(
            chat={
                "messages": [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": _QUESTION},
                ]
            },
            responses={"instructions": "Be brief."},
            messages={"system": [{"type": "text", "text": "Be brief."}]},
        ),
        _said,
    ),
    Feature("tools", _tools(), _called),
    Feature("tools, streamed", _tools(chat=_STREAM, responses=_STREAM, messages=_STREAM), _called),
    Feature(
        "a tool forced",
        _tools(
            _QUESTION,
            chat={"tool_choice": {"type": "function", "function": {"name": "get_weather"}}},
            responses={"tool_choice": {"type": "function", "name": "get_weather"}},
            messages={"tool_choice": {"type": "tool", "name": "get_weather"}},
        ),
        _called,
    ),
    Feature("tool results", _results(), lambda read: "22 degrees" in read.text),
    Feature(
        "JSON schema",
        _three(
            chat={"response_format": _CHAT_FORMAT},
            responses={"text": {"format": _FORMAT}},
            messages={"output_config": {"format": {"type": "json_schema", "schema": _SCHEMA}}},
        ),
        _fits,
    ),
    Feature("images", _image(), _said),
    Feature(
        "token limit",
        _three(
            chat={"max_completion_tokens": 1},
            responses={"max_output_tokens": 1},
            messages={"max_tokens": 1},
        ),
        lambda read: read.finish in ("length", "max_output_tokens", "max_tokens"),
    ),
    Feature(
        "stop sequences",
        _three(chat={"stop": ["e"]}, messages={"stop_sequences": ["e"]}),
        lambda read: "e" not in read.text and read.output_tokens > 0,
    ),
    Feature("several choices", _three(chat={"n": 2}), lambda read: len(read.texts) == 2),
    Feature(
        "reasoning",
        _three(
            chat={"reasoning_effort": "low"},
            responses={"reasoning": {"effort": "low"}},
            messages={"thinking": {"type": "enabled", "budget_tokens": 1024}},
        ),
        _said,
    ),
    Feature(
        "prompt cache hints",
        _three(
            chat={"prompt_cache_key": "a"},
            responses={"prompt_cache_key": "a"},
            messages={
                "system": [{"type": "text", "text": "Hi.", "cache_control": {"type": "ephemeral"}}]
            },
        ),
        _said,
    ),
    Feature(
        "audio in",
        _three(
            chat=_user([{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]),
            responses={"input": [{"role": "user", "content": [{"type": "input_audio"}]}]},
        ),
        _said,
        "content",
    ),
    Feature(
        "stored conversations",
        _three(responses={"previous_response_id": "resp_1"}, messages={"container": "c"}),
        _said,
        "previous_response_id container",
    ),
    Feature(
        "several vectors",
        {"embeddings": {"input": ["a", "b"]}},
        lambda read: [len(json.loads(vector)) > 255 for vector in read.texts] == [True, True],
    ),
    Feature(
        "vectors, packed",
        {"embeddings": {"input": "a", "encoding_format": "base64"}},
        lambda read: len(json.loads(read.text)) > 1024,
    ),
    Feature(
        "vectors, shortened",
        {"embeddings": {"input": "a", "dimensions": 256}},
        lambda read: len(json.loads(read.text)) == 256,
    ),
)
