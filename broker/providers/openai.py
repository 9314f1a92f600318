"""OpenAI chat completions, and the many sellers who speak it nearly: `OPENAI`."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from broker.providers.base import (
    Reader,
    Seat,
    WireCall,
)
from broker.providers.calling import wire_call
from broker.providers.failures import failed, read_error
from broker.providers.model_rules import led_by_user, rules_for, sampling
from broker.providers.openai_answers import StreamReader, WholeReader
from broker.providers.openai_parts import content_part, tool_results
from broker.providers.quirks import Quirks, quirks_of
from broker.wire.neutral import (
    Failed,
    Image,
    Message,
    NeutralRequest,
    Part,
    Text,
    ToolCall,
)

_encode = msgspec.json.Encoder().encode


def build_body(request: NeutralRequest, seat: Seat, quirks: Quirks, *, stream: bool) -> bytes:
    """The JSON body that asks for `request`."""
    rules = rules_for(seat)
    messages = request.messages if rules.system != "user" else led_by_user(request.messages)
    body: dict[str, Any] = {
        "model": seat.offer.wire_model,
        "messages": _messages(messages, rules.system),
    }
    if stream:
        body["stream"] = True
        if quirks.stream_usage:
            body["stream_options"] = {"include_usage": True}
    if request.max_output_tokens is not None:
        body[rules.max_tokens or quirks.max_tokens] = request.max_output_tokens
    temperature, top_p = sampling(request, rules, most=quirks.max_temperature)
    if temperature is not None:
        body["temperature"] = temperature
    if top_p is not None:
        body["top_p"] = top_p
    for name in _PLAIN:
        value = getattr(request, name)
        if value is not None:
            body[name] = value
    if request.n != 1:
        body["n"] = request.n
    if request.stop:
        body["stop"] = list(request.stop)
    if request.logprobs:
        body["logprobs"] = True
    if request.metadata:
        body["metadata"] = request.metadata
    if request.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": _function(t.name, t.description, t.parameters, t.strict),
            }
            for t in request.tools
        ]
        if request.parallel_tool_calls is not None:
            body["parallel_tool_calls"] = request.parallel_tool_calls
        choice = request.tool_choice
        if choice is not None:
            body["tool_choice"] = (
                {"type": "function", "function": {"name": choice.name}}
                if choice.mode == "named"
                else choice.mode
            )
    if request.response_format is not None:
        body["response_format"] = _response_format(request)
    if request.effort is not None:
        if quirks.effort == "reasoning_effort":
            body["reasoning_effort"] = request.effort
        elif quirks.effort == "reasoning":
            body["reasoning"] = {"effort": request.effort}
    for name in quirks.drop:
        body.pop(name, None)
    for ours, theirs in quirks.rename.items():
        if ours in body:
            body[theirs] = body.pop(ours)
    return _encode(body)


_PLAIN = (
    "top_k",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "top_logprobs",
    "seed",
    "verbosity",
    "user",
    "prompt_cache_key",
)


def _function(
    name: str, description: str | None, parameters: Raw | None, strict: bool | None
) -> dict[str, Any]:
    function: dict[str, Any] = {"name": name}
    if description is not None:
        function["description"] = description
    if parameters is not None:
        function["parameters"] = parameters
    if strict is not None:
        function["strict"] = strict
    return function


def _response_format(request: NeutralRequest) -> dict[str, Any]:
    fmt = request.response_format
    if fmt is None or fmt.kind == "json_object":
        return {"type": "json_object"}
    schema: dict[str, Any] = {"name": fmt.name}
    if fmt.schema is not None:
        schema["schema"] = fmt.schema
    if fmt.description is not None:
        schema["description"] = fmt.description
    if fmt.strict is not None:
        schema["strict"] = fmt.strict
    return {"type": "json_schema", "json_schema": schema}


def _messages(messages: tuple[Message, ...], system: str) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for message in messages:
        parts = message.parts
        role = system if message.role == "system" else message.role
        if len(parts) == 1 and type(parts[0]) is Text and message.role != "tool":
            plain: dict[str, Any] = {"role": role, "content": parts[0].text}
            if message.name is not None:
                plain["name"] = message.name
            out.append(plain)
        elif message.role == "tool":
            tool_results(parts, out)
        elif message.role == "assistant":
            out.append(_assistant(parts))
        else:
            content = [content_part(p) for p in parts if isinstance(p, Text | Image)]
            plain = {"role": role, "content": content or ""}
            if message.name is not None:
                plain["name"] = message.name
            out.append(plain)
    return out


def _assistant(parts: tuple[Part, ...]) -> dict[str, Any]:
    """An assistant's turn; its thinking is dropped, which this format has no word for."""
    text = "".join(p.text for p in parts if isinstance(p, Text))
    calls = [
        {"id": p.id, "type": "function", "function": {"name": p.name, "arguments": p.arguments}}
        for p in parts
        if isinstance(p, ToolCall)
    ]
    message: dict[str, Any] = {"role": "assistant", "content": text or (None if calls else "")}
    if calls:
        message["tool_calls"] = calls
    return message


class OpenAIDialect:
    """OpenAI-compatible sellers; their deviations are data in `quirks`."""

    name = "openai"

    def build(self, request: NeutralRequest, seat: Seat, *, stream: bool) -> WireCall:
        quirks = quirks_of(seat.provider)
        body = build_body(request, seat, quirks, stream=stream)
        return wire_call(seat, quirks, quirks.path, body, stream=stream)

    def reader(self, *, stream: bool, seat: Seat | None = None) -> Reader:
        quirks = quirks_of(seat.provider) if seat is not None else None
        return StreamReader(quirks) if stream else WholeReader(quirks)

    def refusal(
        self, status: int, body: bytes, retry_after_s: float | None, seat: Seat | None = None
    ) -> Failed:
        quirks = quirks_of(seat.provider) if seat is not None else None
        return failed(status, read_error(body), retry_after_s=retry_after_s, quirks=quirks)


OPENAI = OpenAIDialect()
