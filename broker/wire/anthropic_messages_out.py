"""Anthropic's messages as apps read them: whole answers, streams of events, errors."""

from __future__ import annotations

from typing import Any

import msgspec

from broker.wire.neutral import (
    Answer,
    Event,
    Finish,
    FinishReason,
    NeutralRequest,
    RefusalDelta,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    Usage,
)
from broker.wire.surface import ErrorBody, ReplyMeta
from broker.wire.tokens import estimate_tokens

_encode = msgspec.json.Encoder().encode

_STOPS: dict[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def _usage(usage: Usage) -> dict[str, int]:
    fresh = usage.input_tokens - usage.cached_tokens - usage.written_tokens
    return {
        "input_tokens": fresh,
        "cache_creation_input_tokens": usage.written_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
    }


def _input(arguments: str) -> Any:
    """A tool call's arguments as the object this format wants; text that is none is kept."""
    try:
        value = msgspec.json.decode(arguments or "{}")
    except (msgspec.DecodeError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"arguments": arguments}


class MessagesStream:
    """A message in events."""

    def __init__(self, request: NeutralRequest, meta: ReplyMeta) -> None:
        self._meta = meta
        self._n_input = estimate_tokens(request)
        self._shows = request.show_thinking
        self._index = -1
        self._open: tuple[str, int] | None = None
        self._stop: str = "end_turn"
        self._sequence: str | None = None
        self._usage = Usage(input_tokens=self._n_input)

    def start(self) -> bytes:
        message: dict[str, Any] = {
            "id": self._meta.id,
            "type": "message",
            "role": "assistant",
            "content": [],
            "model": self._meta.model,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _usage(Usage(input_tokens=self._n_input, output_tokens=1)),
        }
        return _event("message_start", {"message": message})

    def event(self, event: Event) -> bytes:
        if isinstance(event, TextDelta | RefusalDelta):
            if not event.text or event.choice:
                return b""
            head = self._block(("text", 0), {"type": "text", "text": ""})
            return head + self._delta({"type": "text_delta", "text": event.text})
        if isinstance(event, ToolCallDelta):
            return self._call(event)
        if isinstance(event, ThinkingDelta):
            return self._thinking(event) if self._shows else b""
        if isinstance(event, Finish):
            self._stop = _STOPS[event.reason]
            if event.stop_sequence is not None:
                self._stop, self._sequence = "stop_sequence", event.stop_sequence
        elif isinstance(event, Usage):
            self._usage = event
        return b""

    def end(self) -> bytes:
        delta = {"stop_reason": self._stop, "stop_sequence": self._sequence}
        closing = self._close()
        closing += _event("message_delta", {"delta": delta, "usage": _usage(self._usage)})
        return closing + _event("message_stop", {})

    def error(self, error: ErrorBody) -> bytes:
        return _event("error", {"error": error_object(error)})

    def _call(self, event: ToolCallDelta) -> bytes:
        block = {"type": "tool_use", "id": event.id or "", "name": event.name or "", "input": {}}
        out = self._block(("call", event.index), block)
        if event.arguments:
            out += self._delta({"type": "input_json_delta", "partial_json": event.arguments})
        return out

    def _thinking(self, event: ThinkingDelta) -> bytes:
        if event.redacted is not None:
            block = {"type": "redacted_thinking", "data": event.redacted}
            return self._block(("redacted", self._index), block) + self._close()
        out = self._block(("thinking", 0), {"type": "thinking", "thinking": "", "signature": ""})
        if event.text:
            out += self._delta({"type": "thinking_delta", "thinking": event.text})
        if event.signature is not None:
            out += self._delta({"type": "signature_delta", "signature": event.signature})
            out += self._close()
        return out

    def _block(self, key: tuple[str, int], block: dict[str, Any]) -> bytes:
        """Open the block `key` unless it is open, closing the one before it."""
        if self._open == key:
            return b""
        closing = self._close()
        self._open = key
        self._index += 1
        start = {"index": self._index, "content_block": block}
        return closing + _event("content_block_start", start)

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return _event("content_block_delta", {"index": self._index, "delta": delta})

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        return _event("content_block_stop", {"index": self._index})


def _event(kind: str, fields: dict[str, Any]) -> bytes:
    name = kind.encode()
    return b"event: " + name + b"\ndata: " + _encode({"type": kind, **fields}) + b"\n\n"


def error_object(error: ErrorBody) -> dict[str, str]:
    """Anthropic's error object; its type follows from the status."""
    return {"type": _ERRORS.get(error.status, "api_error"), "message": error.message}


def message_body(answer: Answer, meta: ReplyMeta) -> bytes:
    """The body of a whole answer."""
    choice = answer.choices[0]
    content: list[dict[str, Any]] = []
    for thought in choice.thinking:
        if thought.redacted is not None:
            content.append({"type": "redacted_thinking", "data": thought.redacted})
        else:
            block = {"type": "thinking", "thinking": thought.text}
            content.append({**block, "signature": thought.signature or ""})
    text = choice.text or choice.refusal
    if text:
        content.append({"type": "text", "text": text})
    content.extend(
        {"type": "tool_use", "id": c.id, "name": c.name, "input": _input(c.arguments)}
        for c in choice.tool_calls
    )
    stop = _STOPS[choice.finish] if choice.stop_sequence is None else "stop_sequence"
    body: dict[str, Any] = {
        "id": meta.id,
        "type": "message",
        "role": "assistant",
        "model": meta.model,
        "content": content,
        "stop_reason": stop,
        "stop_sequence": choice.stop_sequence,
        "usage": _usage(answer.usage or Usage()),
    }
    if meta.broker is not None:
        body["broker"] = meta.broker
    return _encode(body)
