"""What comes back of Cohere v2 chat: whole answers, and streams of typed events."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

from bidding.outcome import FailureClass
from broker.providers.base import count, loose_json, malformed, truncated, usage_of
from broker.providers.failures import error_from, failed, read_error
from broker.providers.sse import ServerEvent
from broker.providers.streamed import StreamedEvents
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

MAX_TOOL_CALLS = 1024
FINISHES: dict[str, FinishReason] = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop",
    "MAX_TOKENS": "length",
    "TOOL_CALL": "tool_calls",
}
BAD_FINISHES: dict[str, FailureClass] = {
    "ERROR": FailureClass.SERVER_ERROR,
    "ERROR_TOXIC": FailureClass.REFUSED,
    "ERROR_LIMIT": FailureClass.CONTEXT_TOO_LONG,
    "TIMEOUT": FailureClass.SERVER_ERROR,
    "USER_CANCEL": FailureClass.SERVER_ERROR,
}


class _Function(Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(Struct):
    id: str | None = None
    function: _Function | None = None


class _Item(Struct):
    type: str = "text"
    text: str | None = None
    thinking: str | None = None


class _Message(Struct):
    """`content` and `tool_calls` are lists in an answer, single objects in a delta."""

    content: list[_Item] | _Item | None = None
    tool_calls: list[_Call] | _Call | None = None
    tool_plan: str | None = None


class _Delta(Struct):
    message: _Message | None = None
    finish_reason: str | None = None
    usage: Raw = ABSENT
    error: str | None = None


class _Event(Struct):
    type: str = ""
    id: str | None = None
    index: int = 0
    delta: _Delta | None = None
    message: str | None = None


class _Answer(Struct):
    id: str = ""
    message: _Message | str | None = None
    finish_reason: str | None = None
    usage: Raw = ABSENT


_events = msgspec.json.Decoder(_Event)
_answers = msgspec.json.Decoder(_Answer)


def usage_in(raw: Raw) -> Usage | None:
    """What is billed: `billed_units` where they are told, else `tokens`. What was cached is
    counted in the latter, so that it may exceed what is billed: then none of that was.
    """
    value = loose_json(raw) if present(raw) is not None else None
    if not isinstance(value, dict):
        return None
    for name in ("billed_units", "tokens"):
        counts: Any = value.get(name)
        if isinstance(counts, dict) and count(counts.get("input_tokens")):
            n_in, cached = count(counts.get("input_tokens")), count(value.get("cached_tokens", 0))
            return usage_of(
                n_in,
                counts.get("output_tokens", 0),
                cached=cached if n_in and cached and cached <= n_in else 0,
            )
    return None


def _end(word: str) -> Event:
    bad = BAD_FINISHES.get(word)
    if bad is not None:
        return Failed(failure=bad, reason=f"finish {word}")
    return Finish(FINISHES.get(word, "stop"))


class StreamReader(StreamedEvents):
    """Reads the events of a streamed chat."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: dict[int, int] = {}
        self._begun = False

    def take(self, frame: ServerEvent, out: list[Event]) -> bool:
        if frame.data in (b"", b"[DONE]"):
            return True
        return self._take(_events.decode(frame.data), frame.data, out)

    def end(self) -> list[Event]:
        return [truncated("stream without message-end" if self._begun else "empty stream")]

    def _take(self, event: _Event, data: bytes, out: list[Event]) -> bool:
        kind = event.type
        self._begun = True
        delta = event.delta or _Delta()
        message = delta.message or _Message()
        if kind == "message-start":
            out.append(Started(event.id or ""))
        elif kind in ("content-start", "content-delta"):
            if isinstance(message.content, _Item):
                _say(message.content, out)
        elif kind == "tool-plan-delta":
            if message.tool_plan:
                out.append(TextDelta(message.tool_plan))
        elif kind in ("tool-call-start", "tool-call-delta"):
            if isinstance(message.tool_calls, _Call):
                self._call(event.index, message.tool_calls, out)
        elif kind == "message-end":
            if delta.error and not delta.finish_reason:
                out.append(failed(0, error_from(delta.error)))
                return False
            ended = _end(delta.finish_reason or "COMPLETE")
            out.append(ended)
            usage = usage_in(delta.usage)
            if usage is not None and isinstance(ended, Finish):
                out.append(usage)
            return False
        elif not kind:
            error = read_error(data)
            bad = failed(0, error) if error.message or error.code else malformed("event", data)
            out.append(bad)
            return False
        return True

    def _call(self, index: int, call: _Call, out: list[Event]) -> None:
        function = call.function or _Function()
        at = self._calls.get(index)
        if at is None:
            if len(self._calls) >= MAX_TOOL_CALLS:
                return
            at = self._calls[index] = len(self._calls)
            name, text = function.name or "", function.arguments or ""
            out.append(ToolCallDelta(at, call.id or f"call_{at}", name, text))
        elif function.arguments:
            out.append(ToolCallDelta(at, arguments=function.arguments))


def _say(item: _Item, out: list[Event]) -> None:
    if item.thinking:
        out.append(ThinkingDelta(item.thinking))
    elif item.text:
        out.append(TextDelta(item.text))


class WholeReader(WholeBody):
    """Reads one chat answer."""

    def read(self, body: bytes) -> list[Event]:
        answer = _answers.decode(body)
        message = answer.message
        if not isinstance(message, _Message):
            error = read_error(body)
            return [failed(0, error) if error.message or error.code else malformed("no message")]
        out: list[Event] = [Started(answer.id)]
        if message.tool_plan:
            out.append(TextDelta(message.tool_plan))
        for item in message.content if isinstance(message.content, list) else ():
            _say(item, out)
        calls = message.tool_calls if isinstance(message.tool_calls, list) else []
        for at, call in enumerate(calls):
            function = call.function or _Function()
            made = call.id or f"call_{at}"
            out.append(ToolCallDelta(at, made, function.name or "", function.arguments or ""))
        if not answer.finish_reason:
            return [*out, truncated("no finish reason")]
        ended = _end(answer.finish_reason)
        if isinstance(ended, Failed):
            return [ended]
        usage = usage_in(answer.usage)
        return [*out, ended] if usage is None else [*out, ended, usage]
