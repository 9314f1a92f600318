"""Anthropic Messages: `ANTHROPIC`.

Differences that matter to a buyer: system prompts stand apart; `max_tokens` is required;
tool results are the user's; usage comes in two parts (`message_start`, `message_delta`), whose
input excludes what was cached or written, while our `Usage` includes it; temperature ends at 1.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from bidding.errors import BadRequest
from broker.providers.anthropic_answers import StreamReader, WholeReader
from broker.providers.base import (
    Reader,
    Seat,
    WireCall,
    loose_json,
)
from broker.providers.failures import failed, read_error
from broker.providers.model_rules import rules_for, sampling
from broker.wire.neutral import (
    Failed,
    Image,
    Message,
    NeutralRequest,
    Part,
    Text,
    ToolCall,
    ToolChoice,
    ToolResult,
)

API_VERSION = "2023-06-01"
DEFAULT_MAX_TOKENS = 4096
THINKING_TOKENS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 32768}
"""Our words for reasoning effort as budgets in tokens; the vendor's minimum is 1,024."""

EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "max"}
"""The same for models that think by effort."""

_encode = msgspec.json.Encoder().encode
_CACHE = {"type": "ephemeral"}
_EMPTY_SCHEMA = Raw(b'{"type":"object","properties":{}}')
_JSON_ONLY = "Answer with a single JSON object and nothing else."


def build_body(
    request: NeutralRequest, seat: Seat, *, stream: bool, head: dict[str, Any] | None = None
) -> bytes:
    """The JSON body that asks for `request`; `head` stands in it in place of the model's name,
    for resellers that have the name in the address. Raises `BadRequest`.
    """
    cap = seat.model.max_output_tokens if seat.model is not None else DEFAULT_MAX_TOKENS
    max_tokens = min(request.max_output_tokens or min(cap, DEFAULT_MAX_TOKENS), cap)
    system, messages = _turns(request.messages)
    if not messages:
        raise BadRequest(
            "no user message", path="messages", remedy="add at least one message of role user"
        )
    body: dict[str, Any] = dict(head) if head is not None else {"model": seat.offer.wire_model}
    body["messages"] = messages
    output: dict[str, Any] = {}
    rules = rules_for(seat)
    thinking = thinking_budget(request)
    if thinking and rules.thinking == "adaptive":
        body["thinking"] = {"type": "adaptive"}
        output["effort"] = EFFORTS.get(request.effort or "", "high")
        thinking = 0
    if thinking:
        body["thinking"] = {"type": "enabled", "budget_tokens": thinking}
        max_tokens = thinking + max(min(max_tokens, cap - thinking), 1)
    body["max_tokens"] = max_tokens
    fmt = request.response_format
    if fmt is not None:
        if fmt.kind == "json_schema" and fmt.schema is not None:
            output["format"] = {"type": "json_schema", "schema": fmt.schema}
        else:
            system.append({"type": "text", "text": _JSON_ONLY})
    if output:
        body["output_config"] = output
    if system:
        only = system[0]
        body["system"] = only["text"] if len(system) == 1 and len(only) == 2 else system
    if stream:
        body["stream"] = True
    temperature, top_p = sampling(request, rules, most=1.0)
    if temperature is not None and not thinking:
        body["temperature"] = temperature
    if top_p is not None:
        body["top_p"] = top_p
    if request.top_k is not None and not thinking:
        body["top_k"] = request.top_k
    if request.stop:
        body["stop_sequences"] = list(request.stop)
    if request.tools:
        body["tools"] = [
            _marked(
                {
                    "name": t.name,
                    **({"description": t.description} if t.description is not None else {}),
                    **({"strict": True} if t.strict else {}),
                    "input_schema": _EMPTY_SCHEMA if t.parameters is None else t.parameters,
                },
                t.cache,
            )
            for t in request.tools
        ]
        choice = _tool_choice(request.tool_choice, request.parallel_tool_calls)
        if choice is not None:
            body["tool_choice"] = choice
    if request.user is not None:
        body["metadata"] = {"user_id": request.user}
    return _encode(body)


def thinking_budget(request: NeutralRequest) -> int:
    """Tokens to think in; 0 for none. Raises `BadRequest`: Claude does not think and take a
    forced tool at once, so another seller has to.
    """
    tokens = request.thinking_tokens or THINKING_TOKENS.get(request.effort or "none", 0)
    choice = request.tool_choice
    if tokens and request.tools and choice is not None and choice.mode in ("required", "named"):
        raise BadRequest(
            "a forced tool and reasoning exclude each other here",
            path="tool_choice",
            remedy="send tool_choice auto, or no reasoning effort",
        )
    return tokens


def _tool_choice(choice: ToolChoice | None, parallel: bool | None) -> dict[str, Any] | None:
    if choice is None and parallel is not False:
        return None
    mode = choice.mode if choice is not None else "auto"
    if mode == "none":
        return {"type": "none"}
    out: dict[str, Any] = {"type": {"auto": "auto", "required": "any", "named": "tool"}[mode]}
    if choice is not None and mode == "named":
        out["name"] = choice.name
    if parallel is False:
        out["disable_parallel_tool_use"] = True
    return out


def _marked(block: dict[str, Any], cache: bool) -> dict[str, Any]:
    if cache:
        block["cache_control"] = _CACHE
    return block


def _turns(messages: tuple[Message, ...]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """System blocks, and turns in which user and assistant alternate.

    A system message in mid-conversation joins the others at the top, the only place for it.
    """
    system: list[dict[str, Any]] = []
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "system":
            system.extend(
                _marked({"type": "text", "text": p.text}, p.cache)
                for p in message.parts
                if isinstance(p, Text) and p.text
            )
            continue
        role = "assistant" if message.role == "assistant" else "user"
        parts = message.parts
        if len(parts) == 1 and type(parts[0]) is Text and not parts[0].cache:
            content: Any = parts[0].text
        else:
            content = [_block(p) for p in parts if not (isinstance(p, Text) and not p.text)]
        if not content:
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] = _blocks(turns[-1]["content"]) + _blocks(content)
        else:
            turns.append({"role": role, "content": content})
    return system, turns


def _blocks(content: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _block(part: Part) -> dict[str, Any]:
    if isinstance(part, Text):
        return _marked({"type": "text", "text": part.text}, part.cache)
    if isinstance(part, Image):
        source = (
            {"type": "url", "url": part.url}
            if part.url is not None
            else {"type": "base64", "media_type": part.media_type, "data": part.data}
        )
        return _marked({"type": "image", "source": source}, part.cache)
    if isinstance(part, ToolCall):
        arguments = loose_json(part.arguments.encode()) if part.arguments.strip() else {}
        if not isinstance(arguments, dict):
            arguments = {"arguments": part.arguments}
        return {"type": "tool_use", "id": part.id, "name": part.name, "input": arguments}
    if isinstance(part, ToolResult):
        inner = part.parts
        content: Any = [_block(p) for p in inner]
        if len(inner) == 1 and isinstance(inner[0], Text):
            content = inner[0].text
        block: dict[str, Any] = {
            "type": "tool_result",
            "tool_use_id": part.call_id,
            "content": content,
        }
        if part.is_error:
            block["is_error"] = True
        return _marked(block, part.cache)
    if part.redacted is not None:
        return {"type": "redacted_thinking", "data": part.redacted}
    if part.signature is None:
        return {"type": "text", "text": part.text}
    return {"type": "thinking", "thinking": part.text, "signature": part.signature}


class AnthropicDialect:
    """Anthropic's own API, and those who speak it."""

    name = "anthropic"

    def build(self, request: NeutralRequest, seat: Seat, *, stream: bool) -> WireCall:
        headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream" if stream else "application/json",
            "anthropic-version": API_VERSION,
        }
        if seat.key is not None:
            headers["x-api-key"] = seat.key
        base = seat.provider.base_url.rstrip("/").removesuffix("/v1")
        return WireCall(
            url=f"{base}/v1/messages",
            headers=headers,
            body=build_body(request, seat, stream=stream),
        )

    def reader(self, *, stream: bool, seat: Seat | None = None) -> Reader:
        return StreamReader() if stream else WholeReader()

    def refusal(
        self, status: int, body: bytes, retry_after_s: float | None, seat: Seat | None = None
    ) -> Failed:
        return failed(status, read_error(body), retry_after_s=retry_after_s)


ANTHROPIC = AnthropicDialect()
