"""OpenAI chat completions, and the many sellers who speak it nearly: `OPENAI`.

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
from broker.providers.base import (
    Reader,
    Seat,
    WireCall,
    filtered,
    loose_json,
    malformed,
    truncated,
    usage_of,
)
from broker.providers.calling import wire_call
from broker.providers.failures import error_from, failed, read_error
from broker.providers.model_rules import led_by_user, rules_for, sampling
from broker.providers.quirks import Quirks, quirks_of
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
    RefusalDelta,
    Started,
    Text,
    TextDelta,
    ThinkingDelta,
    ToolCall,
    ToolCallDelta,
    ToolResult,
    Usage,
)

_encode = msgspec.json.Encoder().encode

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


def build_body(request: NeutralRequest, seat: Seat, quirks: Quirks, *, stream: bool) -> bytes:
    """The JSON body that asks for `request`."""
    rules = rules_for(seat)
    messages = request.messages if rules.system != "user" else led_by_user(request.messages)
    body: dict[str, Any] = {
        "model": seat.offer.wire_model,
        "messages": _messages(messages, rules.system),
    }
    if stream:
        body["stream"] = True
        if quirks.stream_usage:
            body["stream_options"] = {"include_usage": True}
    if request.max_output_tokens is not None:
        body[rules.max_tokens or quirks.max_tokens] = request.max_output_tokens
    temperature, top_p = sampling(request, rules, most=quirks.max_temperature)
    if temperature is not None:
        body["temperature"] = temperature
    if top_p is not None:
        body["top_p"] = top_p
    for name in _PLAIN:
        value = getattr(request, name)
        if value is not None:
            body[name] = value
    if request.n != 1:
        body["n"] = request.n
    if request.stop:
        body["stop"] = list(request.stop)
    if request.logprobs:
        body["logprobs"] = True
    if request.metadata:
        body["metadata"] = request.metadata
    if request.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": _function(t.name, t.description, t.parameters, t.strict),
            }
            for t in request.tools
        ]
        if request.parallel_tool_calls is not None:
            body["parallel_tool_calls"] = request.parallel_tool_calls
        choice = request.tool_choice
        if choice is not None:
            body["tool_choice"] = (
                {"type": "function", "function": {"name": choice.name}}
                if choice.mode == "named"
                else choice.mode
            )
    if request.response_format is not None:
        body["response_format"] = _response_format(request)
    if request.effort is not None:
        if quirks.effort == "reasoning_effort":
            body["reasoning_effort"] = request.effort
        elif quirks.effort == "reasoning":
            body["reasoning"] = {"effort": request.effort}
    for name in quirks.drop:
        body.pop(name, None)
    for ours, theirs in quirks.rename.items():
        if ours in body:
            body[theirs] = body.pop(ours)
    return _encode(body)


_PLAIN = (
    "top_k",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "top_logprobs",
    "seed",
    "verbosity",
    "user",
    "prompt_cache_key",
)


def _function(
    name: str, description: str | None, parameters: Raw | None, strict: bool | None
) -> dict[str, Any]:
    function: dict[str, Any] = {"name": name}
    if description is not None:
        function["description"] = description
    if parameters is not None:
        function["parameters"] = parameters
    if strict is not None:
        function["strict"] = strict
    return function


def _response_format(request: NeutralRequest) -> dict[str, Any]:
    fmt = request.response_format
    if fmt is None or fmt.kind == "json_object":
        return {"type": "json_object"}
    schema: dict[str, Any] = {"name": fmt.name}
    if fmt.schema is not None:
        schema["schema"] = fmt.schema
    if fmt.description is not None:
        schema["description"] = fmt.description
    if fmt.strict is not None:
        schema["strict"] = fmt.strict
    return {"type": "json_schema", "json_schema": schema}


def _messages(messages: tuple[Message, ...], system: str) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for message in messages:
        parts = message.parts
        role = system if message.role == "system" else message.role
        if len(parts) == 1 and type(parts[0]) is Text and message.role != "tool":
            plain: dict[str, Any] = {"role": role, "content": parts[0].text}
            if message.name is not None:
                plain["name"] = message.name
            out.append(plain)
        elif message.role == "tool":
            _tool_results(parts, out)
        elif message.role == "assistant":
            out.append(_assistant(parts))
        else:
            content = [_part(p) for p in parts if isinstance(p, Text | Image)]
            plain = {"role": role, "content": content or ""}
            if message.name is not None:
                plain["name"] = message.name
            out.append(plain)
    return out


def _assistant(parts: tuple[Part, ...]) -> dict[str, Any]:
    """An assistant's turn; its thinking is dropped, which this format has no word for."""
    text = "".join(p.text for p in parts if isinstance(p, Text))
    calls = [
        {"id": p.id, "type": "function", "function": {"name": p.name, "arguments": p.arguments}}
        for p in parts
        if isinstance(p, ToolCall)
    ]
    message: dict[str, Any] = {"role": "assistant", "content": text or (None if calls else "")}
    if calls:
        message["tool_calls"] = calls
    return message


def _tool_results(parts: tuple[Part, ...], out: list[dict[str, Any]]) -> None:
    """One `tool` message a result. Images, which may not stand there, follow as the user's."""
    images: list[dict[str, Any]] = []
    for part in parts:
        if not isinstance(part, ToolResult):
            continue
        text = "\n".join(p.text for p in part.parts if isinstance(p, Text))
        out.append({"role": "tool", "tool_call_id": part.call_id, "content": text})
        images.extend(_part(p) for p in part.parts if isinstance(p, Image))
    if images:
        out.append({"role": "user", "content": images})


def _part(part: Text | Image) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    image: dict[str, Any] = {"url": part.url or f"data:{part.media_type};base64,{part.data}"}
    if part.detail is not None:
        image["detail"] = part.detail
    return {"type": "image_url", "image_url": image}


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


class StreamReader:
    """Reads `chat.completion.chunk`s."""

    def __init__(self, quirks: Quirks | None = None) -> None:
        self._sse = SseParser()
        self._progress = _Progress(quirks)
        self._quirks = quirks
        self._over = False

    @property
    def done(self) -> bool:
        return self._over

    def feed(self, piece: bytes) -> list[Event]:
        events: list[Event] = []
        if self._over:
            return events
        try:
            frames = self._sse.feed(piece)
        except LineTooLong:
            self._over = True
            return [malformed("line too long")]
        for frame in frames:
            data = frame.data
            if data == b"[DONE]":
                self._end(events)
                break
            if not data:
                continue
            try:
                chunk = _decoder.decode(data)
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
                error = read_error(data)
                bad = (
                    failed(0, error, quirks=self._quirks)
                    if frame.event == b"error"
                    else malformed("chunk", data)
                )
                events.append(bad)
                self._over = True
                break
            if frame.event == b"error" and present(chunk.error) is None:
                events.append(failed(0, read_error(data), quirks=self._quirks))
                self._over = True
                break
            try:
                going = self._progress.take(chunk, events)
            except UnicodeDecodeError:
                going = False
                events.append(malformed("chunk", data))
            if not going:
                self._over = True
                break
        return events

    def close(self) -> list[Event]:
        events: list[Event] = []
        if not self._over:
            self._end(events)
        return events

    def _end(self, events: list[Event]) -> None:
        self._over = True
        progress = self._progress
        if not progress.complete:
            what = "stream without finish" if progress.begun else "stream without choices"
            events.append(truncated(what) if progress.begun else malformed(what))
        elif progress.usage is not None:
            events.append(progress.usage)


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


class OpenAIDialect:
    """OpenAI-compatible sellers; their deviations are data in `quirks`."""

    name = "openai"

    def build(self, request: NeutralRequest, seat: Seat, *, stream: bool) -> WireCall:
        quirks = quirks_of(seat.provider)
        body = build_body(request, seat, quirks, stream=stream)
        return wire_call(seat, quirks, quirks.path, body, stream=stream)

    def reader(self, *, stream: bool, seat: Seat | None = None) -> Reader:
        quirks = quirks_of(seat.provider) if seat is not None else None
        return StreamReader(quirks) if stream else WholeReader(quirks)

    def refusal(
        self, status: int, body: bytes, retry_after_s: float | None, seat: Seat | None = None
    ) -> Failed:
        quirks = quirks_of(seat.provider) if seat is not None else None
        return failed(status, read_error(body), retry_after_s=retry_after_s, quirks=quirks)


OPENAI = OpenAIDialect()
