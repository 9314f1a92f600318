"""OpenAI responses as we serve them: `POST /v1/responses`, the way in.

Nothing is stored here, so whatever refers to something stored is refused, with what to send
instead; so are tools that run at OpenAI.

Entry point: `OPENAI_RESPONSES`, a `Surface`. The way out is `openai_responses_out`.
"""

from __future__ import annotations

import msgspec

from bidding.errors import BadRequest
from broker.wire.json_guard import decode_strictly, present, schema_in
from broker.wire.neutral import (
    Answer,
    Message,
    NeutralRequest,
    ResponseFormat,
    Text,
    Tool,
    ToolChoice,
)
from broker.wire.openai_responses_body import (
    REFUSED,
    FormatObject,
    FormatText,
    GivenTool,
    ReasoningConfig,
    ResponsesRequest,
    TextConfig,
)
from broker.wire.openai_responses_items import turns
from broker.wire.openai_responses_out import ResponseStream, response_body
from broker.wire.openai_shared import error_object
from broker.wire.surface import ErrorBody, ReplyMeta

_INCLUDED = frozenset({"reasoning.encrypted_content", "message.output_text.logprobs"})
_ENCRYPTED, _LOGPROBS = sorted(_INCLUDED, reverse=True)

_decoder = msgspec.json.Decoder(ResponsesRequest)
_encode = msgspec.json.Encoder().encode


def to_neutral(body: ResponsesRequest) -> NeutralRequest:
    """The neutral form of a decoded body. Raises `BadRequest`."""
    _refuse(body)
    include = body.include or ()
    reasoning = body.reasoning or ReasoningConfig()
    summary = reasoning.summary or reasoning.generate_summary
    messages: list[Message] = []
    if body.instructions:
        messages.append(Message("system", (Text(body.instructions),)))
    if isinstance(body.input, str):
        messages.append(Message("user", (Text(body.input),)))
    else:
        messages.extend(turns(body.input))
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


def _tool(path: str, tool: GivenTool) -> Tool:
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
        parameters=schema_in(tool.parameters, f"{path}.parameters"),
        strict=tool.strict,
    )


def _format(config: TextConfig | None) -> ResponseFormat | None:
    fmt = None if config is None else config.format
    if fmt is None or isinstance(fmt, FormatText):
        return None
    if isinstance(fmt, FormatObject):
        return ResponseFormat(kind="json_object")
    return ResponseFormat(
        kind="json_schema",
        name=fmt.name,
        description=fmt.description,
        schema=schema_in(fmt.schema, "text.format.schema"),
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
