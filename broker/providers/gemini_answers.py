"""What comes back of `generateContent`: whole answers, and streams of partial ones.

Every piece of a stream is an answer of its own shape: candidates with parts, a finish reason in
the last of each, usage that grows. A call of a tool comes whole. There is no end mark, so a
stream that ends has ended well if every candidate it began has a finish reason.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

from bidding.outcome import FailureClass
from broker.providers.base import filtered, loose_json, malformed, truncated, usage_of
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

MAX_CANDIDATES = 128
MAX_TOOL_CALLS = 1024
FINISHES: dict[str, FinishReason] = {"STOP": "stop", "MAX_TOKENS": "length"}
BAD_FINISHES: dict[str, FailureClass] = {
    "MALFORMED_FUNCTION_CALL": FailureClass.MALFORMED,
    "UNEXPECTED_TOOL_CALL": FailureClass.MALFORMED,
    "MISSING_THOUGHT_SIGNATURE": FailureClass.MALFORMED,
    "MALFORMED_RESPONSE": FailureClass.MALFORMED,
    "TOO_MANY_TOOL_CALLS": FailureClass.MALFORMED,
    "OTHER": FailureClass.SERVER_ERROR,
}
"""Ends that are no answer. Whatever stands in neither table is one of the many filters
(SAFETY, RECITATION, LANGUAGE, BLOCKLIST, PROHIBITED_CONTENT, SPII, …).
"""


class _Call(Struct):
    name: str = ""
    args: Raw = ABSENT
    id: str | None = None


class _Part(Struct, rename="camel"):
    text: str | None = None
    thought: bool = False
    function_call: _Call | None = None


class _Content(Struct):
    parts: list[_Part] | None = None


class _Candidate(Struct, rename="camel"):
    content: _Content | None = None
    finish_reason: str | None = None
    index: int = 0


class _Feedback(Struct, rename="camel"):
    block_reason: str | None = None


class _Answer(Struct, rename="camel"):
    candidates: list[_Candidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: Raw = ABSENT
    model_version: str = ""
    response_id: str = ""
    error: Raw = ABSENT


_decoder = msgspec.json.Decoder(_Answer)


class _Progress:
    """What one answer has shown so far."""

    __slots__ = ("_calls", "_finished", "_said", "_started", "_wrote", "usage")

    def __init__(self) -> None:
        self._started = False
        self._said: set[int] = set()
        self._finished: set[int] = set()
        self._calls: dict[int, int] = {}
        self._wrote = False
        self.usage: Usage | None = None

    @property
    def complete(self) -> bool:
        return bool(self._finished) and self._said <= self._finished

    @property
    def begun(self) -> bool:
        return bool(self._said)

    def take(self, answer: _Answer, out: list[Event]) -> bool:
        """Add the events of `answer`; False when it ended the attempt badly."""
        if present(answer.error) is not None:
            out.append(failed(0, error_from(loose_json(answer.error))))
            return False
        if not self._started:
            self._started = True
            out.append(Started(answer.response_id, answer.model_version))
        feedback = answer.prompt_feedback
        if feedback is not None and feedback.block_reason and not answer.candidates:
            out.append(filtered())
            return False
        for candidate in answer.candidates or ():
            if candidate.index in self._finished:
                continue
            if not 0 <= candidate.index < MAX_CANDIDATES:
                out.append(malformed("candidate out of range"))
                return False
            self._said.add(candidate.index)
            content = candidate.content
            for part in (content.parts if content is not None else None) or ():
                self._part(part, candidate.index, answer.response_id, out)
            if candidate.finish_reason and not self._finish(candidate, out):
                return False
        if present(answer.usage_metadata) is not None:
            self._take_usage(loose_json(answer.usage_metadata))
        return True

    def _part(self, part: _Part, index: int, response_id: str, out: list[Event]) -> None:
        call = part.function_call
        if call is not None:
            at = self._calls.get(index, 0)
            if at >= MAX_TOOL_CALLS:
                return
            self._calls[index] = at + 1
            self._wrote = True
            made = f"call_{response_id}_{index}_{at}" if response_id else f"call_{index}_{at}"
            arguments = bytes(call.args).decode() if present(call.args) is not None else "{}"
            out.append(ToolCallDelta(at, call.id or made, call.name, arguments, index))
        elif part.text:
            if part.thought:
                out.append(ThinkingDelta(part.text, choice=index))
            else:
                self._wrote = True
                out.append(TextDelta(part.text, index))

    def _finish(self, candidate: _Candidate, out: list[Event]) -> bool:
        word = candidate.finish_reason or ""
        if word == "FINISH_REASON_UNSPECIFIED":
            return True
        bad = BAD_FINISHES.get(word)
        if bad is not None:
            out.append(Failed(failure=bad, reason=f"finish {word}"))
            return False
        reason = FINISHES.get(word, "content_filter")
        if reason == "content_filter" and not self._wrote:
            out.append(filtered())
            return False
        if reason == "stop" and self._calls.get(candidate.index):
            reason = "tool_calls"
        self._finished.add(candidate.index)
        out.append(Finish(reason, candidate.index))
        return True

    def _take_usage(self, value: Any) -> None:
        """Thoughts are billed as output and stand apart; what tools put in stands apart too."""
        if not isinstance(value, dict):
            return
        thoughts = _whole(value.get("thoughtsTokenCount"))
        prompt, written = value.get("promptTokenCount"), value.get("candidatesTokenCount", 0)
        if not isinstance(prompt, int) or not isinstance(written, int):
            return
        found = usage_of(
            prompt + _whole(value.get("toolUsePromptTokenCount")),
            written + thoughts,
            cached=value.get("cachedContentTokenCount", 0),
            reasoning=thoughts,
        )
        if found is not None:
            self.usage = found


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


class StreamReader(StreamedEvents):
    """Reads the events of `streamGenerateContent?alt=sse`."""

    def __init__(self) -> None:
        super().__init__()
        self._progress = _Progress()

    def take(self, frame: ServerEvent, out: list[Event]) -> bool:
        return not frame.data or self._progress.take(_decoder.decode(frame.data), out)

    def end(self) -> list[Event]:
        progress = self._progress
        if not progress.complete:
            if not progress.begun:
                return [malformed("stream without candidates")]
            return [truncated("stream without finish")]
        return [] if progress.usage is None else [progress.usage]


class WholeReader(WholeBody):
    """Reads one `GenerateContentResponse`; an error may come in a list of one."""

    def read(self, body: bytes) -> list[Event]:
        if body.lstrip()[:1] == b"[":
            error = read_error(body)
            return [failed(0, error) if error.message else malformed("list")]
        out: list[Event] = []
        progress = _Progress()
        if not progress.take(_decoder.decode(body), out):
            return out
        if not progress.begun:
            return [malformed("no candidates")]
        if not progress.complete:
            return [*out, truncated("no finish reason")]
        return out if progress.usage is None else [*out, progress.usage]
