"""OpenAI responses, the way out: one `response` object, or the events that build it.

The stream is the object growing: items are added, their parts are added, grow, and are done, in
the order OpenAI documents; every event carries a sequence number. Tool calls stay open until
the answer ends, since sellers may write several at once; the rest closes when something else
begins. A stream that breaks ends in `response.failed`, which holds what was delivered.
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec
from msgspec import Raw, Struct

from broker.wire.neutral import (
    Answer,
    Event,
    Finish,
    FinishReason,
    NeutralRequest,
    RefusalDelta,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolCallDelta,
    Usage,
)
from broker.wire.surface import ErrorBody, ReplyMeta

_encode = msgspec.json.Encoder().encode
_INCOMPLETE: dict[FinishReason, str] = {
    "length": "max_output_tokens",
    "content_filter": "content_filter",
}


class Sealed(Struct):
    """What only a model's own seller can read of its reasoning; ours to carry, not to read."""

    signature: str | None = None
    redacted: str | None = None


class _Logprobs(Struct):
    content: list[Raw] | None = None


_logprobs = msgspec.json.Decoder(_Logprobs)


def _told(logprobs: Raw | None) -> list[Raw]:
    return [] if logprobs is None else (_logprobs.decode(logprobs).content or [])


def usage_object(usage: Usage) -> dict[str, Any]:
    """Usage as responses state it."""
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.written_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _reasoning(item_id: str, thought: Thinking) -> dict[str, Any]:
    item: dict[str, Any] = {
        "id": item_id,
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": thought.text}] if thought.text else [],
    }
    if thought.signature is not None or thought.redacted is not None:
        sealed = _encode(Sealed(thought.signature, thought.redacted))
        item["encrypted_content"] = base64.b64encode(sealed).decode()
    return item


def _text_part(text: str, logprobs: list[Raw]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def _message(item_id: str, status: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": item_id,
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": parts,
    }


def _call(item_id: str, status: str, call_id: str, name: str, arguments: str) -> dict[str, Any]:
    return {
        "id": item_id,
        "type": "function_call",
        "status": status,
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
    }


def _format(request: NeutralRequest) -> dict[str, Any]:
    fmt = request.response_format
    if fmt is None:
        return {"type": "text"}
    if fmt.kind == "json_object":
        return {"type": "json_object"}
    return {
        "type": "json_schema",
        "name": fmt.name,
        "description": fmt.description,
        "schema": fmt.schema if fmt.schema is not None else {},
        "strict": fmt.strict,
    }


def _echo(request: NeutralRequest) -> dict[str, Any]:
    """What a response repeats of its request."""
    choice = request.tool_choice
    told: Any = "auto" if choice is None else choice.mode
    if choice is not None and choice.mode == "named":
        told = {"type": "function", "name": choice.name}
    text: dict[str, Any] = {"format": _format(request)}
    if request.verbosity is not None:
        text["verbosity"] = request.verbosity
    parallel = request.parallel_tool_calls
    return {
        "background": False,
        "instructions": None,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": None,
        "metadata": request.metadata,
        "parallel_tool_calls": True if parallel is None else parallel,
        "previous_response_id": None,
        "prompt_cache_key": request.prompt_cache_key,
        "reasoning": {
            "effort": request.effort,
            "summary": "auto" if request.show_thinking else None,
        },
        "service_tier": "default",
        "store": False,
        "temperature": request.temperature,
        "text": text,
        "tool_choice": told,
        "tools": [
            {
                "type": "function",
                "name": t.name,
                "description": t.description,
                "parameters": t.parameters,
                "strict": t.strict,
            }
            for t in request.tools
        ],
        "top_logprobs": request.top_logprobs or 0,
        "top_p": request.top_p,
        "truncation": "disabled",
        "user": request.user,
    }


class _Frame:
    """The response object around its output."""

    def __init__(self, request: NeutralRequest, meta: ReplyMeta) -> None:
        self._head = {
            "id": meta.id,
            "object": "response",
            "created_at": meta.created_s,
            "model": meta.model,
        }
        self._echo = _echo(request)
        self._broker = meta.broker

    def at(
        self,
        status: str,
        output: list[dict[str, Any]],
        *,
        usage: Usage | None = None,
        reason: str | None = None,
        error: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        body: dict[str, Any] = {
            **self._head,
            "status": status,
            "error": error,
            "incomplete_details": None if reason is None else {"reason": reason},
            "output": output,
            "usage": None if usage is None else usage_object(usage),
            **self._echo,
        }
        if self._broker is not None:
            body["broker"] = self._broker
        return body


def response_body(request: NeutralRequest, answer: Answer, meta: ReplyMeta) -> bytes:
    """A whole response."""
    choice = answer.choices[0]
    core = meta.id.partition("_")[2]
    output: list[dict[str, Any]] = []
    if request.show_thinking:
        output += [_reasoning(f"rs_{core}_{i}", t) for i, t in enumerate(choice.thinking)]
    reason = _INCOMPLETE.get(choice.finish)
    status = "completed" if reason is None else "incomplete"
    parts: list[dict[str, Any]] = []
    if choice.text or not (choice.tool_calls or choice.refusal):
        logprobs = [raw for piece in choice.logprobs for raw in _told(piece)]
        parts.append(_text_part(choice.text, logprobs))
    if choice.refusal:
        parts.append({"type": "refusal", "refusal": choice.refusal})
    if parts:
        output.append(_message(f"msg_{core}_{len(output)}", status, parts))
    for call in choice.tool_calls:
        item_id = f"fc_{core}_{len(output)}"
        output.append(_call(item_id, "completed", call.id, call.name, call.arguments))
    frame = _Frame(request, meta)
    return _encode(frame.at(status, output, usage=answer.usage or Usage(), reason=reason))


class _Item:
    """An output item under way."""

    __slots__ = ("at", "id", "kind", "logprobs", "name", "pieces", "sealed", "told_id")

    def __init__(self, kind: str, at: int, item_id: str, told_id: str, name: str) -> None:
        self.kind = kind
        self.at = at
        self.id = item_id
        self.told_id = told_id
        self.name = name
        self.pieces: list[str] = []
        self.logprobs: list[Raw] = []
        self.sealed: ThinkingDelta | None = None

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def part(self) -> dict[str, Any]:
        if self.kind == "refusal":
            return {"type": "refusal", "refusal": self.text}
        return _text_part(self.text, self.logprobs)

    def object(self, status: str) -> dict[str, Any]:
        if self.kind == "call":
            return _call(self.id, status, self.told_id, self.name, self.text)
        if self.kind == "thinking":
            seal = self.sealed
            signature = None if seal is None else seal.signature
            redacted = None if seal is None else seal.redacted
            return _reasoning(self.id, Thinking(self.text, signature, redacted))
        began = bool(self.pieces)
        return _message(self.id, status, [self.part] if began else [])


_PREFIX = {"call": "fc_", "thinking": "rs_", "text": "msg_", "refusal": "msg_"}


class ResponseStream:
    """A response in events."""

    def __init__(self, request: NeutralRequest, meta: ReplyMeta) -> None:
        self._frame = _Frame(request, meta)
        self._core = meta.id.partition("_")[2]
        self._shows = request.show_thinking
        self._n = 0
        self._done: dict[int, dict[str, Any]] = {}
        self._open: _Item | None = None
        self._calls: dict[int, _Item] = {}
        self._n_items = 0
        self._finish: FinishReason = "stop"
        self._usage = Usage()

    def start(self) -> bytes:
        begun = {"response": self._frame.at("in_progress", [])}
        return self._event("response.created", begun) + self._event("response.in_progress", begun)

    def event(self, event: Event) -> bytes:
        if type(event) is TextDelta:
            return self._text(event) if event.text and not event.choice else b""
        if isinstance(event, ToolCallDelta):
            return self._call(event)
        if isinstance(event, ThinkingDelta):
            return self._thinking(event) if self._shows else b""
        if isinstance(event, RefusalDelta):
            return self._refusal(event.text) if event.text else b""
        if isinstance(event, Finish):
            self._finish = event.reason
        elif isinstance(event, Usage):
            self._usage = event
        return b""

    def end(self) -> bytes:
        reason = _INCOMPLETE.get(self._finish)
        status = "completed" if reason is None else "incomplete"
        closing = self._close_all(status)
        if not self._n_items:
            closing += self._begin("text")[0] + self._part_added() + self._close_all(status)
        whole = self._frame.at(status, self._output(), usage=self._usage, reason=reason)
        return closing + self._event(f"response.{status}", {"response": whole})

    def error(self, error: ErrorBody) -> bytes:
        for item in self._under_way():
            self._done[item.at] = item.object("incomplete")
        told = {"code": "server_error", "message": error.message}
        whole = self._frame.at("failed", self._output(), usage=self._usage, error=told)
        return self._event("response.failed", {"response": whole})

    def _output(self) -> list[dict[str, Any]]:
        return [self._done[at] for at in sorted(self._done)]

    def _under_way(self) -> list[_Item]:
        items = [*self._calls.values()]
        if self._open is not None:
            items.append(self._open)
        return sorted(items, key=lambda item: item.at)

    def _begin(self, kind: str, told_id: str = "", name: str = "") -> tuple[bytes, _Item]:
        """A new item, after whatever was open but calls."""
        closing = b"" if self._open is None else self._close(self._open, "completed")
        item = _Item(kind, self._n_items, "", told_id, name)
        item.id = f"{_PREFIX[kind]}{self._core}_{self._n_items}"
        self._n_items += 1
        self._open = None if kind == "call" else item
        shown = item.object("in_progress")
        added = {"output_index": item.at, "item": shown}
        return closing + self._event("response.output_item.added", added), item

    def _text(self, event: TextDelta) -> bytes:
        item, opening = self._open, b""
        if item is None or item.kind != "text":
            opening, item = self._begin("text")
            opening += self._part_added()
        item.pieces.append(event.text)
        told = _told(event.logprobs)
        item.logprobs += told
        fields = {"delta": event.text, "logprobs": told}
        return opening + self._in_part("response.output_text.delta", item, fields)

    def _refusal(self, text: str) -> bytes:
        item, opening = self._open, b""
        if item is None or item.kind != "refusal":
            opening, item = self._begin("refusal")
            opening += self._part_added()
        item.pieces.append(text)
        return opening + self._in_part("response.refusal.delta", item, {"delta": text})

    def _part_added(self) -> bytes:
        item = self._open
        if item is None:
            return b""
        return self._in_part("response.content_part.added", item, {"part": item.part})

    def _thinking(self, event: ThinkingDelta) -> bytes:
        item, opening = self._open, b""
        if item is None or item.kind != "thinking":
            opening, item = self._begin("thinking")
        if event.text:
            if not item.pieces:
                part = {"part": {"type": "summary_text", "text": ""}}
                opening += self._in_summary("response.reasoning_summary_part.added", item, part)
            item.pieces.append(event.text)
            delta = {"delta": event.text}
            opening += self._in_summary("response.reasoning_summary_text.delta", item, delta)
        if event.signature is not None or event.redacted is not None:
            item.sealed = event
            self._open = None
            opening += self._close(item, "completed")
        return opening

    def _call(self, event: ToolCallDelta) -> bytes:
        item, opening = self._calls.get(event.index), b""
        if item is None:
            opening, item = self._begin("call", event.id or "", event.name or "")
            self._calls[event.index] = item
        if not event.arguments:
            return opening
        item.pieces.append(event.arguments)
        fields = {"item_id": item.id, "output_index": item.at, "delta": event.arguments}
        return opening + self._event("response.function_call_arguments.delta", fields)

    def _close_all(self, status: str) -> bytes:
        closing = b"".join(self._close(item, status) for item in self._under_way())
        self._open = None
        self._calls.clear()
        return closing

    def _close(self, item: _Item, status: str) -> bytes:
        out = b""
        if item.kind == "call":
            fields = {"item_id": item.id, "output_index": item.at, "name": item.name}
            fields["arguments"] = item.text
            out = self._event("response.function_call_arguments.done", fields)
        elif item.kind == "thinking":
            if item.pieces:
                text = item.text
                out = self._in_summary("response.reasoning_summary_text.done", item, {"text": text})
                part = {"part": {"type": "summary_text", "text": text}}
                out += self._in_summary("response.reasoning_summary_part.done", item, part)
        else:
            if item.kind == "text":
                fields = {"text": item.text, "logprobs": item.logprobs}
                out = self._in_part("response.output_text.done", item, fields)
            else:
                out = self._in_part("response.refusal.done", item, {"refusal": item.text})
            item.pieces = item.pieces or [""]
            out += self._in_part("response.content_part.done", item, {"part": item.part})
        shown = item.object(status)
        self._done[item.at] = shown
        done = {"output_index": item.at, "item": shown}
        return out + self._event("response.output_item.done", done)

    def _in_part(self, kind: str, item: _Item, fields: dict[str, Any]) -> bytes:
        where = {"item_id": item.id, "output_index": item.at, "content_index": 0}
        return self._event(kind, {**where, **fields})

    def _in_summary(self, kind: str, item: _Item, fields: dict[str, Any]) -> bytes:
        where = {"item_id": item.id, "output_index": item.at, "summary_index": 0}
        return self._event(kind, {**where, **fields})

    def _event(self, kind: str, fields: dict[str, Any]) -> bytes:
        number = self._n
        self._n = number + 1
        data = _encode({"type": kind, "sequence_number": number, **fields})
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)
