"""Cohere v2 chat, the asking side: `COHERE`.

Near to OpenAI's format, and different where it hurts: temperature ends at 1, top_p is `p` and
top_k `k`, tool choice is REQUIRED or NONE in capitals, a schema hangs directly on the response
format, and what a model plans before it calls a tool is its `tool_plan`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from bidding.errors import BadRequest
from broker.providers.anthropic import THINKING_TOKENS
from broker.providers.base import Reader, Seat, WireCall
from broker.providers.calling import wire_call
from broker.providers.cohere_answers import StreamReader, WholeReader
from broker.providers.failures import failed, read_error
from broker.providers.model_rules import rules_for, sampling
from broker.providers.openai_parts import content_part, tool_results
from broker.providers.quirks import quirks_of
from broker.wire.neutral import (
    Failed,
    Image,
    Message,
    NeutralRequest,
    Part,
    Text,
    ToolCall,
)

_EMPTY_SCHEMA = msgspec.Raw(b'{"type":"object","properties":{}}')
_encode = msgspec.json.Encoder().encode


def build_body(request: NeutralRequest, seat: Seat, *, stream: bool) -> bytes:
    """The JSON body that asks for `request`. Raises `BadRequest`."""
    temperature, top_p = sampling(request, rules_for(seat), most=1.0)
    said: dict[str, Any] = {
        "max_tokens": request.max_output_tokens,
        "temperature": temperature,
        "p": top_p,
        "k": request.top_k,
        "seed": request.seed,
        "stop_sequences": list(request.stop) or None,
        "presence_penalty": _share(request.presence_penalty),
        "frequency_penalty": _share(request.frequency_penalty),
    }
    body: dict[str, Any] = {
        "model": seat.offer.wire_model,
        "messages": _messages(request.messages),
        "stream": stream,
        **{name: value for name, value in said.items() if value is not None},
    }
    if request.tools:
        body["tools"] = [_tool(t.name, t.description, t.parameters) for t in request.tools]
        if any(t.strict for t in request.tools):
            body["strict_tools"] = True
        mode = request.tool_choice.mode if request.tool_choice is not None else "auto"
        if mode in ("required", "none"):
            body["tool_choice"] = mode.upper()
    form = request.response_format
    if form is not None:
        shape: dict[str, Any] = {"type": "json_object"}
        if form.schema is not None:
            shape["json_schema"] = form.schema
        body["response_format"] = shape
    budget = request.thinking_tokens or THINKING_TOKENS.get(request.effort or "none")
    if budget:
        body["thinking"] = {"type": "enabled", "token_budget": budget}
    elif request.effort == "none" and _reasons(seat):
        body["thinking"] = {"type": "disabled"}
    return _encode(body)


def _reasons(seat: Seat) -> bool:
    return seat.model is not None and "reasoning" in seat.model.capabilities


def _share(penalty: float | None) -> float | None:
    """Penalties go from 0 to 1 there. Raises `BadRequest` for others."""
    if penalty is not None and not 0.0 <= penalty <= 1.0:
        raise BadRequest(
            f"a penalty of {penalty:g} cannot be said here",
            path="presence_penalty",
            remedy="choose one from 0 to 1",
        )
    return penalty


def _tool(name: str, description: str | None, parameters: Any) -> dict[str, Any]:
    function: dict[str, Any] = {"name": name}
    if description is not None:
        function["description"] = description
    function["parameters"] = _EMPTY_SCHEMA if parameters is None else parameters
    return {"type": "function", "function": function}


def _messages(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "tool":
            tool_results(message.parts, out)
        elif message.role == "assistant":
            out.append(_assistant(message.parts))
        else:
            out.append({"role": message.role, "content": _content(message.parts)})
    return out


def _content(parts: tuple[Part, ...]) -> Any:
    if len(parts) == 1 and isinstance(parts[0], Text):
        return parts[0].text
    return [content_part(p) for p in parts if isinstance(p, Text | Image)]


def _assistant(parts: tuple[Part, ...]) -> dict[str, Any]:
    """Text beside calls of tools is the plan that led to them."""
    text = "".join(p.text for p in parts if isinstance(p, Text))
    calls = [
        {
            "id": p.id,
            "type": "function",
            "function": {"name": p.name, "arguments": p.arguments.strip() or "{}"},
        }
        for p in parts
        if isinstance(p, ToolCall)
    ]
    message: dict[str, Any] = {"role": "assistant"}
    if calls:
        message["tool_calls"] = calls
        if text:
            message["tool_plan"] = text
    else:
        message["content"] = text
    return message


class CohereDialect:
    """`POST /v2/chat`."""

    name = "cohere"

    def build(self, request: NeutralRequest, seat: Seat, *, stream: bool) -> WireCall:
        body = build_body(request, seat, stream=stream)
        return wire_call(seat, quirks_of(seat.provider), "/chat", body, stream=stream)

    def reader(self, *, stream: bool, seat: Seat | None = None) -> Reader:
        return StreamReader() if stream else WholeReader()

    def refusal(
        self, status: int, body: bytes, retry_after_s: float | None, seat: Seat | None = None
    ) -> Failed:
        quirks = quirks_of(seat.provider) if seat is not None else None
        return failed(status, read_error(body), retry_after_s=retry_after_s, quirks=quirks)


COHERE = CohereDialect()
