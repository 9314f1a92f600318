"""Cohere v2 chat as a seller speaks it: requests in, bodies, events and errors out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from broker.paper.ask import Ask, Choice, Frame, Reply, ToolSpec, Turn, When, misreport, pieces
from broker.paper.embedders import EmbedAsk
from broker.paper.errors import BadAsk

STREAM_TYPE = "text/event-stream"
ID_PREFIX = ""
PLAN = "I will use a tool."
_ENCODER = msgspec.json.Encoder()
_Share = Annotated[float, Meta(ge=0.0, le=1.0)]


class _Function(Struct, forbid_unknown_fields=True):
    name: str
    parameters: dict[str, Any] = {}
    description: str = ""


class _Tool(Struct, forbid_unknown_fields=True):
    function: _Function
    type: Literal["function"] = "function"


class _Message(Struct, forbid_unknown_fields=True):
    role: Literal["system", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_plan: str | None = None
    tool_call_id: str | None = None


class _Format(Struct, forbid_unknown_fields=True):
    type: Literal["text", "json_object"]
    json_schema: dict[str, Any] | None = None


class _Body(Struct, forbid_unknown_fields=True):
    model: str
    messages: list[_Message]
    stream: bool = False
    tools: list[_Tool] = []
    tool_choice: Literal["REQUIRED", "NONE"] | None = None
    strict_tools: bool = False
    response_format: _Format | None = None
    max_tokens: int | None = None
    stop_sequences: list[str] = []
    temperature: _Share | None = None
    p: Annotated[float, Meta(ge=0.01, le=0.99)] | None = None
    k: Annotated[int, Meta(ge=0, le=500)] | None = None
    seed: int | None = None
    frequency_penalty: _Share | None = None
    presence_penalty: _Share | None = None
    thinking: dict[str, Any] | None = None
    logprobs: bool = False


_DECODER = msgspec.json.Decoder(_Body)


def decode(raw: bytes, model: str | None = None, stream: bool = False) -> Ask:
    """The request in `raw`. Raises `BadAsk` (400) as Cohere refuses it."""
    try:
        body = _DECODER.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadAsk(f"invalid request: {error}") from error
    if not body.messages:
        raise BadAsk("invalid request: list of messages must not be empty")
    turns, n_images = [], 0
    for message in body.messages:
        text, images = _text(message.content)
        n_images += images
        turns.append(Turn(message.role, text, message.role == "tool"))
    form = body.response_format
    return Ask(
        model=body.model,
        turns=turns,
        max_tokens=body.max_tokens,
        stream=body.stream,
        include_usage=True,
        tools=[ToolSpec(t.function.name, t.function.parameters) for t in body.tools],
        tool_choice={"REQUIRED": "required", "NONE": "none"}.get(body.tool_choice or "", "auto"),
        json_mode=form is not None and form.type == "json_object",
        json_schema=form.json_schema if form is not None else None,
        stop=body.stop_sequences,
        n_images=n_images,
    )


def _text(content: str | list[dict[str, Any]] | None) -> tuple[str, int]:
    if content is None or isinstance(content, str):
        return content or "", 0
    texts = [str(part.get("text", "")) for part in content if part.get("type") == "text"]
    return "\n".join(texts), sum(part.get("type") == "image_url" for part in content)


def usage(reply: Reply) -> dict[str, Any] | None:
    """The usage object, as told."""
    counts = {"input_tokens": reply.input_tokens, "output_tokens": reply.output_tokens}
    told = {"billed_units": counts, "tokens": dict(counts), "cached_tokens": reply.cached_tokens}
    return misreport(told, reply.lie)


def _finish(choice: Choice) -> str:
    reasons = {"stop": "COMPLETE", "length": "MAX_TOKENS", "tool_calls": "TOOL_CALL"}
    return reasons.get(choice.finish, "STOP_SEQUENCE")


def encode(reply: Reply) -> bytes:
    """The body of a whole answer."""
    choice = reply.choices[0]
    message: dict[str, Any] = {"role": "assistant"}
    if choice.tool_call is None:
        message["content"] = [{"type": "text", "text": choice.text}]
    else:
        call = choice.tool_call
        function = {"name": call.name, "arguments": call.arguments}
        message["tool_plan"] = PLAN
        message["tool_calls"] = [{"id": call.id, "type": "function", "function": function}]
    body: dict[str, Any] = {"id": reply.id, "message": message, "finish_reason": _finish(choice)}
    if (told := usage(reply)) is not None:
        body["usage"] = told
    return _ENCODER.encode(body)


def event(name: str, **fields: Any) -> bytes:
    """One server-sent event."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), _ENCODER.encode({"type": name, **fields}))


def _delta(name: str, **message: Any) -> bytes:
    return event(name, index=0, delta={"message": message})


def frames(reply: Reply, *, include_usage: bool, most_chunks: int) -> Iterator[Frame]:
    """The stream of `reply`, events in the documented order."""
    choice = reply.choices[0]
    opened = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": []}
    yield Frame(When.PRELUDE, event("message-start", id=reply.id, delta={"message": opened}))
    call = choice.tool_call
    if call is None:
        yield Frame(When.PRELUDE, _delta("content-start", content={"type": "text", "text": ""}))
        for piece in pieces(choice.text, most_chunks):
            data = _delta("content-delta", content={"text": piece})
            yield Frame(When.CONTENT, data, -(-len(piece) // 4))
        yield Frame(When.EPILOGUE, event("content-end", index=0))
    else:
        plan = event("tool-plan-delta", delta={"message": {"tool_plan": PLAN}})
        yield Frame(When.CONTENT, plan, 1)
        function = {"name": call.name, "arguments": ""}
        start = {"id": call.id, "type": "function", "function": function}
        yield Frame(When.CONTENT, _delta("tool-call-start", tool_calls=start), 1)
        for piece in pieces(call.arguments, most_chunks):
            data = _delta("tool-call-delta", tool_calls={"function": {"arguments": piece}})
            yield Frame(When.CONTENT, data, -(-len(piece) // 4))
        yield Frame(When.EPILOGUE, event("tool-call-end", index=0))
    ended: dict[str, Any] = {"finish_reason": _finish(choice)}
    if (told := usage(reply)) is not None:
        ended["usage"] = told
    yield Frame(When.EPILOGUE, event("message-end", delta=ended))


def error_body(
    status: int, message: str, code: str | None = None, param: str | None = None
) -> bytes:
    """The body of an error."""
    return _ENCODER.encode({"id": "paper", "message": message})


def error_frame(message: str) -> bytes:
    """An error in the middle of a stream."""
    return event("message-end", delta={"finish_reason": "ERROR", "error": message})


class _Embed(Struct, forbid_unknown_fields=True):
    model: str
    texts: list[str]
    input_type: Literal["search_document", "search_query", "classification", "clustering"]
    embedding_types: tuple[Literal["float"], ...] = ("float",)
    output_dimension: int | None = None


def decode_embed(raw: bytes, model: str | None = None) -> EmbedAsk:
    """An `embed`. Raises `BadAsk`."""
    try:
        asked = msgspec.json.decode(raw, type=_Embed)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadAsk(f"invalid request: {error}") from error
    if not asked.texts:
        raise BadAsk("invalid request: texts must not be empty")
    return EmbedAsk(asked.model, [*asked.texts], dimensions=asked.output_dimension)


def encode_embed(ask: EmbedAsk, vectors: list[list[float]], n_tokens: int) -> bytes:
    """The answer."""
    meta = {"api_version": {"version": "2"}, "billed_units": {"input_tokens": n_tokens}}
    body = {"id": "paper", "embeddings": {"float": vectors}, "texts": ask.input, "meta": meta}
    return _ENCODER.encode(body)
