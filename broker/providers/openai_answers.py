"""What comes back of OpenAI's chat completions, and of the many sellers who speak them nearly.

The reader trusts nothing: a chunk is decoded by type where its meaning matters and left raw
where sellers are known to lie (usage, errors). Each choice ends once; what a seller sends for it
afterwards is a breach of protocol and dropped. A stream has ended well if every choice it began
has ended, with or without `[DONE]`; otherwise it is truncated, whatever the transport says.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

from bidding.outcome import FailureClass
from broker.providers.base import filtered, loose_json, malformed, truncated, usage_of
from broker.providers.failures import error_from, failed, read_error
from broker.providers.quirks import Quirks
from broker.providers.sse import ServerEvent
from broker.providers.streamed import StreamedEvents
from broker.providers.whole import WholeBody
from broker.wire.json_guard import ABSENT, present
from broker.wire.neutral import (
    Event,
    Failed,
    Finish,
    FinishReason,
    RefusalDelta,
    Started,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    Usage,
)

FINISHES: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "safety": "content_filter",
}
BAD_FINISHES: dict[str, FailureClass] = {
    "error": FailureClass.SERVER_ERROR,
    "insufficient_system_resource": FailureClass.OVERLOADED,
}


class _FunctionIn(Struct):
    name: str | None = None
    arguments: str | None = None


class _CallIn(Struct):
    index: int | None = None
    id: str | None = None
    function: _FunctionIn | None = None


class _Said(Struct):
    content: str | list[Raw] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_CallIn] | None = None


class _ChoiceIn(Struct):
    index: int = 0
    delta: _Said | None = None
    message: _Said | None = None
    finish_reason: str | None = None
    logprobs: Raw = ABSENT
    usage: Raw = ABSENT


class _Chunk(Struct):
    id: str | None = None
    model: str | None = None
    choices: list[_ChoiceIn] | None = None
    usage: Raw = ABSENT
    error: Raw = ABSENT
    x_groq: Raw = ABSENT


_decoder = msgspec.json.Decoder(_Chunk)
MAX_CHOICES = 128
MAX_TOOL_CALLS = 1024


class _Progress:
    """What one answer has shown so far: which choices began and ended, and its usage."""

    __slots__ = (
        "_calls",
        "_finished",
        "_quirks",
        "_said",
        "_started",
        "_usage_at",
        "_wrote",
        "usage",
    )

    def __init__(self, quirks: Quirks | None) -> None:
        self._quirks = quirks
        self._usage_at = "usage" if quirks is None else quirks.usage_at
        self._started = False
        self._said: set[int] = set()
        self._finished: dict[int, FinishReason] = {}
        self._calls: dict[int, list[str | None]] = {}
        self._wrote = False
        self.usage: Usage | None = None

    @property
    def complete(self) -> bool:
        return bool(self._finished) and self._said <= self._finished.keys()

    @property
    def begun(self) -> bool:
        return bool(self._said)

    def take(self, chunk: _Chunk, events: list[Event]) -> bool:
        """Add the events of `chunk`; False when it ended the attempt badly."""
        error = present(chunk.error)
        if error is not None:
            value = loose_json(error)
            if value:
                events.append(failed(0, error_from(value), quirks=self._quirks))
                return False
        if not self._started:
            self._started = True
            events.append(Started(chunk.id or "", chunk.model or ""))
        for choice in chunk.choices or ():
            if choice.index in self._finished:
                continue
            if not 0 <= choice.index < MAX_CHOICES:
                events.append(malformed("choice out of range"))
                return False
            said = choice.delta or choice.message
            if said is not None:
                self._say(said, choice, events)
            if self._usage_at == "choice" and present(choice.usage) is not None:
                self._take_usage(loose_json(choice.usage))
            if choice.finish_reason and not self._finish(choice.index, choice, events):
                return False
        usage = present(chunk.usage)
        if usage is not None:
            self._take_usage(loose_json(usage))
        elif self._usage_at == "x_groq" and present(chunk.x_groq) is not None:
            elsewhere = loose_json(chunk.x_groq)
            if isinstance(elsewhere, dict):
                self._take_usage(elsewhere.get("usage"))
        return True

    def _say(self, said: _Said, choice: _ChoiceIn, events: list[Event]) -> None:
        index = choice.index
        self._said.add(index)
        text = said.content
        if text:
            if isinstance(text, list):
                text = _joined(text, index, events)
            if text:
                self._wrote = True
                logprobs = present(choice.logprobs)
                if logprobs is not None:
                    bytes(logprobs).decode()  # it goes on as it is, so it has to be UTF-8
                events.append(TextDelta(text, index, logprobs))
        thinking = said.reasoning_content or said.reasoning
        if thinking:
            events.append(ThinkingDelta(thinking, choice=index))
        if said.refusal:
            self._wrote = True
            events.append(RefusalDelta(said.refusal, index))
        if said.tool_calls:
            for call in said.tool_calls:
                self._call(call, index, events)

    def _call(self, call: _CallIn, choice: int, events: list[Event]) -> None:
        """Some sellers number their calls, some only name them; a new id is a new call."""
        known = self._calls.setdefault(choice, [])
        at = call.index
        if at is None:
            new = call.id is not None and call.id not in known
            at = len(known) if new or not known else len(known) - 1
        if not 0 <= at < MAX_TOOL_CALLS:
            return
        function = call.function or _FunctionIn()
        first = at >= len(known) or known[at] is None
        while len(known) <= at:
            known.append(None)
        if first:
            known[at] = call.id or f"call_{choice}_{at}"
            events.append(
                ToolCallDelta(at, known[at], function.name or "", function.arguments or "", choice)
            )
        elif function.arguments:
            events.append(ToolCallDelta(at, arguments=function.arguments, choice=choice))

    def _finish(self, index: int, choice: _ChoiceIn, events: list[Event]) -> bool:
        word = (choice.finish_reason or "").lower()
        bad = BAD_FINISHES.get(word)
        if bad is not None:
            events.append(Failed(failure=bad, reason=f"finish {word}"))
            return False
        reason = FINISHES.get(word, "stop")
        if reason == "content_filter" and not self._wrote and not self._calls:
            events.append(filtered())
            return False
        if reason == "stop" and self._calls.get(index):
            reason = "tool_calls"
        self._said.add(index)
        self._finished[index] = reason
        events.append(Finish(reason, index))
        return True

    def _take_usage(self, value: Any) -> None:
        if not isinstance(value, dict):
            return
        details = value.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, dict) else None
        if cached is None:
            cached = value.get("prompt_cache_hit_tokens", 0)
        out_details = value.get("completion_tokens_details")
        reasoning = out_details.get("reasoning_tokens") if isinstance(out_details, dict) else 0
        found = usage_of(
            value.get("prompt_tokens"),
            value.get("completion_tokens"),
            cached=cached,
            reasoning=reasoning,
        )
        if found is not None:
            self.usage = found


def _joined(parts: list[Raw], index: int, events: list[Event]) -> str:
    """Mistral's content parts: text is text, its thinking is thinking."""
    texts: list[str] = []
    for part in parts:
        value = loose_json(part)
        if not isinstance(value, dict):
            continue
        if isinstance(value.get("text"), str):
            texts.append(value["text"])
        elif isinstance(value.get("thinking"), list):
            inner = "".join(
                t["text"]
                for t in value["thinking"]
                if isinstance(t, dict) and isinstance(t.get("text"), str)
            )
            if inner:
                events.append(ThinkingDelta(inner, choice=index))
    return "".join(texts)


class StreamReader(StreamedEvents):
    """Reads `chat.completion.chunk`s."""

    def __init__(self, quirks: Quirks | None = None) -> None:
        super().__init__()
        self._progress = _Progress(quirks)
        self._quirks = quirks

    def take(self, frame: ServerEvent, out: list[Event]) -> bool:
        data = frame.data
        if not data:
            return True
        if data == b"[DONE]":
            out += self.end()
            return False
        is_error = frame.event == b"error"
        try:
            chunk = _decoder.decode(data)
            if not is_error or present(chunk.error) is not None:
                return self._progress.take(chunk, out)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            if not is_error:
                raise
        out.append(failed(0, read_error(data), quirks=self._quirks))
        return False

    def end(self) -> list[Event]:
        progress = self._progress
        if not progress.complete:
            what = "stream without finish" if progress.begun else "stream without choices"
            return [truncated(what) if progress.begun else malformed(what)]
        return [] if progress.usage is None else [progress.usage]


class WholeReader(WholeBody):
    """Reads one `chat.completion`."""

    def __init__(self, quirks: Quirks | None = None) -> None:
        super().__init__()
        self._quirks = quirks

    def read(self, body: bytes) -> list[Event]:
        whole = _decoder.decode(body)
        events: list[Event] = []
        progress = _Progress(self._quirks)
        if not progress.take(whole, events):
            return events
        if not progress.begun:
            error_in = read_error(body)
            if error_in.message or error_in.code:
                return [failed(0, error_in, quirks=self._quirks)]
            return [malformed("empty choices" if whole.choices is not None else "no choices")]
        if not progress.complete:
            return [*events, truncated("no finish reason")]
        if progress.usage is not None:
            events.append(progress.usage)
        return events
