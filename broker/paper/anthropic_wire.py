"""Anthropic Messages as a seller speaks it: requests in, bodies, events and errors out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import msgspec
from msgspec import Struct

from broker.paper.ask import Ask, Choice, Frame, Reply, ToolSpec, Turn, When, misreport, pieces
from broker.paper.errors import BadAsk

STREAM_TYPE = "text/event-stream"
ID_PREFIX = "msg_"
VERTEX_VERSION = "vertex-2023-10-16"
_ENCODER = msgspec.json.Encoder()


class _Tool(Struct):
    name: str
    input_schema: dict[str, Any] = {}


class _Message(Struct):
    role: Literal["user", "assistant", "system"]
    content: str | list[dict[str, Any]]


class _ToolChoice(Struct):
    type: Literal["auto", "any", "tool", "none"]
    name: str = ""


class _Format(Struct):
    type: Literal["json_schema"]
    schema: dict[str, Any]


class _Output(Struct):
    format: _Format | None = None
    effort: str | None = None


class _Body(Struct):
    messages: list[_Message]
    model: str | None = None
    anthropic_version: str | None = None
    output_config: _Output | None = None
    max_tokens: int | None = None
    system: str | list[dict[str, Any]] | None = None
    stream: bool | None = None
    tools: list[_Tool] | None = None
    tool_choice: _ToolChoice | None = None
    stop_sequences: list[str] | None = None


_DECODER = msgspec.json.Decoder(_Body)


def decode(raw: bytes, model: str | None = None, stream: bool = False) -> Ask:
    """The request in `raw`. Raises `BadAsk` (400) as Anthropic refuses it.

    On Vertex the `model` is in the address, and the body says which version it keeps to.
    """
    try:
        body = _DECODER.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadAsk(f"Invalid body: {error}") from error
    if (model is None) != (body.anthropic_version is None) or (model or body.model) is None:
        raise BadAsk("model: Field required" if model is None else "anthropic_version: required")
    if model is not None and (body.model is not None or body.anthropic_version != VERTEX_VERSION):
        raise BadAsk("model: Extra inputs are not permitted")
    if body.max_tokens is None:
        raise BadAsk("max_tokens: Field required")
    if body.max_tokens < 1:
        raise BadAsk("max_tokens: Input should be greater than or equal to 1")
    if not body.messages:
        raise BadAsk("messages: at least one message is required")
    marked = b'"cache_control"' in raw
    turns, n_images = [], 0
    if body.system:
        turns.append(Turn("system", _text(body.system)[0]))
    for message in body.messages:
        text, images, is_result = _text(message.content)
        n_images += images
        turns.append(Turn(message.role, text, is_result))
    choice = body.tool_choice
    form = body.output_config.format if body.output_config is not None else None
    return Ask(
        model=model or body.model or "",
        turns=turns,
        max_tokens=body.max_tokens,
        stream=bool(body.stream),
        include_usage=True,
        tools=[ToolSpec(tool.name, tool.input_schema) for tool in body.tools or []],
        tool_choice=_CHOICES.get(choice.type, choice.name) if choice else "auto",
        json_schema=form.schema if form is not None else None,
        stop=body.stop_sequences or [],
        n_images=n_images,
        cache_marked=marked,
    )


_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def _text(content: str | list[dict[str, Any]]) -> tuple[str, int, bool]:
    if isinstance(content, str):
        return content, 0, False
    texts, n_images, is_result = [], 0, False
    for block in content:
        kind = block.get("type")
        if kind == "text":
            texts.append(str(block.get("text", "")))
        elif kind == "image":
            n_images += 1
        elif kind == "tool_result":
            is_result = True
            inner = block.get("content") or ""
            texts.append(_text(inner)[0] if isinstance(inner, str | list) else str(inner))
    return "\n".join(texts), n_images, is_result


def usage(reply: Reply) -> dict[str, Any] | None:
    """The usage object, as told; `input_tokens` leaves out what was cached or written."""
    return misreport(
        {
            "input_tokens": reply.input_tokens - reply.cached_tokens - reply.written_tokens,
            "cache_creation_input_tokens": reply.written_tokens,
            "cache_read_input_tokens": reply.cached_tokens,
            "output_tokens": reply.output_tokens,
        },
        reply.lie,
    )


def _stop_reason(choice: Choice) -> str:
    reasons = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
    return reasons.get(choice.finish, choice.finish)


def _message(reply: Reply, choice: Choice) -> dict[str, Any]:
    return {
        "id": reply.id,
        "type": "message",
        "role": "assistant",
        "model": reply.model,
        "content": [],
        "stop_reason": _stop_reason(choice),
        "stop_sequence": choice.stopped_by,
    }


def encode(reply: Reply) -> bytes:
    """The body of a whole answer."""
    choice = reply.choices[0]
    body = _message(reply, choice)
    if choice.tool_call is None:
        body["content"] = [{"type": "text", "text": choice.text}]
    else:
        call = choice.tool_call
        arguments = json.loads(call.arguments)
        body["content"] = [
            {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments}
        ]
    if (told := usage(reply)) is not None:
        body["usage"] = told
    return _ENCODER.encode(body)


def event(name: str, **fields: Any) -> bytes:
    """One server-sent event."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), _ENCODER.encode({"type": name, **fields}))


def frames(reply: Reply, *, include_usage: bool, most_chunks: int) -> Iterator[Frame]:
    """The stream of `reply`, events in the documented order."""
    choice = reply.choices[0]
    started = _message(reply, choice) | {"stop_reason": None, "stop_sequence": None}
    told = usage(reply) if include_usage else None
    if told is not None:
        started["usage"] = told | {"output_tokens": min(1, reply.output_tokens)}
    yield Frame(When.PRELUDE, event("message_start", message=started))
    call = choice.tool_call
    block: dict[str, Any] = {"type": "text", "text": ""}
    if call is not None:
        block = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
    yield Frame(When.PRELUDE, event("content_block_start", index=0, content_block=block))
    yield Frame(When.PRELUDE, event("ping"))
    for piece in pieces(choice.text if call is None else call.arguments, most_chunks):
        delta = (
            {"type": "text_delta", "text": piece}
            if call is None
            else {"type": "input_json_delta", "partial_json": piece}
        )
        data = event("content_block_delta", index=0, delta=delta)
        yield Frame(When.CONTENT, data, -(-len(piece) // 4))
    yield Frame(When.EPILOGUE, event("content_block_stop", index=0))
    stop = {"stop_reason": _stop_reason(choice), "stop_sequence": choice.stopped_by}
    ended: dict[str, Any] = {"delta": stop}
    if told is not None:
        ended["usage"] = {"output_tokens": told["output_tokens"]}
    yield Frame(When.EPILOGUE, event("message_delta", **ended))
    yield Frame(When.EPILOGUE, event("message_stop"))


_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    529: "overloaded_error",
}


def _error(status: int, message: str) -> dict[str, Any]:
    return {"type": _TYPES.get(status, "api_error"), "message": message}


def error_body(
    status: int, message: str, code: str | None = None, param: str | None = None
) -> bytes:
    """The body of an error."""
    return _ENCODER.encode({"type": "error", "error": _error(status, message)})


def error_frame(message: str) -> bytes:
    """An error in the middle of a stream."""
    return event("error", error=_error(529, message))
