"""Anthropic Messages as we serve them: `POST /v1/messages`, and its token count.

Decoded as strictly as the chat surface, with the same two fields of ours, `sla` and `models`.
Its stream is made of blocks that open, grow and close, so the encoder keeps which block is
open; usage is known only at the end and goes out with the stop reason, where clients add it up.

Entry point: `ANTHROPIC_MESSAGES`, a `Surface`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from bidding.errors import BadRequest
from bidding.request import Sla
from broker.wire.anthropic_messages_out import MessagesStream, error_object, message_body
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
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from broker.wire.surface import ErrorBody, ReplyMeta
from broker.wire.tokens import estimate_tokens

Name = Annotated[str, Meta(min_length=1, max_length=256)]
PositiveInt = Annotated[int, Meta(ge=1, le=100_000_000)]

REFUSED: dict[str, str] = {
    "container": "code execution is not traded here; remove it",
    "mcp_servers": "call MCP servers yourself and pass their tools as tools",
    "context_management": "edit the messages yourself; nothing is kept here",
    "diagnostics": "remove it",
    "workspace_id": "your key names your tenant; remove it",
    "user_profile_id": "use metadata.user_id",
    "inference_geo": "state sla.compliance.regions",
    "speed": "state sla.ttft_ms or sla.latency_ms",
}
"""Parameters we know and refuse, with what to do instead."""

_EFFORTS: dict[str, Effort] = {
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "xhigh",
}


class _Cache(Struct):
    type: str = "ephemeral"


class _UrlSource(Struct, tag_field="type", tag="url"):
    url: str


class _DataSource(Struct, tag_field="type", tag="base64"):
    media_type: Literal["image/jpeg", "image/png", "image/gif", "image/webp"]
    data: str


class _TextIn(Struct, tag_field="type", tag="text"):
    text: str
    cache_control: _Cache | None = None


class _ImageIn(Struct, tag_field="type", tag="image"):
    source: _UrlSource | _DataSource
    cache_control: _Cache | None = None


class _ToolUseIn(Struct, tag_field="type", tag="tool_use"):
    id: str
    name: str
    input: Raw = ABSENT
    cache_control: _Cache | None = None


class _ToolResultIn(Struct, tag_field="type", tag="tool_result"):
    tool_use_id: str
    content: str | list[_TextIn | _ImageIn] | None = None
    is_error: bool | None = None
    cache_control: _Cache | None = None


class _ThinkingIn(Struct, tag_field="type", tag="thinking"):
    thinking: str
    signature: str | None = None


class _RedactedIn(Struct, tag_field="type", tag="redacted_thinking"):
    data: str


_Block = _TextIn | _ImageIn | _ToolUseIn | _ToolResultIn | _ThinkingIn | _RedactedIn


class _MessageIn(Struct):
    role: Literal["user", "assistant", "system"]
    content: str | list[_Block]


class _ToolIn(Struct):
    name: Name
    type: str | None = None
    description: str | None = None
    input_schema: Raw = ABSENT
    strict: bool | None = None
    cache_control: _Cache | None = None


class _ToolChoiceIn(Struct):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class _ThinkingConfig(Struct):
    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Annotated[int, Meta(ge=1024, le=1_000_000)] | None = None
    display: str | None = None


class _FormatIn(Struct):
    type: Literal["json_schema"]
    schema: Raw = ABSENT


class _OutputConfig(Struct, forbid_unknown_fields=True):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: _FormatIn | None = None


class _Metadata(Struct):
    user_id: str | None = None


class MessagesRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of a message as we accept it. `max_tokens` is required but to count tokens."""

    model: Name
    messages: Annotated[list[_MessageIn], Meta(min_length=1)]
    max_tokens: PositiveInt | None = None
    sla: Sla | None = None
    models: list[Name] | None = None
    system: str | list[_TextIn] | None = None
    stream: bool | None = None
    temperature: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    top_p: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    top_k: PositiveInt | None = None
    stop_sequences: list[str] | None = None
    tools: list[_ToolIn] | None = None
    tool_choice: _ToolChoiceIn | None = None
    thinking: _ThinkingConfig | None = None
    output_config: _OutputConfig | None = None
    metadata: _Metadata | None = None
    cache_control: _Cache | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    container: Raw = ABSENT
    mcp_servers: Raw = ABSENT
    context_management: Raw = ABSENT
    diagnostics: Raw = ABSENT
    workspace_id: Raw = ABSENT
    user_profile_id: Raw = ABSENT
    inference_geo: Raw = ABSENT
    speed: Raw = ABSENT


_decoder = msgspec.json.Decoder(MessagesRequest)
_encode = msgspec.json.Encoder().encode


def to_neutral(body: MessagesRequest) -> NeutralRequest:
    """The neutral form of a decoded body. Raises `BadRequest`."""
    for name, remedy in REFUSED.items():
        if present(getattr(body, name)) is not None:
            raise BadRequest(f"{name} is not supported", path=name, remedy=remedy)
    messages = [*_system(body.system)]
    for i, message in enumerate(body.messages):
        messages.extend(_messages(i, message))
    config = body.output_config
    thinking = body.thinking
    thinks = thinking is not None and thinking.type != "disabled"
    effort = _EFFORTS[config.effort] if config is not None and config.effort else None
    if thinking is not None and thinking.type == "adaptive" and effort is None:
        effort = "medium"
    choice = body.tool_choice
    return NeutralRequest(
        model=body.model,
        messages=tuple(messages),
        models=tuple(body.models or ()),
        sla=body.sla,
        stream=bool(body.stream),
        include_usage=True,
        tools=tuple([_tool(i, t) for i, t in enumerate(body.tools)]) if body.tools else (),
        tool_choice=None if choice is None else _tool_choice(choice, body.tools),
        parallel_tool_calls=(
            False if choice is not None and choice.disable_parallel_tool_use else None
        ),
        response_format=(
            None
            if config is None or config.format is None
            else ResponseFormat(kind="json_schema", schema=present(config.format.schema))
        ),
        max_output_tokens=body.max_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        stop=tuple(body.stop_sequences or ()),
        effort=effort,
        thinking_tokens=thinking.budget_tokens if thinks and thinking is not None else None,
        show_thinking=thinks,
        user=None if body.metadata is None else body.metadata.user_id,
    )


def _system(system: str | list[_TextIn] | None) -> list[Message]:
    if not system:
        return []
    if isinstance(system, str):
        return [Message("system", (Text(system),))]
    return [Message("system", tuple(_text(b) for b in system))]


def _text(block: _TextIn) -> Text:
    return Text(block.text, block.cache_control is not None)


def _image(block: _ImageIn) -> Image:
    source, cache = block.source, block.cache_control is not None
    if isinstance(source, _UrlSource):
        return Image(url=source.url, cache=cache)
    return Image(media_type=source.media_type, data=source.data, cache=cache)


def _messages(i: int, message: _MessageIn) -> list[Message]:
    """A turn, tool results first and apart, as every other format wants them."""
    role = message.role
    if isinstance(message.content, str):
        return [Message(role, (Text(message.content),))]
    results: list[Part] = []
    parts: list[Part] = []
    for j, block in enumerate(message.content):
        if isinstance(block, _ToolResultIn):
            if role != "user":
                raise BadRequest(
                    f"messages[{i}] is no place for a tool result",
                    path=f"messages[{i}].content[{j}]",
                    remedy="put tool_result blocks into a user message",
                )
            results.append(_result(block))
        else:
            parts.append(_part(block))
    out = [Message("tool", tuple(results))] if results else []
    if parts or not results:
        out.append(Message(role, tuple(parts)))
    return out


def _part(block: _TextIn | _ImageIn | _ToolUseIn | _ThinkingIn | _RedactedIn) -> Part:
    if isinstance(block, _TextIn):
        return _text(block)
    if isinstance(block, _ImageIn):
        return _image(block)
    if isinstance(block, _ToolUseIn):
        arguments = present(block.input)
        return ToolCall(
            block.id, block.name, "{}" if arguments is None else bytes(arguments).decode()
        )
    if isinstance(block, _ThinkingIn):
        return Thinking(block.thinking, block.signature)
    return Thinking("", None, block.data)


def _result(block: _ToolResultIn) -> ToolResult:
    content = block.content
    inner: tuple[Text | Image, ...]
    if isinstance(content, str):
        inner = (Text(content),)
    else:
        inner = tuple(_text(b) if isinstance(b, _TextIn) else _image(b) for b in content or ())
    return ToolResult(
        block.tool_use_id, inner, bool(block.is_error), block.cache_control is not None
    )


def _tool(i: int, tool: _ToolIn) -> Tool:
    if tool.type not in (None, "custom"):
        raise BadRequest(
            f"tool type {tool.type!r} runs at Anthropic only",
            path=f"tools[{i}].type",
            remedy="define it as a custom tool and run it yourself",
        )
    return Tool(
        name=tool.name,
        description=tool.description,
        parameters=schema_in(tool.input_schema, f"tools[{i}].input_schema"),
        strict=tool.strict,
        cache=tool.cache_control is not None,
    )


def _tool_choice(choice: _ToolChoiceIn, tools: list[_ToolIn] | None) -> ToolChoice:
    names = [t.name for t in tools or ()]
    if choice.type == "tool":
        if choice.name not in names:
            raise BadRequest(
                f"tool_choice names {choice.name!r}, which is not among tools",
                path="tool_choice.name",
                remedy=f"name one of {names}",
            )
        return ToolChoice("named", choice.name)
    if choice.type == "any":
        return ToolChoice("required")
    return ToolChoice("none" if choice.type == "none" else "auto")


class AnthropicMessages:
    """The messages surface."""

    name = "anthropic_messages"
    id_prefix = "msg_"

    def decode(self, body: bytes) -> NeutralRequest:
        request = self._decoded(body)
        if request.max_output_tokens is None:
            raise BadRequest("missing field 'max_tokens'", path="max_tokens", remedy="add it")
        return request

    def count_tokens(self, body: bytes) -> bytes:
        """The answer to `POST /v1/messages/count_tokens`. Raises `BadRequest`."""
        return _encode({"input_tokens": estimate_tokens(self._decoded(body))})

    def reply(self, request: NeutralRequest, answer: Answer, meta: ReplyMeta) -> bytes:
        return message_body(answer, meta)

    def stream(self, request: NeutralRequest, meta: ReplyMeta) -> MessagesStream:
        return MessagesStream(request, meta)

    def error(self, error: ErrorBody) -> bytes:
        return _encode({"type": "error", "error": error_object(error)})

    def _decoded(self, body: bytes) -> NeutralRequest:
        return to_neutral(decode_strictly(body, _decoder, MessagesRequest.__struct_fields__))


ANTHROPIC_MESSAGES = AnthropicMessages()
