"""A buyer's request and a seller's reply, free of any wire format."""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

from msgspec import Struct

from broker.paper.faults import UsageLie


class ToolSpec(Struct, frozen=True):
    """A tool the buyer offers, with the JSON schema of its arguments."""

    name: str
    parameters: dict[str, Any]


class Turn(Struct, frozen=True):
    """One message: `text` is all its text parts, `tool_result` what a tool gave back."""

    role: str
    text: str
    tool_result: bool = False


class Ask(Struct, frozen=True, kw_only=True):
    """A request. `tool_choice` is auto, none, required or the name of a tool."""

    model: str
    turns: list[Turn]
    max_tokens: int | None = None
    stream: bool = False
    include_usage: bool = False
    tools: list[ToolSpec] = []
    tool_choice: str = "auto"
    json_mode: bool = False
    json_schema: dict[str, Any] | None = None
    n: int = 1
    stop: list[str] = []
    n_images: int = 0
    cache_marked: bool = False


class ToolCall(NamedTuple):
    """A call of a tool; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


class Choice(NamedTuple):
    """One answer. `finish` is stop, length, stop_sequence or tool_calls."""

    text: str
    finish: str
    tool_call: ToolCall | None = None
    stopped_by: str | None = None


class Reply(Struct, frozen=True, kw_only=True):
    """What a seller answers, and the usage it bills (`lie`: how it misreports it)."""

    id: str
    model: str
    created: int
    choices: list[Choice]
    input_tokens: int
    output_tokens: int
    reasoning_tokens: int = 0
    cached_tokens: int = 0
    written_tokens: int = 0
    lie: UsageLie | None = None


class When(enum.Enum):
    """Which wait comes before a frame of a stream."""

    PRELUDE = enum.auto()
    CONTENT = enum.auto()
    EPILOGUE = enum.auto()
    FOREVER = enum.auto()
    PAUSE = enum.auto()


class Frame(NamedTuple):
    """Bytes of a stream; CONTENT waits for `n_tokens` tokens, PAUSE for `pause_s`."""

    when: When
    data: bytes
    n_tokens: int = 0
    pause_s: float = 0.0


def pieces(text: str, most: int) -> list[str]:
    """`text` cut into at most `most` pieces of whole tokens."""
    from_chars = 4 * max(1, -(-len(text) // (4 * most)))
    return [text[i : i + from_chars] for i in range(0, len(text), from_chars)] or [""]


def misreport(usage: dict[str, Any], lie: UsageLie | None) -> dict[str, Any] | None:
    """`usage` as a lying seller states it; None leaves it out."""
    if lie is None:
        return usage
    if lie == "missing":
        return None
    told: dict[str, Any] = {}
    for name, value in usage.items():
        if isinstance(value, dict):
            told[name] = misreport(value, lie)
        elif isinstance(value, int):
            told[name] = _LIES[lie](value)
    return told


_LIES: dict[str, Any] = {
    "zero": lambda value: 0,
    "negative": lambda value: -value - 1,
    "tenfold": lambda value: 10 * value,
    "strings": str,
}
