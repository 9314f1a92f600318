"""Chat completions as apps read them: whole answers, streams of chunks."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from broker.wire.neutral import (
    Answer,
    Choice,
    Event,
    Finish,
    NeutralRequest,
    RefusalDelta,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    Usage,
)
from broker.wire.openai_shared import error_object
from broker.wire.surface import ErrorBody, ReplyMeta

_encode = msgspec.json.Encoder().encode


class _CachedDetails(Struct):
    cached_tokens: int


class _ReasoningDetails(Struct):
    reasoning_tokens: int


class _Usage(Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: _CachedDetails
    completion_tokens_details: _ReasoningDetails


class _FunctionOut(Struct):
    name: str
    arguments: str


class _CallOut(Struct):
    id: str
    type: str
    function: _FunctionOut


class _MessageOut(Struct):
    role: str
    content: str | None
    refusal: str | None
    tool_calls: list[_CallOut] | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET


class _ChoiceOut(Struct):
    index: int
    message: _MessageOut
    logprobs: Raw | None
    finish_reason: str


class _Completion(Struct):
    id: str
    object: str
    created: int
    model: str
    choices: list[_ChoiceOut]
    usage: _Usage | None
    system_fingerprint: None
    service_tier: None
    broker: Raw | UnsetType


def _usage_out(usage: Usage) -> _Usage:
    return _Usage(
        usage.input_tokens,
        usage.output_tokens,
        usage.input_tokens + usage.output_tokens,
        _CachedDetails(usage.cached_tokens),
        _ReasoningDetails(usage.reasoning_tokens),
    )


def _choice_out(index: int, choice: Choice) -> _ChoiceOut:
    calls = [
        _CallOut(c.id, "function", _FunctionOut(c.name, c.arguments)) for c in choice.tool_calls
    ]
    reasoning = "".join(t.text for t in choice.thinking)
    message = _MessageOut(
        "assistant",
        None if not choice.text and (calls or choice.refusal) else choice.text,
        choice.refusal or None,
        calls or UNSET,
        reasoning or UNSET,
    )
    return _ChoiceOut(index, message, joined_logprobs(choice.logprobs), choice.finish)


def joined_logprobs(pieces: tuple[Raw, ...]) -> Raw | None:
    """One `logprobs` object from those of a stream's chunks: their token lists, in a row."""
    if not pieces:
        return None
    if len(pieces) == 1:
        return pieces[0]
    content: list[Raw] = []
    for piece in pieces:
        content.extend(_logprobs_decoder.decode(piece).content or ())
    return Raw(_encode({"content": content, "refusal": None}))


class _Logprobs(Struct):
    content: list[Raw] | None = None


_logprobs_decoder = msgspec.json.Decoder(_Logprobs)


class ChatStream:
    """A chat completion in `chat.completion.chunk`s. Text, nearly all of a stream, takes a
    short cut: only the text itself is encoded anew.
    """

    def __init__(self, request: NeutralRequest, meta: ReplyMeta) -> None:
        self._include_usage = request.include_usage
        self._usage: Usage | None = None
        head = _encode(
            {
                "id": meta.id,
                "object": "chat.completion.chunk",
                "created": meta.created_s,
                "model": meta.model,
                "system_fingerprint": None,
            }
        )
        self._head = b"data: " + head[:-1] + b',"choices":['
        self._tail = b'],"usage":null}\n\n' if request.include_usage else b"]}\n\n"
        self._text_head = self._head + b'{"index":0,"delta":{"content":'
        self._text_tail = b'},"logprobs":null,"finish_reason":null}' + self._tail
        self._n = request.n

    def start(self) -> bytes:
        delta: dict[str, object] = {"role": "assistant", "content": "", "refusal": None}
        return b"".join(self._chunk(i, delta) for i in range(self._n))

    def event(self, event: Event) -> bytes:
        if type(event) is TextDelta:
            if event.choice == 0 and event.logprobs is None:
                return self._text_head + _encode(event.text) + self._text_tail
            return self._chunk(event.choice, {"content": event.text}, logprobs=event.logprobs)
        if isinstance(event, ToolCallDelta):
            call: dict[str, object] = {"index": event.index}
            function: dict[str, object] = {"arguments": event.arguments}
            if event.id is not None:
                call |= {"id": event.id, "type": "function"}
                function["name"] = event.name or ""
            call["function"] = function
            return self._chunk(event.choice, {"tool_calls": [call]})
        if isinstance(event, Finish):
            return self._chunk(event.choice, {}, finish=event.reason)
        if isinstance(event, RefusalDelta):
            return self._chunk(event.choice, {"refusal": event.text})
        if isinstance(event, ThinkingDelta):
            text = event.text
            return self._chunk(event.choice, {"reasoning_content": text}) if text else b""
        if isinstance(event, Usage):
            self._usage = event
        return b""

    def end(self) -> bytes:
        if not self._include_usage:
            return b"data: [DONE]\n\n"
        usage = _encode(_usage_out(self._usage or Usage()))
        return self._head + b'],"usage":' + usage + b"}\n\ndata: [DONE]\n\n"

    def error(self, error: ErrorBody) -> bytes:
        return b"data: " + _encode(error_object(error)) + b"\n\n"

    def _chunk(
        self,
        index: int,
        delta: dict[str, object],
        *,
        finish: str | None = None,
        logprobs: Raw | None = None,
    ) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return self._head + _encode(choice) + self._tail


def completion(answer: Answer, meta: ReplyMeta) -> bytes:
    """The body of a whole answer."""
    return _encode(
        _Completion(
            meta.id,
            "chat.completion",
            meta.created_s,
            meta.model,
            [_choice_out(i, c) for i, c in enumerate(answer.choices)],
            _usage_out(answer.usage) if answer.usage is not None else None,
            None,
            None,
            UNSET if meta.broker is None else meta.broker,
        )
    )
