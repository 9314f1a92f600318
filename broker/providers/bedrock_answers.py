"""What comes back of Converse: whole answers, and event streams of deltas."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

from bidding.outcome import FailureClass
from broker.providers.base import count, filtered, loose_json, malformed, truncated, usage_of
from broker.providers.event_stream import EventMessage, EventStreamParser
from broker.providers.failures import error_from, failed, read_error
from broker.providers.streamed import StreamedBody
from broker.providers.whole import WholeBody
from broker.wire.json_guard import ABSENT, present
from broker.wire.neutral import (
    Event,
    Failed,
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
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}
BAD_FINISHES = frozenset({"malformed_model_output", "malformed_tool_use"})


class _Thought(Struct, rename="camel"):
    text: str | None = None
    signature: str | None = None
    redacted_content: str | None = None
    reasoning_text: _Thought | None = None


class _ToolUse(Struct, rename="camel"):
    tool_use_id: str = ""
    name: str = ""
    input: Raw = ABSENT


class _Block(Struct, rename="camel"):
    text: str | None = None
    tool_use: _ToolUse | None = None
    reasoning_content: _Thought | None = None


class _Message(Struct):
    content: list[_Block] | None = None


class _Output(Struct):
    message: _Message | None = None


class _Answer(Struct, rename="camel"):
    output: _Output | None = None
    stop_reason: str | None = None
    usage: Raw = ABSENT


class _Delta(Struct, rename="camel"):
    """Any of the stream's events: they have no field in common that means two things."""

    content_block_index: int = 0
    start: _Block | None = None
    delta: _Block | None = None
    stop_reason: str | None = None
    usage: Raw = ABSENT


_answers = msgspec.json.Decoder(_Answer)
_deltas = msgspec.json.Decoder(_Delta)


def usage_in(value: Any) -> Usage | None:
    """`inputTokens` leaves out what was read from the cache or written to it."""
    if not isinstance(value, dict):
        return None
    fresh = count(value.get("inputTokens"))
    read = count(value.get("cacheReadInputTokens", 0)) or 0
    written = count(value.get("cacheWriteInputTokens", 0)) or 0
    if fresh is None:
        return None
    return usage_of(fresh + read + written, value.get("outputTokens"), cached=read, written=written)


def _end(word: str, stop: bool, wrote: bool) -> Event:
    """The event of a stop reason; `stop` says whether calls of tools were made."""
    if word in BAD_FINISHES:
        return Failed(failure=FailureClass.MALFORMED, reason=f"finish {word}")
    reason = FINISHES.get(word, "stop")
    if reason == "content_filter" and not wrote:
        return filtered()
    return Finish("tool_calls" if reason == "stop" and stop else reason)


class StreamReader(StreamedBody[EventMessage]):
    """Reads the messages of `ConverseStream`."""

    def __init__(self) -> None:
        super().__init__(EventStreamParser())
        self._calls: dict[int, int] = {}
        self._usage: Usage | None = None
        self._begun = False
        self._wrote = False
        self._finished = False

    def bytes_of(self, frame: EventMessage) -> bytes:
        return frame.payload

    def end(self) -> list[Event]:
        if not self._finished:
            return [truncated("stream without stop reason" if self._begun else "empty stream")]
        return [] if self._usage is None else [self._usage]

    def take(self, frame: EventMessage, out: list[Event]) -> bool:
        headers, payload = frame
        kind = headers.get(":event-type", "")
        if headers.get(":message-type", "event") != "event":
            name = headers.get(":exception-type") or headers.get(":error-code") or ""
            error = read_error(payload)
            text = error.message or headers.get(":error-message", "")
            out.append(failed(0, error._replace(kind=error.kind or name, message=text)))
            return False
        event = _deltas.decode(payload)
        self._begun = True
        if kind == "messageStart":
            out.append(Started())
        elif kind == "contentBlockStart" and event.start is not None and not self._finished:
            self._start(event, out)
        elif kind == "contentBlockDelta" and event.delta is not None and not self._finished:
            self._delta(event.content_block_index, event.delta, out)
        elif kind == "messageStop" and not self._finished:
            ended = _end(event.stop_reason or "", bool(self._calls), self._wrote)
            out.append(ended)
            self._finished = True
            return not isinstance(ended, Failed)
        elif kind == "metadata":
            self._usage = usage_in(loose_json(event.usage))
            if self._finished and self._usage is not None:
                out.append(self._usage)
                return False
        return True

    def _start(self, event: _Delta, out: list[Event]) -> None:
        call = event.start.tool_use if event.start is not None else None
        if call is not None and event.content_block_index not in self._calls:
            at = self._calls[event.content_block_index] = len(self._calls)
            self._wrote = True
            out.append(ToolCallDelta(at, call.tool_use_id or f"tooluse_{at}", call.name))

    def _delta(self, index: int, delta: _Block, out: list[Event]) -> None:
        if delta.text:
            self._wrote = True
            out.append(TextDelta(delta.text))
        elif delta.tool_use is not None:
            at = self._calls.get(index)
            piece = loose_json(delta.tool_use.input)
            if at is not None and isinstance(piece, str) and piece:
                out.append(ToolCallDelta(at, arguments=piece))
        elif delta.reasoning_content is not None:
            thought = delta.reasoning_content
            if thought.redacted_content is not None:
                out.append(ThinkingDelta(redacted=thought.redacted_content))
            elif thought.text or thought.signature:
                out.append(ThinkingDelta(thought.text or "", thought.signature))


class WholeReader(WholeBody):
    """Reads one Converse answer."""

    def read(self, body: bytes) -> list[Event]:
        answer = _answers.decode(body)
        message = answer.output.message if answer.output is not None else None
        if message is None or message.content is None:
            error = error_from(loose_json(body))
            return [failed(0, error) if error.message or error.kind else malformed("no message")]
        out: list[Event] = [Started()]
        n_calls = 0
        for block in message.content:
            call = block.tool_use
            if call is not None:
                arguments = bytes(call.input).decode() if present(call.input) is not None else "{}"
                made = call.tool_use_id or f"tooluse_{n_calls}"
                out.append(ToolCallDelta(n_calls, made, call.name, arguments))
                n_calls += 1
            elif block.reasoning_content is not None:
                thought = block.reasoning_content
                text = thought.reasoning_text or thought
                out.append(ThinkingDelta(text.text or "", text.signature, thought.redacted_content))
            elif block.text:
                out.append(TextDelta(block.text))
        if not answer.stop_reason:
            return [*out, truncated("no stop reason")]
        ended = _end(answer.stop_reason, n_calls > 0, len(out) > 1)
        if isinstance(ended, Failed):
            return [ended]
        usage = usage_in(loose_json(answer.usage))
        return [*out, ended] if usage is None else [*out, ended, usage]
