"""OpenAI chat completions as a seller speaks it: requests in, bodies, chunks and errors out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import msgspec
from msgspec import Struct

from broker.paper.ask import Ask, Choice, Frame, Reply, ToolSpec, Turn, When, misreport, pieces
from broker.paper.errors import BadAsk

STREAM_TYPE = "text/event-stream"
ID_PREFIX = "chatcmpl-"
_ENCODER = msgspec.json.Encoder()


class _Function(Struct):
    name: str
    parameters: dict[str, Any] = {}


class _Tool(Struct):
    function: _Function
    type: str = "function"


class _Message(Struct):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None


class _JsonSchema(Struct):
    name: str = ""
    schema: dict[str, Any] = {}


class _ResponseFormat(Struct):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _JsonSchema | None = None


class _StreamOptions(Struct):
    include_usage: bool | None = None


class _Body(Struct):
    model: str
    messages: list[_Message]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    tools: list[_Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: _ResponseFormat | None = None
    n: int | None = None
    stop: str | list[str] | None = None


_DECODER = msgspec.json.Decoder(_Body)


def decode(raw: bytes, model: str | None = None, stream: bool = False) -> Ask:
    """The request in `raw`; a `model` in the address goes before the body's. Raises `BadAsk`
    (400) as OpenAI refuses it.
    """
    try:
        body = _DECODER.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadAsk(f"Invalid body: {error}") from error
    if not body.messages:
        raise BadAsk("[] is too short - 'messages'", param="messages")
    limit = body.max_completion_tokens if body.max_tokens is None else body.max_tokens
    if limit is not None and limit < 1:
        raise BadAsk("max_tokens is too small: must be at least 1", param="max_tokens")
    if body.n is not None and not 1 <= body.n <= 128:
        raise BadAsk("n must be between 1 and 128", param="n")
    turns, n_images = [], 0
    for message in body.messages:
        text, images = _text(message.content)
        n_images += images
        turns.append(Turn(message.role, text, message.role in ("tool", "function")))
    form = body.response_format
    return Ask(
        model=model or body.model,
        turns=turns,
        max_tokens=limit,
        stream=bool(body.stream),
        include_usage=bool(body.stream_options and body.stream_options.include_usage),
        tools=[ToolSpec(t.function.name, t.function.parameters) for t in body.tools or []],
        tool_choice=_tool_choice(body.tool_choice),
        json_mode=form is not None and form.type != "text",
        json_schema=form.json_schema.schema if form and form.json_schema else None,
        n=body.n or 1,
        stop=[body.stop] if isinstance(body.stop, str) else body.stop or [],
        n_images=n_images,
    )


def _text(content: str | list[dict[str, Any]] | None) -> tuple[str, int]:
    if content is None or isinstance(content, str):
        return content or "", 0
    texts = [str(part.get("text", "")) for part in content if part.get("type") == "text"]
    return "\n".join(texts), sum(part.get("type") == "image_url" for part in content)


def _tool_choice(choice: str | dict[str, Any] | None) -> str:
    if isinstance(choice, dict):
        return str(choice.get("function", {}).get("name", "required"))
    return choice or "auto"


def usage(reply: Reply) -> dict[str, Any] | None:
    """The usage object, as told."""
    return misreport(
        {
            "prompt_tokens": reply.input_tokens,
            "completion_tokens": reply.output_tokens,
            "total_tokens": reply.input_tokens + reply.output_tokens,
            "prompt_tokens_details": {"cached_tokens": reply.cached_tokens},
            "completion_tokens_details": {"reasoning_tokens": reply.reasoning_tokens},
        },
        reply.lie,
    )


def encode(reply: Reply) -> bytes:
    """The body of a whole answer."""
    body: dict[str, Any] = {
        "id": reply.id,
        "object": "chat.completion",
        "created": reply.created,
        "model": reply.model,
        "choices": [
            {
                "index": i,
                "message": _message(choice),
                "logprobs": None,
                "finish_reason": _finish(choice),
            }
            for i, choice in enumerate(reply.choices)
        ],
        "system_fingerprint": "fp_paper",
    }
    if (told := usage(reply)) is not None:
        body["usage"] = told
    return _ENCODER.encode(body)


def _message(choice: Choice) -> dict[str, Any]:
    if choice.tool_call is None:
        return {"role": "assistant", "content": choice.text, "refusal": None}
    call = choice.tool_call
    function = {"name": call.name, "arguments": call.arguments}
    calls = [{"id": call.id, "type": "function", "function": function}]
    return {"role": "assistant", "content": None, "refusal": None, "tool_calls": calls}


def _finish(choice: Choice) -> str:
    return "stop" if choice.finish == "stop_sequence" else choice.finish


def frames(reply: Reply, *, include_usage: bool, most_chunks: int) -> Iterator[Frame]:
    """The stream of `reply`: role chunk, content, finish, usage if asked for, `[DONE]`."""
    head = _ENCODER.encode(
        {
            "id": reply.id,
            "object": "chat.completion.chunk",
            "created": reply.created,
            "model": reply.model,
            "system_fingerprint": "fp_paper",
        }
    )[:-1]
    unused = b',"usage":null' if include_usage else b""

    def chunk(index: int, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        return b"data: %b,%b%b}\n\n" % (head, b'"choices":[%b]' % _ENCODER.encode(choice), unused)

    for index, choice in enumerate(reply.choices):
        call = choice.tool_call
        if call is None:
            yield Frame(When.PRELUDE, chunk(index, {"role": "assistant", "content": ""}))
            for piece in pieces(choice.text, most_chunks):
                yield Frame(When.CONTENT, chunk(index, {"content": piece}), -(-len(piece) // 4))
        else:
            function = {"name": call.name, "arguments": ""}
            opened = {"index": 0, "id": call.id, "type": "function", "function": function}
            role = {"role": "assistant", "content": None, "tool_calls": [opened]}
            yield Frame(When.PRELUDE, chunk(index, role))
            for piece in pieces(call.arguments, most_chunks):
                delta = {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
                yield Frame(When.CONTENT, chunk(index, delta), -(-len(piece) // 4))
        yield Frame(When.EPILOGUE, chunk(index, {}, _finish(choice)))
    if include_usage and (told := usage(reply)) is not None:
        tail = b"data: %b,%b}\n\n" % (head, b'"choices":[],"usage":%b' % _ENCODER.encode(told))
        yield Frame(When.EPILOGUE, tail)
    yield Frame(When.EPILOGUE, b"data: [DONE]\n\n")


_TYPES = {
    401: "invalid_request_error",
    404: "invalid_request_error",
    400: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}


def error_body(
    status: int, message: str, code: str | None = None, param: str | None = None
) -> bytes:
    """The body of an error."""
    kind = _TYPES.get(status, "server_error")
    error = {"message": message, "type": kind, "param": param, "code": code}
    return json.dumps({"error": error}).encode()


def error_frame(message: str) -> bytes:
    """An error in the middle of a stream."""
    return b"data: %b\n\n" % error_body(500, message)
