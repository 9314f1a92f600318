"""OpenAI responses as we serve them: `POST /v1/responses`, the way in.

A response's input is a list of items where other formats have turns: a model's words, its
reasoning and each of its tool calls are items of their own, and so is each tool's result. What
stands together becomes one turn. Nothing is stored here, so whatever refers to something stored
is refused, with what to send instead; so are tools that run at OpenAI.

Entry point: `OPENAI_RESPONSES`, a `Surface`. The way out is `openai_responses_out`.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from bidding.errors import BadRequest
from bidding.request import Sla
from broker.wire.json_guard import ABSENT, decode_strictly, present
from broker.wire.neutral import (
    Answer,
    Effort,
    Image,
    Message,
    NeutralRequest,
    Part,
    ResponseFormat,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from broker.wire.openai_responses_out import ResponseStream, Sealed, response_body
from broker.wire.openai_shared import Name, PositiveInt, error_object, image_from_data_url
from broker.wire.surface import ErrorBody, ReplyMeta

REFUSED: dict[str, str] = {
    "previous_response_id": "responses are not stored here; send the whole conversation as input",
    "conversation": "conversations are not stored here; send the whole of it as input",
    "prompt": "prompts are not stored here; send its text as instructions and input",
    "moderation": "moderation is not traded here; call your provider for it",
    "context_management": "nothing is compacted here; shorten the input yourself",
    "prompt_cache_options": "use prompt_cache_key",
}
"""Parameters we know and refuse, with what to do instead."""

IGNORED = frozenset(
    {"service_tier", "prompt_cache_retention", "safety_identifier", "stream_options"}
    | {"max_tool_calls"}
)
"""Hints that change no answer. (`max_tool_calls` counts tools that run at OpenAI; none do here.)"""

_INCLUDED = frozenset({"reasoning.encrypted_content", "message.output_text.logprobs"})
_ENCRYPTED, _LOGPROBS = sorted(_INCLUDED, reverse=True)


class _Breakpoint(Struct):
    mode: str = "explicit"


class _Words(Struct, tag_field="type", tag="input_text"):
    text: str
    prompt_cache_breakpoint: _Breakpoint | None = None


class _Said(Struct, tag_field="type", tag="output_text"):
    text: str


class _Refused(Struct, tag_field="type", tag="refusal"):
    refusal: str


class _Picture(Struct, tag_field="type", tag="input_image"):
    image_url: str | None = None
    file_id: str | None = None
    detail: str | None = None
    prompt_cache_breakpoint: _Breakpoint | None = None


class _File(Struct, tag_field="type", tag="input_file"):
    pass


class _Audio(Struct, tag_field="type", tag="input_audio"):
    pass


class _Reasoning(Struct, tag_field="type", tag="reasoning_text"):
    text: str


_Content = _Words | _Said | _Refused | _Picture | _File | _Audio | _Reasoning


class _Summary(Struct):
    text: str
    type: str = "summary_text"


class _Item(Struct):
    """Any item: which fields it needs follows from its `type`."""

    type: str = "message"
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | list[_Content] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[_Content] | None = None
    summary: list[_Summary] | None = None
    encrypted_content: str | None = None


class _Tool(Struct):
    type: str
    name: Name | None = None
    description: str | None = None
    parameters: Raw = ABSENT
    strict: bool | None = None


class _ToolChoice(Struct):
    type: str
    name: str | None = None
    mode: Literal["auto", "required"] = "auto"
    tools: list[_Tool] | None = None


class _FormatText(Struct, tag_field="type", tag="text"):
    pass


class _FormatObject(Struct, tag_field="type", tag="json_object"):
    pass


class _FormatSchema(Struct, tag_field="type", tag="json_schema"):
    name: Name
    schema: Raw = ABSENT
    description: str | None = None
    strict: bool | None = None


class _TextConfig(Struct, forbid_unknown_fields=True):
    format: _FormatText | _FormatObject | _FormatSchema | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class _ReasoningConfig(Struct, forbid_unknown_fields=True):
    effort: Effort | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


class ResponsesRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of a response as we accept it."""

    model: Name
    input: str | Annotated[list[_Item], Meta(min_length=1)]
    sla: Sla | None = None
    models: list[Name] | None = None
    instructions: str | None = None
    stream: bool | None = None
    stream_options: dict[str, bool] | None = None
    max_output_tokens: PositiveInt | None = None
    max_tool_calls: PositiveInt | None = None
    temperature: Annotated[float, Meta(ge=0.0, le=2.0)] | None = None
    top_p: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    text: _TextConfig | None = None
    reasoning: _ReasoningConfig | None = None
    tools: list[_Tool] | None = None
    tool_choice: Literal["auto", "none", "required"] | _ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    include: list[str] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    store: bool | None = None
    background: bool | None = None
    previous_response_id: Raw = ABSENT
    conversation: Raw = ABSENT
    prompt: Raw = ABSENT
    moderation: Raw = ABSENT
    context_management: Raw = ABSENT
    prompt_cache_options: Raw = ABSENT


_decoder = msgspec.json.Decoder(ResponsesRequest)
_encode = msgspec.json.Encoder().encode
_unseal = msgspec.json.Decoder(Sealed)


def to_neutral(body: ResponsesRequest) -> NeutralRequest:
    """The neutral form of a decoded body. Raises `BadRequest`."""
    _refuse(body)
    include = body.include or ()
    reasoning = body.reasoning or _ReasoningConfig()
    summary = reasoning.summary or reasoning.generate_summary
    messages: list[Message] = []
    if body.instructions:
        messages.append(Message("system", (Text(body.instructions),)))
    if isinstance(body.input, str):
        messages.append(Message("user", (Text(body.input),)))
    else:
        messages.extend(_turns(body.input))
    tools, choice = _tools(body)
    return NeutralRequest(
        model=body.model,
        messages=tuple(messages),
        models=tuple(body.models or ()),
        sla=body.sla,
        stream=bool(body.stream),
        include_usage=True,
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=body.parallel_tool_calls,
        response_format=_format(body.text),
        max_output_tokens=body.max_output_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        logprobs=_LOGPROBS in include or bool(body.top_logprobs),
        top_logprobs=body.top_logprobs,
        effort=reasoning.effort,
        show_thinking=summary is not None or _ENCRYPTED in include,
        verbosity=None if body.text is None else body.text.verbosity,
        user=body.user,
        metadata=body.metadata or {},
        prompt_cache_key=body.prompt_cache_key,
    )


def _refuse(body: ResponsesRequest) -> None:
    for name, remedy in REFUSED.items():
        if present(getattr(body, name)) is not None:
            raise BadRequest(f"{name} is not supported", path=name, remedy=remedy)
    if body.store:
        raise BadRequest(
            "responses are not stored here", path="store", remedy="send store: false, or leave it"
        )
    if body.background:
        raise BadRequest(
            "responses do not run in the background here",
            path="background",
            remedy="stream the response, or wait for it",
        )
    if body.truncation == "auto":
        raise BadRequest(
            "nothing is cut from the input unasked",
            path="truncation",
            remedy='send truncation: "disabled" and shorten the input yourself',
        )
    if body.service_tier not in (None, "auto", "default"):
        raise BadRequest(
            f"service tier {body.service_tier!r} is not traded here",
            path="service_tier",
            remedy="state sla.ttft_ms or sla.latency_ms",
        )
    for i, wanted in enumerate(body.include or ()):
        if wanted not in _INCLUDED:
            raise BadRequest(
                f"{wanted!r} cannot be included",
                path=f"include[{i}]",
                remedy=f"choose from {sorted(_INCLUDED)}",
            )


def _turns(items: list[_Item]) -> list[Message]:
    """Items as turns: what the model said and called, and what tools returned, stay together."""
    turns: list[Message] = []
    for i, item in enumerate(items):
        message = _message(f"input[{i}]", item)
        last = turns[-1] if turns else None
        if last is not None and last.role == message.role and message.role in _JOINED:
            turns[-1] = Message(last.role, last.parts + message.parts)
        else:
            turns.append(message)
    return turns


_JOINED = ("assistant", "tool")


def _message(path: str, item: _Item) -> Message:
    kind = item.type
    if kind == "message":
        if item.role is None:
            raise BadRequest(f"{path} has no role", path=f"{path}.role", remedy="add it")
        role = "system" if item.role == "developer" else item.role
        return Message(role, _parts(f"{path}.content", item.content))
    if kind == "function_call":
        if item.call_id is None or item.name is None:
            raise BadRequest(
                f"{path} lacks call_id or name", path=path, remedy="send the call as it came"
            )
        return Message("assistant", (ToolCall(item.call_id, item.name, item.arguments or ""),))
    if kind == "function_call_output":
        if item.call_id is None:
            raise BadRequest(
                f"{path} answers no call", path=f"{path}.call_id", remedy="give the call's call_id"
            )
        parts = _parts(f"{path}.output", item.output if item.output is not None else "")
        kept = tuple(p for p in parts if isinstance(p, Text | Image))
        return Message("tool", (ToolResult(item.call_id, kept),))
    if kind == "reasoning":
        return Message("assistant", (_thinking(item),))
    remedy = "send messages, function calls, their outputs and reasoning only"
    if kind == "item_reference":
        remedy = "nothing is stored here; send the item itself"
    raise BadRequest(f"{path} is of type {kind!r}", path=f"{path}.type", remedy=remedy)


def _parts(path: str, content: str | list[_Content] | None) -> tuple[Part, ...]:
    if content is None:
        raise BadRequest(f"{path} is missing", path=path, remedy="add it")
    if isinstance(content, str):
        return (Text(content),)
    parts: list[Part] = []
    for j, part in enumerate(content):
        at = f"{path}[{j}]"
        if isinstance(part, _Words):
            parts.append(Text(part.text, part.prompt_cache_breakpoint is not None))
        elif isinstance(part, _Said):
            parts.append(Text(part.text))
        elif isinstance(part, _Refused):
            parts.append(Text(part.refusal))
        elif isinstance(part, _Picture):
            parts.append(_image(at, part))
        else:
            kind = "audio" if isinstance(part, _Audio) else "files"
            raise BadRequest(
                f"{kind} in {at} cannot be sent to the market",
                path=at,
                remedy="send text and images only",
            )
    return tuple(parts)


def _image(path: str, part: _Picture) -> Image:
    cache = part.prompt_cache_breakpoint is not None
    detail = None if part.detail == "auto" else part.detail
    url = part.image_url
    if url is None:
        raise BadRequest(
            "files are not stored here", path=f"{path}.image_url", remedy="send image_url"
        )
    if url.startswith("data:"):
        return image_from_data_url(url, f"{path}.image_url", detail=detail, cache=cache)
    if not url.startswith(("https://", "http://")):
        raise BadRequest(
            "an image is neither a web address nor a data URL",
            path=f"{path}.image_url",
            remedy="send https://… or data:image/png;base64,…",
        )
    return Image(url=url, detail=detail, cache=cache)


def _thinking(item: _Item) -> Thinking:
    """Reasoning handed back; what another sealed is beyond us and left out."""
    text = "".join(s.text for s in item.summary or ())
    if not text and isinstance(item.content, list):
        text = "".join(p.text for p in item.content if isinstance(p, _Reasoning))
    if item.encrypted_content is None:
        return Thinking(text)
    try:
        sealed = _unseal.decode(base64.b64decode(item.encrypted_content, validate=True))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, binascii.Error, ValueError):
        return Thinking(text)
    return Thinking(text, sealed.signature, sealed.redacted)


def _tools(body: ResponsesRequest) -> tuple[tuple[Tool, ...], ToolChoice | None]:
    """The tools that may be called now, and whether one must be."""
    tools = tuple(_tool(f"tools[{i}]", t) for i, t in enumerate(body.tools or ()))
    choice = body.tool_choice
    if choice is None:
        return tools, None
    names = [t.name for t in tools]
    if isinstance(choice, str):
        if choice != "none" and not names:
            if choice == "auto":
                return tools, None
            raise BadRequest("tool_choice without tools", path="tool_choice", remedy="send tools")
        return tools, ToolChoice(choice)
    if choice.type == "function":
        if choice.name not in names:
            raise BadRequest(
                f"tool_choice names {choice.name!r}, which is not among tools",
                path="tool_choice.name",
                remedy=f"name one of {names}",
            )
        return tools, ToolChoice("named", choice.name)
    if choice.type == "allowed_tools":
        allowed = {t.name for t in choice.tools or ()}
        left = tuple(t for t in tools if t.name in allowed)
        if not left or len(left) != len(allowed):
            raise BadRequest(
                "tool_choice allows tools that are not among tools",
                path="tool_choice.tools",
                remedy=f"choose from {names}",
            )
        return left, ToolChoice(choice.mode)
    raise BadRequest(
        f"tool_choice of type {choice.type!r} is not traded here",
        path="tool_choice.type",
        remedy="choose a function",
    )


def _tool(path: str, tool: _Tool) -> Tool:
    if tool.type != "function":
        raise BadRequest(
            f"tools of type {tool.type!r} run at OpenAI only",
            path=f"{path}.type",
            remedy="define a function and run it yourself",
        )
    if tool.name is None:
        raise BadRequest(f"{path} has no name", path=f"{path}.name", remedy="add it")
    return Tool(
        name=tool.name,
        description=tool.description,
        parameters=present(tool.parameters),
        strict=tool.strict,
    )


def _format(config: _TextConfig | None) -> ResponseFormat | None:
    fmt = None if config is None else config.format
    if fmt is None or isinstance(fmt, _FormatText):
        return None
    if isinstance(fmt, _FormatObject):
        return ResponseFormat(kind="json_object")
    return ResponseFormat(
        kind="json_schema",
        name=fmt.name,
        description=fmt.description,
        schema=present(fmt.schema),
        strict=fmt.strict,
    )


class OpenAIResponses:
    """The responses surface."""

    name = "openai_responses"
    id_prefix = "resp_"

    def decode(self, body: bytes) -> NeutralRequest:
        known = ResponsesRequest.__struct_fields__
        return to_neutral(decode_strictly(body, _decoder, known))

    def reply(self, request: NeutralRequest, answer: Answer, meta: ReplyMeta) -> bytes:
        return response_body(request, answer, meta)

    def stream(self, request: NeutralRequest, meta: ReplyMeta) -> ResponseStream:
        return ResponseStream(request, meta)

    def error(self, error: ErrorBody) -> bytes:
        return _encode(error_object(error))


OPENAI_RESPONSES = OpenAIResponses()
