"""The one request and the one stream of events between every surface and every dialect.

Surfaces (what apps speak to us) translate into `NeutralRequest` and out of `Event`s; dialects
(what sellers speak) do the reverse. So s surfaces and d dialects need s + d translations, not
s × d, and what one side cannot say is visible as a field the other side must refuse.

A whole answer is the same events as a stream, collected: `collect(events)`. That way there is
one path to test, and a non-streaming app may well be served from a streaming seller.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

from msgspec import Raw, Struct, field

from bidding.outcome import FailureClass
from bidding.request import Sla

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]


class Text(Struct, frozen=True):
    """Plain text. `cache` asks for a prompt-cache breakpoint after it."""

    text: str
    cache: bool = False


class Image(Struct, frozen=True):
    """An image by `url`, or inline as base64 `data` of `media_type`."""

    url: str | None = None
    media_type: str | None = None
    data: str | None = None
    detail: str | None = None
    cache: bool = False


class ToolCall(Struct, frozen=True):
    """The model's call of a tool; `arguments` is JSON text exactly as the model wrote it."""

    id: str
    name: str
    arguments: str


class ToolResult(Struct, frozen=True):
    """What a tool returned for call `call_id`."""

    call_id: str
    parts: tuple[Text | Image, ...]
    is_error: bool = False
    cache: bool = False


class Thinking(Struct, frozen=True):
    """A model's own reasoning, handed back to it; only its author can read `signature`."""

    text: str
    signature: str | None = None
    redacted: str | None = None


Part: TypeAlias = Text | Image | ToolCall | ToolResult | Thinking


class Message(Struct, frozen=True):
    """One turn. Tool results travel in role `tool`, one or more to a message."""

    role: Role
    parts: tuple[Part, ...]
    name: str | None = None


class Tool(Struct, frozen=True, kw_only=True):
    """A function the model may call; `parameters` is its JSON schema as the app wrote it."""

    name: str
    description: str | None = None
    parameters: Raw | None = None
    strict: bool | None = None
    cache: bool = False


class ToolChoice(Struct, frozen=True):
    """Whether tools may, must or must not be called; `name` forces one."""

    mode: Literal["auto", "none", "required", "named"]
    name: str | None = None


class ResponseFormat(Struct, frozen=True, kw_only=True):
    """Free text is no format at all (None); else any JSON object, or one of `schema`."""

    kind: Literal["json_object", "json_schema"]
    name: str = "answer"
    description: str | None = None
    schema: Raw | None = None
    strict: bool | None = None


class Embedding(Struct, frozen=True, kw_only=True):
    """What to make vectors of: texts, or lists of token ids; `dimensions` shortens them.
    `packed`: the app wants them as base64 of little-endian 32-bit floats.
    """

    inputs: tuple[str | tuple[int, ...], ...]
    dimensions: int | None = None
    packed: bool = False


class NeutralRequest(Struct, kw_only=True):
    """One request, whichever surface it came by.

    `model` and `models` are what the app named (the market resolves them), `sla` what it asked
    of the market. `thinking_tokens` is a reasoning budget in tokens, `effort` the same in words.
    `show_thinking` says that the surface passes reasoning on to the app, which makes it output.
    With `embedding` it asks for vectors of that, and has no messages.
    """

    model: str
    messages: tuple[Message, ...]
    models: tuple[str, ...] = ()
    sla: Sla | None = None
    stream: bool = False
    include_usage: bool = False
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool = False
    top_logprobs: int | None = None
    n: int = 1
    seed: int | None = None
    stop: tuple[str, ...] = ()
    effort: Effort | None = None
    thinking_tokens: int | None = None
    show_thinking: bool = False
    verbosity: str | None = None
    user: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    prompt_cache_key: str | None = None
    embedding: Embedding | None = None


class Usage(Struct, frozen=True, kw_only=True):
    """Tokens of one answer. Cached and cache-written tokens are part of `input_tokens`,
    reasoning tokens part of `output_tokens`. `estimated`: we counted, not the seller.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    written_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False


class Started(Struct, frozen=True):
    """The seller has begun; nothing is visible yet. Held back until something is."""

    id: str = ""
    model: str = ""


class TextDelta(Struct, frozen=True):
    """More text of choice `choice`; `logprobs` as the seller sent them."""

    text: str
    choice: int = 0
    logprobs: Raw | None = None


class RefusalDelta(Struct, frozen=True):
    """More of the model's own refusal, which OpenAI keeps apart from the answer."""

    text: str
    choice: int = 0


class ThinkingDelta(Struct, frozen=True):
    """More of the model's reasoning, or its signature."""

    text: str = ""
    signature: str | None = None
    redacted: str | None = None
    choice: int = 0


class ToolCallDelta(Struct, frozen=True):
    """A new tool call (`id` and `name` set) or more of its arguments, at place `index`."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    choice: int = 0


class Vector(Struct, frozen=True):
    """The embedding of input `index`."""

    index: int
    values: tuple[float, ...]


class Finish(Struct, frozen=True):
    """Choice `choice` is complete; `stop_sequence` is the one that ended it, where known."""

    reason: FinishReason
    choice: int = 0
    stop_sequence: str | None = None


class Failed(Struct, frozen=True, kw_only=True):
    """The attempt is over and bad.

    `reason` is a short code fit for records and labels: it never holds the seller's free text.
    `message` is that text, for the app alone, and only where the fault is the app's.
    """

    failure: FailureClass
    reason: str
    message: str = ""
    http_status: int = 0
    retry_after_s: float | None = None


Event: TypeAlias = (
    Started
    | TextDelta
    | RefusalDelta
    | ThinkingDelta
    | ToolCallDelta
    | Vector
    | Finish
    | Usage
    | Failed
)


class Choice(Struct, kw_only=True):
    """One collected answer of a response."""

    text: str = ""
    refusal: str = ""
    thinking: tuple[Thinking, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    finish: FinishReason = "stop"
    stop_sequence: str | None = None
    logprobs: tuple[Raw, ...] = ()


class Answer(Struct, kw_only=True):
    """A whole answer: its choices (or vectors) in order, and its usage if it came."""

    choices: tuple[Choice, ...]
    vectors: tuple[Vector, ...] = ()
    usage: Usage | None = None
    id: str = ""
    model: str = ""


def is_visible(event: Event, request: NeutralRequest) -> bool:
    """Whether the app would see this event as output, so that no other seller may follow it."""
    if isinstance(event, TextDelta):
        return bool(event.text)
    if isinstance(event, RefusalDelta):
        return bool(event.text)
    kind = type(event)
    if kind is ToolCallDelta or kind is Vector:
        return True
    return kind is ThinkingDelta and request.show_thinking


class _Growing:
    __slots__ = ("calls", "finish", "logprobs", "refusal", "stop_sequence", "text", "thinking")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.refusal: list[str] = []
        self.thinking: list[ThinkingDelta] = []
        self.calls: dict[int, list[str]] = {}
        self.logprobs: list[Raw] = []
        self.finish: FinishReason = "stop"
        self.stop_sequence: str | None = None

    def choice(self) -> Choice:
        calls = tuple(
            ToolCall(id=c[0], name=c[1], arguments="".join(c[2:]))
            for _, c in sorted(self.calls.items())
        )
        return Choice(
            text="".join(self.text),
            refusal="".join(self.refusal),
            thinking=_joined_thinking(self.thinking) if self.thinking else (),
            tool_calls=calls,
            finish=self.finish,
            stop_sequence=self.stop_sequence,
            logprobs=tuple(self.logprobs),
        )


def _joined_thinking(deltas: list[ThinkingDelta]) -> tuple[Thinking, ...]:
    """Thinking deltas as blocks: a signature ends a block, a redacted one stands alone."""
    blocks: list[Thinking] = []
    text: list[str] = []
    for delta in deltas:
        text.append(delta.text)
        if delta.signature is not None or delta.redacted is not None:
            blocks.append(Thinking("".join(text), delta.signature, delta.redacted))
            text = []
    if any(text):
        blocks.append(Thinking("".join(text)))
    return tuple(blocks)


def collect(events: Iterable[Event]) -> Answer:
    """The whole answer that `events` spell out. `Failed` is the caller's to have handled."""
    growing: dict[int, _Growing] = {}
    usage: Usage | None = None
    started = Started()
    vectors: list[Vector] = []
    for event in events:
        if isinstance(event, Usage):
            usage = event
            continue
        if isinstance(event, Started):
            started = event
            continue
        if isinstance(event, Failed):
            continue
        if isinstance(event, Vector):
            vectors.append(event)
            continue
        into = growing.get(event.choice)
        if into is None:
            into = growing[event.choice] = _Growing()
        if isinstance(event, TextDelta):
            into.text.append(event.text)
            if event.logprobs is not None:
                into.logprobs.append(event.logprobs)
        elif isinstance(event, ToolCallDelta):
            call = into.calls.setdefault(event.index, ["", ""])
            call[0] = call[0] or event.id or ""
            call[1] = call[1] or event.name or ""
            call.append(event.arguments)
        elif isinstance(event, Finish):
            into.finish = event.reason
            into.stop_sequence = event.stop_sequence
        elif isinstance(event, ThinkingDelta):
            into.thinking.append(event)
        else:
            into.refusal.append(event.text)
    choices = tuple(growing[i].choice() for i in sorted(growing))
    vectors.sort(key=lambda v: v.index)
    return Answer(
        choices=choices, vectors=tuple(vectors), usage=usage, id=started.id, model=started.model
    )
