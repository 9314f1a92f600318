"""OpenAI chat completions as we serve them: `POST /v1/chat/completions`.

The body is decoded strictly. Every parameter OpenAI documents is either forwarded, or refused
with what to do instead, or documented here as a hint that changes no answer and is ignored
(`IGNORED`); anything else is unknown and refused by name, with the nearest right one. Two
fields are ours: `sla` and `models`. Messages alone tolerate fields we do not know, since apps
send back what another model's reply contained.

Entry point: `OPENAI_CHAT`, a `Surface`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from bidding.errors import BadRequest
from bidding.request import Sla
from broker.wire.json_guard import ABSENT, decode_strictly, present, schema_in
from broker.wire.neutral import (
    Answer,
    Effort,
    Image,
    Message,
    NeutralRequest,
    Part,
    ResponseFormat,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from broker.wire.openai_chat_out import ChatStream, completion
from broker.wire.openai_shared import Name, PositiveInt, error_object, image_from_data_url
from broker.wire.surface import ErrorBody, ReplyMeta

Penalty = Annotated[float, Meta(ge=-2.0, le=2.0)]

REFUSED: dict[str, str] = {
    "audio": "audio is not traded here; ask for text",
    "functions": "use tools instead of the deprecated functions",
    "function_call": "use tool_choice instead of the deprecated function_call",
    "web_search_options": "search is not traded here; give the model a search tool of your own",
    "moderation": "moderation is not traded here; call your provider for it",
    "prediction": "predicted outputs are not traded here; remove it",
    "prompt_cache_options": "use prompt_cache_key",
}
"""OpenAI parameters we know and refuse, with what to do instead."""

IGNORED = frozenset({"service_tier", "prompt_cache_retention", "safety_identifier", "store"})
"""Hints that change no answer. (`store: true` and a paid tier are refused: they would.)"""


class _CacheControl(Struct):
    type: str = "ephemeral"


class _ImageUrl(Struct):
    url: str
    detail: str | None = None


class _TextPart(Struct, tag_field="type", tag="text"):
    text: str
    cache_control: _CacheControl | None = None


class _RefusalPart(Struct, tag_field="type", tag="refusal"):
    refusal: str


class _ImagePart(Struct, tag_field="type", tag="image_url"):
    image_url: _ImageUrl
    cache_control: _CacheControl | None = None


class _AudioPart(Struct, tag_field="type", tag="input_audio"):
    pass


class _FilePart(Struct, tag_field="type", tag="file"):
    pass


_ContentPart = _TextPart | _ImagePart | _RefusalPart | _AudioPart | _FilePart


class _FunctionCall(Struct):
    name: str
    arguments: str = ""


class _ToolCall(Struct):
    id: str
    function: _FunctionCall
    type: Literal["function"] = "function"


class _Message(Struct):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[_ContentPart] | None = None
    name: str | None = None
    tool_calls: list[_ToolCall] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None


class _Function(Struct, forbid_unknown_fields=True):
    name: Name
    description: str | None = None
    parameters: Raw = ABSENT
    strict: bool | None = None


class _Tool(Struct):
    function: _Function
    type: Literal["function"] = "function"
    cache_control: _CacheControl | None = None


class _NamedFunction(Struct):
    name: Name


class _NamedToolChoice(Struct):
    function: _NamedFunction
    type: Literal["function"] = "function"


class _JsonSchema(Struct):
    name: Name
    schema: Raw = ABSENT
    description: str | None = None
    strict: bool | None = None


class _FormatText(Struct, tag_field="type", tag="text"):
    pass


class _FormatObject(Struct, tag_field="type", tag="json_object"):
    pass


class _FormatSchema(Struct, tag_field="type", tag="json_schema"):
    json_schema: _JsonSchema


class _StreamOptions(Struct, forbid_unknown_fields=True):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ChatRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of a chat completion as we accept it."""

    model: Name
    messages: Annotated[list[_Message], Meta(min_length=1)]
    sla: Sla | None = None
    models: list[Name] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    temperature: Annotated[float, Meta(ge=0.0, le=2.0)] | None = None
    top_p: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    top_k: PositiveInt | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stop: str | list[str] | None = None
    max_tokens: PositiveInt | None = None
    max_completion_tokens: PositiveInt | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    response_format: _FormatText | _FormatObject | _FormatSchema | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    tools: list[_Tool] | None = None
    tool_choice: Literal["auto", "none", "required"] | _NamedToolChoice | None = None
    parallel_tool_calls: bool | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    reasoning_effort: Effort | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    modalities: list[str] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    store: bool | None = None
    audio: Raw = ABSENT
    functions: Raw = ABSENT
    function_call: Raw = ABSENT
    web_search_options: Raw = ABSENT
    moderation: Raw = ABSENT
    prediction: Raw = ABSENT
    prompt_cache_options: Raw = ABSENT


_decoder = msgspec.json.Decoder(ChatRequest)
_encode = msgspec.json.Encoder().encode


def to_neutral(body: ChatRequest) -> NeutralRequest:
    """The neutral form of a decoded body. Raises `BadRequest`."""
    _refuse(body)
    choice = body.tool_choice
    return NeutralRequest(
        model=body.model,
        messages=tuple([_message(i, m) for i, m in enumerate(body.messages)]),
        models=tuple(body.models or ()),
        sla=body.sla,
        stream=bool(body.stream),
        include_usage=body.stream_options is not None and bool(body.stream_options.include_usage),
        tools=tuple([_tool(i, t) for i, t in enumerate(body.tools)]) if body.tools else (),
        tool_choice=_tool_choice(choice, body.tools) if choice is not None else None,
        parallel_tool_calls=body.parallel_tool_calls,
        response_format=_response_format(body.response_format),
        max_output_tokens=body.max_completion_tokens or body.max_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        logit_bias=body.logit_bias,
        logprobs=bool(body.logprobs),
        top_logprobs=body.top_logprobs,
        n=body.n or 1,
        seed=body.seed,
        stop=(body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ()),
        effort=body.reasoning_effort,
        verbosity=body.verbosity,
        user=body.user,
        metadata=body.metadata or {},
        prompt_cache_key=body.prompt_cache_key,
    )


def _refuse(body: ChatRequest) -> None:
    for name, remedy in REFUSED.items():
        if present(getattr(body, name)) is not None:
            raise BadRequest(f"{name} is not supported", path=name, remedy=remedy)
    if body.store:
        raise BadRequest(
            "store: nothing is stored here", path="store", remedy="remove it or send false"
        )
    if body.service_tier not in (None, "auto", "default"):
        raise BadRequest(
            f"service_tier {body.service_tier!r} is not supported",
            path="service_tier",
            remedy="tiers are offers of their own here: name one in model, or state an sla",
        )
    if body.modalities is not None and body.modalities != ["text"]:
        raise BadRequest(
            "only text is traded here", path="modalities", remedy='send ["text"] or nothing'
        )
    if body.top_logprobs is not None and not body.logprobs:
        raise BadRequest(
            "top_logprobs needs logprobs", path="top_logprobs", remedy="send logprobs: true"
        )
    if isinstance(body.stop, list) and len(body.stop) > 4:
        raise BadRequest("more than 4 stop sequences", path="stop", remedy="send at most 4")


def _message(i: int, message: _Message) -> Message:
    role = message.role
    content = message.content
    if type(content) is str and role == "user":
        return Message("user", (Text(content),), message.name)
    parts: list[Part] = _parts(i, content)
    if role == "tool":
        if message.tool_call_id is None:
            raise BadRequest(
                f"messages[{i}] answers no tool call",
                path=f"messages[{i}].tool_call_id",
                remedy="give the id of the tool call it answers",
            )
        texts = tuple(p for p in parts if isinstance(p, Text | Image))
        return Message("tool", (ToolResult(message.tool_call_id, texts),))
    if role == "assistant":
        if message.refusal:
            parts.append(Text(message.refusal))
        calls = message.tool_calls or ()
        parts.extend([ToolCall(c.id, c.function.name, c.function.arguments) for c in calls])
        return Message("assistant", tuple(parts), message.name)
    if content is None:
        raise BadRequest(
            f"messages[{i}] has no content", path=f"messages[{i}].content", remedy="add it"
        )
    return Message("user" if role == "user" else "system", tuple(parts), message.name)


def _parts(i: int, content: str | list[_ContentPart] | None) -> list[Part]:
    if content is None:
        return []
    if isinstance(content, str):
        return [Text(content)] if content else []
    parts: list[Part] = []
    for j, part in enumerate(content):
        if isinstance(part, _TextPart):
            parts.append(Text(part.text, part.cache_control is not None))
        elif isinstance(part, _ImagePart):
            parts.append(_image(part, f"messages[{i}].content[{j}].image_url.url"))
        elif isinstance(part, _RefusalPart):
            parts.append(Text(part.refusal))
        else:
            kind = "audio" if isinstance(part, _AudioPart) else "files"
            raise BadRequest(
                f"{kind} in messages[{i}] cannot be sent to the market",
                path=f"messages[{i}].content[{j}]",
                remedy="send text and images only",
            )
    return parts


def _image(part: _ImagePart, path: str) -> Image:
    url = part.image_url.url
    detail = part.image_url.detail
    cache = part.cache_control is not None
    if url.startswith("data:"):
        return image_from_data_url(url, path, detail=detail, cache=cache)
    if not url.startswith(("https://", "http://")):
        raise BadRequest(
            "an image is neither a web address nor a data URL",
            path=path,
            remedy="send https://… or data:image/png;base64,…",
        )
    return Image(url=url, detail=detail, cache=cache)


def _tool(i: int, tool: _Tool) -> Tool:
    function = tool.function
    return Tool(
        name=function.name,
        description=function.description,
        parameters=schema_in(function.parameters, f"tools[{i}].function.parameters"),
        strict=function.strict,
        cache=tool.cache_control is not None,
    )


def _tool_choice(
    choice: Literal["auto", "none", "required"] | _NamedToolChoice, tools: list[_Tool] | None
) -> ToolChoice:
    names = [t.function.name for t in tools or ()]
    if isinstance(choice, _NamedToolChoice):
        if choice.function.name not in names:
            raise BadRequest(
                f"tool_choice names {choice.function.name!r}, which is not among tools",
                path="tool_choice.function.name",
                remedy=f"name one of {names}",
            )
        return ToolChoice("named", choice.function.name)
    if choice != "none" and not names:
        raise BadRequest("tool_choice without tools", path="tool_choice", remedy="send tools")
    return ToolChoice(choice)


def _response_format(
    fmt: _FormatText | _FormatObject | _FormatSchema | None,
) -> ResponseFormat | None:
    if fmt is None or isinstance(fmt, _FormatText):
        return None
    if isinstance(fmt, _FormatObject):
        return ResponseFormat(kind="json_object")
    schema = fmt.json_schema
    return ResponseFormat(
        kind="json_schema",
        name=schema.name,
        description=schema.description,
        schema=schema_in(schema.schema, "response_format.json_schema.schema"),
        strict=schema.strict,
    )


class OpenAIChat:
    """The chat completions surface."""

    name = "openai_chat"
    id_prefix = "chatcmpl-"

    def decode(self, body: bytes) -> NeutralRequest:
        return to_neutral(decode_strictly(body, _decoder, ChatRequest.__struct_fields__))

    def reply(self, request: NeutralRequest, answer: Answer, meta: ReplyMeta) -> bytes:
        return completion(answer, meta)

    def stream(self, request: NeutralRequest, meta: ReplyMeta) -> ChatStream:
        return ChatStream(request, meta)

    def error(self, error: ErrorBody) -> bytes:
        return _encode(error_object(error))


OPENAI_CHAT = OpenAIChat()
