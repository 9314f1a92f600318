"""Bedrock's Converse as a seller speaks it: requests in, bodies, event streams, errors out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import msgspec
from msgspec import Struct

from broker.paper.ask import Ask, Choice, Frame, Reply, ToolSpec, Turn, When, misreport, pieces
from broker.paper.embedders import EmbedAsk
from broker.paper.errors import BadAsk
from broker.providers.event_stream import encode_message

STREAM_TYPE = "application/vnd.amazon.eventstream"
ID_PREFIX = ""
_ENCODER = msgspec.json.Encoder()


class _Spec(Struct, rename="camel", forbid_unknown_fields=True):
    name: str
    input_schema: dict[str, Any]
    description: str = ""
    strict: bool = False


class _Tool(Struct, rename="camel", forbid_unknown_fields=True):
    tool_spec: _Spec | None = None
    cache_point: dict[str, str] | None = None


class _ToolConfig(Struct, rename="camel", forbid_unknown_fields=True):
    tools: list[_Tool]
    tool_choice: dict[str, dict[str, str]] = {}


class _Message(Struct, forbid_unknown_fields=True):
    role: Literal["user", "assistant"]
    content: list[dict[str, Any]]


class _Inference(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop_sequences: list[str] = []


class _Body(Struct, rename="camel", forbid_unknown_fields=True):
    messages: list[_Message]
    system: list[dict[str, Any]] = []
    inference_config: _Inference = _Inference()
    tool_config: _ToolConfig | None = None
    output_config: dict[str, Any] = {}
    additional_model_request_fields: dict[str, Any] = {}
    request_metadata: dict[str, str] = {}


_DECODER = msgspec.json.Decoder(_Body)


def decode(raw: bytes, model: str | None = None, stream: bool = False) -> Ask:
    """The request in `raw`. Raises `BadAsk` (400) as AWS refuses it."""
    try:
        body = _DECODER.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadAsk(f"Malformed input request: {error}") from error
    turns, n_images = [], 0
    if body.system:
        turns.append(Turn("system", _text(body.system)[0]))
    last = ""
    for message in body.messages:
        if message.role == last or not message.content:
            raise BadAsk("A conversation must alternate between user and assistant roles.")
        last = message.role
        text, images, is_result = _text(message.content)
        n_images += images
        turns.append(Turn(message.role, text, is_result))
    if not body.messages or body.messages[0].role != "user":
        raise BadAsk("A conversation must start with a user message.")
    tools = body.tool_config
    specs = [t.tool_spec for t in tools.tools if t.tool_spec is not None] if tools else []
    return Ask(
        model=model or "",
        turns=turns,
        max_tokens=body.inference_config.max_tokens,
        stream=stream,
        include_usage=True,
        tools=[ToolSpec(spec.name, spec.input_schema.get("json", {})) for spec in specs],
        tool_choice=_tool_choice(tools.tool_choice) if tools else "auto",
        json_schema=_schema(body.output_config),
        stop=body.inference_config.stop_sequences,
        n_images=n_images,
        cache_marked=b'"cachePoint"' in raw,
    )


def _tool_choice(choice: dict[str, dict[str, str]]) -> str:
    if "any" in choice:
        return "required"
    return choice["tool"].get("name", "") if "tool" in choice else "auto"


def _schema(output: dict[str, Any]) -> dict[str, Any] | None:
    if not output:
        return None
    try:
        text = output["textFormat"]["structure"]["jsonSchema"]["schema"]
        found: dict[str, Any] = json.loads(text)
    except (KeyError, TypeError, ValueError) as error:
        raise BadAsk(f"outputConfig.textFormat is not valid: {error!r}") from error
    return found


def _text(content: list[dict[str, Any]]) -> tuple[str, int, bool]:
    texts, n_images, is_result = [], 0, False
    for block in content:
        if len(block) != 1:
            raise BadAsk(f"A content block is a union: one member, not {sorted(block)}.")
        if "text" in block:
            texts.append(str(block["text"]))
        elif "image" in block:
            n_images += 1
        elif "toolResult" in block:
            is_result = True
            texts.append(_text(block["toolResult"]["content"])[0])
    return "\n".join(texts), n_images, is_result


def usage(reply: Reply) -> dict[str, Any] | None:
    """The usage object, as told; `inputTokens` leaves out what was cached or written."""
    return misreport(
        {
            "inputTokens": reply.input_tokens - reply.cached_tokens - reply.written_tokens,
            "outputTokens": reply.output_tokens,
            "totalTokens": reply.input_tokens + reply.output_tokens,
            "cacheReadInputTokens": reply.cached_tokens,
            "cacheWriteInputTokens": reply.written_tokens,
        },
        reply.lie,
    )


def _stop_reason(choice: Choice) -> str:
    reasons = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
    return reasons.get(choice.finish, choice.finish)


def encode(reply: Reply) -> bytes:
    """The body of a whole answer."""
    choice = reply.choices[0]
    block: dict[str, Any] = {"text": choice.text}
    if choice.tool_call is not None:
        call = choice.tool_call
        use = {"toolUseId": call.id, "name": call.name, "input": json.loads(call.arguments)}
        block = {"toolUse": use}
    body: dict[str, Any] = {
        "output": {"message": {"role": "assistant", "content": [block]}},
        "stopReason": _stop_reason(choice),
        "metrics": {"latencyMs": 1},
    }
    if (told := usage(reply)) is not None:
        body["usage"] = told
    return _ENCODER.encode(body)


def event(name: str, payload: dict[str, Any]) -> bytes:
    """One message of the stream."""
    headers = {
        ":event-type": name,
        ":content-type": "application/json",
        ":message-type": "event",
    }
    return encode_message(headers, _ENCODER.encode(payload))


def frames(reply: Reply, *, include_usage: bool, most_chunks: int) -> Iterator[Frame]:
    """The stream of `reply`, events in the documented order."""
    choice = reply.choices[0]
    call = choice.tool_call
    yield Frame(When.PRELUDE, event("messageStart", {"role": "assistant"}))
    if call is not None:
        start = {"toolUse": {"toolUseId": call.id, "name": call.name}}
        opened = {"contentBlockIndex": 0, "start": start}
        yield Frame(When.PRELUDE, event("contentBlockStart", opened))
    for piece in pieces(choice.text if call is None else call.arguments, most_chunks):
        delta = {"text": piece} if call is None else {"toolUse": {"input": piece}}
        data = event("contentBlockDelta", {"contentBlockIndex": 0, "delta": delta})
        yield Frame(When.CONTENT, data, -(-len(piece) // 4))
    yield Frame(When.EPILOGUE, event("contentBlockStop", {"contentBlockIndex": 0}))
    yield Frame(When.EPILOGUE, event("messageStop", {"stopReason": _stop_reason(choice)}))
    metadata: dict[str, Any] = {"metrics": {"latencyMs": 1}}
    if (told := usage(reply)) is not None:
        metadata["usage"] = told
    yield Frame(When.EPILOGUE, event("metadata", metadata))


TYPES = {
    400: "ValidationException",
    401: "UnrecognizedClientException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    408: "ModelTimeoutException",
    424: "ModelErrorException",
    429: "ThrottlingException",
    503: "ServiceUnavailableException",
}


def error_body(
    status: int, message: str, code: str | None = None, param: str | None = None
) -> bytes:
    """The body of an error."""
    return _ENCODER.encode(
        {"__type": TYPES.get(status, "InternalServerException"), "message": message}
    )


def error_frame(message: str) -> bytes:
    """An exception in the middle of a stream."""
    headers = {
        ":exception-type": "internalServerException",
        ":content-type": "application/json",
        ":message-type": "exception",
    }
    return encode_message(headers, _ENCODER.encode({"message": message}))


class _Titan(Struct, rename="camel", forbid_unknown_fields=True):
    input_text: str
    dimensions: int | None = None
    normalize: bool = True


def decode_embed(raw: bytes, model: str | None = None) -> EmbedAsk:
    """An `InvokeModel` of Titan's. Raises `BadAsk`."""
    try:
        asked = msgspec.json.decode(raw, type=_Titan)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadAsk(f"Malformed input request: {error}") from error
    return EmbedAsk(model or "", [asked.input_text], dimensions=asked.dimensions)


def encode_embed(ask: EmbedAsk, vectors: list[list[float]], n_tokens: int) -> bytes:
    """Titan's answer."""
    return _ENCODER.encode({"embedding": vectors[0], "inputTextTokenCount": n_tokens})
