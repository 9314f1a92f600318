"""Anthropic Messages: `ANTHROPIC`.

Differences that matter to a buyer: system prompts stand apart; `max_tokens` is required;
tool results are the user's; usage comes in two parts (`message_start`, `message_delta`), whose
input excludes what was cached or written, while our `Usage` includes it; temperature ends at 1.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

from bidding.errors import BadRequest
from broker.providers.base import (
    Reader,
    Seat,
    WireCall,
    count,
    filtered,
    loose_json,
    malformed,
    truncated,
)
from broker.providers.base import usage_of as _usage_of
from broker.providers.failures import SellerError, error_from, failed, read_error
from broker.providers.model_rules import rules_for, sampling
from broker.providers.sse import LineTooLong, SseParser
from broker.providers.whole import WholeBody
from broker.wire.json_guard import ABSENT, present
from broker.wire.neutral import (
    Event,
    Failed,
    Finish,
    FinishReason,
    Image,
    Message,
    NeutralRequest,
    Part,
    Started,
    Text,
    TextDelta,
    ThinkingDelta,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    ToolResult,
    Usage,
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

FINISHES: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


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
        body["stop_sequences"] = [s for s in request.stop if s.strip()]
    if request.tools:
        body["tools"] = [
            _marked(
                {
                    "name": t.name,
                    **({"description": t.description} if t.description is not None else {}),
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


class _BlockIn(Struct):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: Raw = ABSENT


class _DeltaIn(Struct):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None


class _MessageIn(Struct):
    id: str = ""
    model: str = ""
    content: list[_BlockIn] | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: Raw = ABSENT
    type: str = ""
    error: Raw = ABSENT


class _EventIn(Struct):
    type: str = ""
    index: int = 0
    message: _MessageIn | None = None
    content_block: _BlockIn | None = None
    delta: _DeltaIn | None = None
    usage: Raw = ABSENT
    error: Raw = ABSENT


_events = msgspec.json.Decoder(_EventIn)
_messages_in = msgspec.json.Decoder(_MessageIn)


class _Counts:
    """Usage as it adds up over a stream: later figures replace earlier ones."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[str, Any] = {}

    def take(self, raw: Raw) -> None:
        value = loose_json(raw)
        if isinstance(value, dict):
            self._seen.update({k: v for k, v in value.items() if v is not None})

    def usage(self) -> Usage | None:
        seen = self._seen
        fresh = count(seen.get("input_tokens"))
        read = count(seen.get("cache_read_input_tokens", 0)) or 0
        written = count(seen.get("cache_creation_input_tokens", 0)) or 0
        if fresh is None:
            return None
        details = seen.get("output_tokens_details")
        reasoning = details.get("thinking_tokens", 0) if isinstance(details, dict) else 0
        return _usage_of(
            fresh + read + written,
            seen.get("output_tokens"),
            cached=read,
            written=written,
            reasoning=reasoning,
        )


def _error_in(raw: Raw) -> SellerError:
    return error_from(loose_json(raw))


class StreamReader:
    """Reads a stream of message events."""

    def __init__(self) -> None:
        self._sse = SseParser()
        self._counts = _Counts()
        self._calls: dict[int, int] = {}
        self._finished = False
        self._wrote = False
        self._over = False

    @property
    def done(self) -> bool:
        return self._over

    def feed(self, piece: bytes) -> list[Event]:
        out: list[Event] = []
        if self._over:
            return out
        try:
            frames = self._sse.feed(piece)
        except LineTooLong:
            self._over = True
            return [malformed("line too long")]
        for frame in frames:
            try:
                event = _events.decode(frame.data)
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
                self._over = True
                out.append(malformed("event", frame.data))
                break
            self._take(event, out)
            if self.done:
                break
        return out

    def close(self) -> list[Event]:
        out: list[Event] = []
        if not self._over:
            self._end(out)
        return out

    def _end(self, out: list[Event]) -> None:
        self._over = True
        if not self._finished:
            out.append(truncated("stream without stop reason"))
            return
        usage = self._counts.usage()
        if usage is not None:
            out.append(usage)

    def _take(self, event: _EventIn, out: list[Event]) -> None:
        kind = event.type
        if kind == "content_block_delta":
            if event.delta is not None and not self._finished:
                self._delta(event.index, event.delta, out)
        elif kind == "content_block_start":
            if event.content_block is not None and not self._finished:
                self._start(event.index, event.content_block, out)
        elif kind == "message_start":
            message = event.message or _MessageIn()
            self._counts.take(message.usage)
            out.append(Started(message.id, message.model))
        elif kind == "message_delta":
            self._counts.take(event.usage)
            delta = event.delta
            if delta is not None and delta.stop_reason and not self._finished:
                self._finished = True
                reason = FINISHES.get(delta.stop_reason, "stop")
                if reason == "content_filter" and not self._wrote:
                    self._over = True
                    out.append(filtered())
                else:
                    out.append(Finish(reason, 0, delta.stop_sequence))
        elif kind == "message_stop":
            self._end(out)
        elif kind == "error":
            self._over = True
            out.append(failed(0, _error_in(event.error)))

    def _start(self, index: int, block: _BlockIn, out: list[Event]) -> None:
        self._wrote = self._wrote or block.type == "tool_use" or bool(block.text)
        if block.type == "tool_use" and index not in self._calls:
            at = self._calls[index] = len(self._calls)
            out.append(ToolCallDelta(at, block.id or f"toolu_{at}", block.name or ""))
        elif block.type == "redacted_thinking":
            out.append(ThinkingDelta(redacted=block.data or ""))
        elif block.text:
            out.append(TextDelta(block.text))

    def _delta(self, index: int, delta: _DeltaIn, out: list[Event]) -> None:
        if delta.text:
            self._wrote = True
            out.append(TextDelta(delta.text))
        elif delta.partial_json:
            at = self._calls.get(index)
            if at is not None:
                out.append(ToolCallDelta(at, arguments=delta.partial_json))
        elif delta.thinking:
            out.append(ThinkingDelta(delta.thinking))
        elif delta.signature:
            out.append(ThinkingDelta(signature=delta.signature))


class WholeReader(WholeBody):
    """Reads one message."""

    def read(self, body: bytes) -> list[Event]:
        message = _messages_in.decode(body)
        if message.type == "error" or present(message.error) is not None:
            return [failed(0, _error_in(message.error))]
        if message.content is None:
            return [malformed("no content")]
        out: list[Event] = [Started(message.id, message.model)]
        n_calls = 0
        for block in message.content:
            if block.type == "tool_use":
                arguments = "{}" if present(block.input) is None else bytes(block.input).decode()
                out.append(
                    ToolCallDelta(
                        n_calls, block.id or f"toolu_{n_calls}", block.name or "", arguments
                    )
                )
                n_calls += 1
            elif block.type == "thinking":
                out.append(ThinkingDelta(block.thinking or "", block.signature))
            elif block.type == "redacted_thinking":
                out.append(ThinkingDelta(redacted=block.data or ""))
            elif block.text:
                out.append(TextDelta(block.text))
        if not message.stop_reason:
            return [*out, truncated("no stop reason")]
        if not message.content and message.stop_reason == "refusal":
            return [filtered()]
        if not message.content and message.stop_reason != "end_turn":
            return [malformed("empty content")]
        out.append(Finish(FINISHES.get(message.stop_reason, "stop"), 0, message.stop_sequence))
        counts = _Counts()
        counts.take(message.usage)
        usage = counts.usage()
        return out if usage is None else [*out, usage]


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
