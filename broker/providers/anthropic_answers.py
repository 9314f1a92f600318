"""What comes back of Anthropic's messages: whole answers, and streams of typed events."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

from broker.providers.base import count, filtered, loose_json, malformed, truncated, usage_of
from broker.providers.failures import SellerError, error_from, failed
from broker.providers.sse import ServerEvent
from broker.providers.streamed import StreamedEvents
from broker.providers.whole import WholeBody
from broker.wire.json_guard import ABSENT, present
from broker.wire.neutral import (
    Event,
    Finish,
    FinishReason,
    Started,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    Usage,
)

FINISHES: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


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
        return usage_of(
            fresh + read + written,
            seen.get("output_tokens"),
            cached=read,
            written=written,
            reasoning=reasoning,
        )


def _error_in(raw: Raw) -> SellerError:
    return error_from(loose_json(raw))


class StreamReader(StreamedEvents):
    """Reads a stream of message events."""

    def __init__(self) -> None:
        super().__init__()
        self._counts = _Counts()
        self._calls: dict[int, int] = {}
        self._finished = False
        self._wrote = False

    def end(self) -> list[Event]:
        if not self._finished:
            return [truncated("stream without stop reason")]
        usage = self._counts.usage()
        return [] if usage is None else [usage]

    def take(self, frame: ServerEvent, out: list[Event]) -> bool:
        event = _events.decode(frame.data)
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
            return event.delta is None or self._stop(event.delta, out)
        elif kind == "message_stop":
            out += self.end()
            return False
        elif kind == "error":
            out.append(failed(0, _error_in(event.error)))
            return False
        return True

    def _stop(self, delta: _DeltaIn, out: list[Event]) -> bool:
        if not delta.stop_reason or self._finished:
            return True
        self._finished = True
        reason = FINISHES.get(delta.stop_reason, "stop")
        if reason == "content_filter" and not self._wrote:
            out.append(filtered())
            return False
        out.append(Finish(reason, 0, delta.stop_sequence))
        return True

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
