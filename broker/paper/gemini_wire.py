"""Gemini `generateContent` as a seller speaks it: requests in, bodies, pieces and errors out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Literal

import msgspec
from msgspec import Struct

from broker.paper.ask import Ask, Choice, Frame, Reply, ToolSpec, Turn, When, misreport, pieces
from broker.paper.embedders import EmbedAsk
from broker.paper.errors import BadAsk

STREAM_TYPE = "text/event-stream"
ID_PREFIX = ""
_ENCODER = msgspec.json.Encoder()


class _Function(Struct, rename="camel", forbid_unknown_fields=True):
    name: str
    description: str = ""
    parameters: dict[str, Any] | None = None
    parameters_json_schema: dict[str, Any] | None = None


class _Tool(Struct, rename="camel", forbid_unknown_fields=True):
    function_declarations: list[_Function] = []


class _Calling(Struct, rename="camel", forbid_unknown_fields=True):
    mode: Literal["AUTO", "ANY", "NONE", "VALIDATED"] = "AUTO"
    allowed_function_names: list[str] = []


class _ToolConfig(Struct, rename="camel", forbid_unknown_fields=True):
    function_calling_config: _Calling


class _Content(Struct, forbid_unknown_fields=True):
    parts: list[dict[str, Any]]
    role: Literal["user", "model"] = "user"


class _Generation(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    candidate_count: int = 1
    max_output_tokens: int | None = None
    stop_sequences: list[str] = []
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    response_mime_type: str = "text/plain"
    response_json_schema: dict[str, Any] | None = None
    thinking_config: dict[str, Any] | None = None


class _Body(Struct, rename="camel", forbid_unknown_fields=True):
    contents: list[_Content]
    system_instruction: _Content | None = None
    tools: list[_Tool] = []
    tool_config: _ToolConfig | None = None
    generation_config: _Generation = _Generation()
    safety_settings: list[dict[str, Any]] = []


_DECODER = msgspec.json.Decoder(_Body)
_SNAKE = re.compile(
    rb'"((?:system_instruction|function_declarations|parameters_json_schema|tool_config'
    rb"|function_calling_config|allowed_function_names|generation_config|safety_settings"
    rb"|top_p|top_k|candidate_count|max_output_tokens|stop_sequences|presence_penalty"
    rb"|frequency_penalty|response_mime_type|response_json_schema|thinking_config"
    rb'|inline_data|file_data|function_call|function_response))"(?=\s*:)'
)


def _camel(raw: bytes) -> bytes:
    """Field names in their JSON form; Google takes those of the proto (snake case) as well."""
    if b"_" not in raw:
        return raw

    def name(found: re.Match[bytes]) -> bytes:
        first, *rest = found.group(1).split(b"_")
        return b'"%b"' % (first + b"".join(word.capitalize() for word in rest))

    return _SNAKE.sub(name, raw)


def decode(raw: bytes, model: str | None = None, stream: bool = False) -> Ask:
    """The request in `raw`. Raises `BadAsk` (400) as Google refuses it."""
    try:
        body = _DECODER.decode(_camel(raw))
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadAsk(f"Invalid JSON payload received. {error}") from error
    if not body.contents:
        raise BadAsk("* GenerateContentRequest.contents: contents is not specified")
    turns, n_images = [], 0
    if body.system_instruction is not None:
        turns.append(Turn("system", _text(body.system_instruction.parts)[0]))
    for content in body.contents:
        text, images, is_result = _text(content.parts)
        n_images += images
        turns.append(Turn(content.role, text, is_result))
    config = body.generation_config
    calling = body.tool_config.function_calling_config if body.tool_config else _Calling()
    named = calling.allowed_function_names
    forced = named[0] if len(named) == 1 else "required"
    return Ask(
        model=model or "",
        turns=turns,
        max_tokens=config.max_output_tokens,
        stream=stream,
        include_usage=True,
        tools=[
            ToolSpec(f.name, f.parameters_json_schema or f.parameters or {})
            for tool in body.tools
            for f in tool.function_declarations
        ],
        tool_choice={"ANY": forced, "NONE": "none"}.get(calling.mode, "auto"),
        json_mode=config.response_mime_type == "application/json",
        json_schema=config.response_json_schema,
        n=config.candidate_count,
        stop=config.stop_sequences,
        n_images=n_images,
    )


def _text(parts: list[dict[str, Any]]) -> tuple[str, int, bool]:
    texts, n_images, is_result = [], 0, False
    for part in parts:
        if "text" in part:
            texts.append(str(part["text"]))
        elif "inlineData" in part or "fileData" in part:
            n_images += 1
        elif "functionResponse" in part:
            is_result = True
            said = part["functionResponse"].get("response", {})
            texts.append(str(said["result"]) if list(said) == ["result"] else json.dumps(said))
        elif "functionCall" not in part:
            raise BadAsk(f"Invalid value at 'contents.parts': unknown part {sorted(part)}")
    return "\n".join(texts), n_images, is_result


def usage(reply: Reply) -> dict[str, Any] | None:
    """The usage object, as told; thoughts stand apart from the candidates."""
    return misreport(
        {
            "promptTokenCount": reply.input_tokens,
            "candidatesTokenCount": reply.output_tokens - reply.reasoning_tokens,
            "totalTokenCount": reply.input_tokens + reply.output_tokens,
            "cachedContentTokenCount": reply.cached_tokens,
            "thoughtsTokenCount": reply.reasoning_tokens,
        },
        reply.lie,
    )


def _finish(choice: Choice) -> str:
    return "MAX_TOKENS" if choice.finish == "length" else "STOP"


def _parts(choice: Choice) -> list[dict[str, Any]]:
    if choice.tool_call is None:
        return [{"text": choice.text}]
    call = choice.tool_call
    return [{"functionCall": {"name": call.name, "args": json.loads(call.arguments)}}]


def _answer(reply: Reply, candidates: list[dict[str, Any]], told: dict[str, Any] | None) -> bytes:
    body: dict[str, Any] = {"candidates": candidates}
    if told is not None:
        body["usageMetadata"] = told
    return _ENCODER.encode({**body, "modelVersion": reply.model, "responseId": reply.id})


def encode(reply: Reply) -> bytes:
    """The body of a whole answer."""
    candidates = [
        {
            "content": {"parts": _parts(choice), "role": "model"},
            "finishReason": _finish(choice),
            "index": i,
        }
        for i, choice in enumerate(reply.choices)
    ]
    return _answer(reply, candidates, usage(reply))


def frames(reply: Reply, *, include_usage: bool, most_chunks: int) -> Iterator[Frame]:
    """The stream of `reply`: partial answers, each with the usage so far, CRLF between them."""
    told = usage(reply)

    def frame(when: When, i: int, parts: list[dict[str, Any]], end: str | None, n: int) -> Frame:
        candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": i}
        if end is not None:
            candidate["finishReason"] = end
        data = _answer(reply, [candidate], told if end is not None else None)
        return Frame(when, b"data: %b\r\n\r\n" % data, n)

    for i, choice in enumerate(reply.choices):
        if choice.tool_call is None:
            for piece in pieces(choice.text, most_chunks):
                yield frame(When.CONTENT, i, [{"text": piece}], None, -(-len(piece) // 4))
        else:
            n = -(-len(choice.tool_call.arguments) // 4)
            yield frame(When.CONTENT, i, _parts(choice), None, n)
        yield frame(When.EPILOGUE, i, [{"text": ""}], _finish(choice), 0)


_WORDS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def error_body(
    status: int, message: str, code: str | None = None, param: str | None = None
) -> bytes:
    """The body of an error."""
    word = _WORDS.get(status, "UNKNOWN")
    return _ENCODER.encode({"error": {"code": status, "message": message, "status": word}})


def error_frame(message: str) -> bytes:
    """An error in the middle of a stream."""
    return b"data: %b\r\n\r\n" % error_body(500, message)


class _Wanted(Struct, rename="camel", forbid_unknown_fields=True):
    content: _Content
    model: str = ""
    output_dimensionality: int | None = None
    task_type: str | None = None


class _Batch(Struct, forbid_unknown_fields=True):
    requests: list[_Wanted]


class _Instance(Struct, forbid_unknown_fields=True):
    content: str
    task_type: str | None = None


class _Parameters(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    output_dimensionality: int | None = None


class _Predict(Struct, forbid_unknown_fields=True):
    instances: list[_Instance]
    parameters: _Parameters = _Parameters()


def decode_embed(raw: bytes, model: str | None = None) -> EmbedAsk:
    """A `batchEmbedContents` or a `predict`. Raises `BadAsk`."""
    try:
        if b'"instances"' in raw:
            asked = msgspec.json.decode(raw, type=_Predict)
            texts: list[str | int | list[int]] = [one.content for one in asked.instances]
            return EmbedAsk(model or "", texts, dimensions=asked.parameters.output_dimensionality)
        batch = msgspec.json.decode(raw, type=_Batch)
        if not batch.requests:
            raise BadAsk("* BatchEmbedContentsRequest.requests: at least one is required")
        texts = [_text(one.content.parts)[0] for one in batch.requests]
        size = batch.requests[0].output_dimensionality
        return EmbedAsk(model or "", texts, dimensions=size)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadAsk(f"Invalid JSON payload received. {error}") from error


def encode_embed(ask: EmbedAsk, vectors: list[list[float]], n_tokens: int) -> bytes:
    """The Gemini API's answer; it tells no usage."""
    return _ENCODER.encode({"embeddings": [{"values": vector} for vector in vectors]})
