"""A conversation's prefixes, by name: a chain of hashes, one link a message. Pure.

Two requests share a prefix when their chains do. Reasoning is left out (apps may drop it from
older turns), and so are cache marks (apps move them on). Of a text over `_WHOLE` characters its
length, beginning and end stand for it, so that a long document costs no more than a few
microseconds; who confuses two such texts believes in a warm cache that is none, no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from struct import pack, unpack
from typing import Final

from msgspec import Struct

from broker.wire.neutral import Image, Message, Part, Text, Thinking, Tool, ToolCall, ToolResult

_WHOLE: Final = 16_384
_EDGE: Final = 4_096
_KEPT: Final = 8
_IMAGE_SIZE: Final = 3_000
_MOST_SIZE: Final = 2**32 - 1


class Prefixes(Struct, frozen=True):
    """One request's chain.

    Attributes
    ----------
    marks : the name of each prefix: `marks[i]` of the first i + 1 messages
    sizes : characters in it
    goes_on : whether there is a turn of an assistant already
    turns : prefixes after which an assistant's turn follows: what an earlier request may have been
    marked : characters up to the last cache mark, 0 without one
    n_reasoning : blocks of reasoning that only their author's family can read
    """

    marks: tuple[bytes, ...]
    sizes: tuple[int, ...]
    goes_on: bool
    turns: tuple[int, ...]
    marked: int
    n_reasoning: int

    def packed(self, most: int) -> tuple[bytes, bytes]:
        """The first `most` marks, shortened, and their sizes, as they are kept."""
        sizes = self.sizes[:most]
        marks = b"".join([mark[:_KEPT] for mark in self.marks[:most]])
        return marks, pack(f"<{len(sizes)}I", *[min(size, _MOST_SIZE) for size in sizes])

    def shared_share(self, marks: bytes, sizes: bytes) -> float:
        """The share of an earlier request's prompt, kept as `packed`, that this one begins with."""
        known = unpack(f"<{len(sizes) // 4}I", sizes)
        if not known or not known[-1]:
            return 0.0
        n = min(len(known), len(self.marks))
        while n and marks[_KEPT * (n - 1) : _KEPT * n] != self.marks[n - 1][:_KEPT]:
            n -= 1
        return known[n - 1] / known[-1] if n else 0.0

    def goes_on_from(self, marks: bytes) -> bool:
        """Whether the request kept with these marks is the one right before the last turn."""
        last = self.marks[self.turns[-1]][:_KEPT] if self.turns else b""
        return bool(last) and marks[-_KEPT:] == last


def prefixes_of(messages: Sequence[Message], seed: str) -> Prefixes:
    """The chain of `messages`, which begins with `seed` (whose conversation it is)."""
    link = sha256(seed.encode("utf-8", "replace")).digest()
    marks: list[bytes] = []
    sizes: list[int] = []
    turns: list[int] = []
    size = marked = n_reasoning = 0
    before = ""
    goes_on = False
    for message in messages:
        told: list[str] = [message.role]
        for part in message.parts:
            if type(part) is Text:
                told.append(_short("t", part.text))
                size += len(part.text)
            elif isinstance(part, Thinking):
                n_reasoning += part.signature is not None or part.redacted is not None
                continue
            else:
                size += _tell(part, told)
            if getattr(part, "cache", False):
                marked = size
        if message.role == "assistant" != before:
            goes_on = True
            if marks:
                turns.append(len(marks) - 1)
        before = message.role
        link = sha256(link + "\x1f".join(told).encode("utf-8", "replace")).digest()
        marks.append(link[:16])
        sizes.append(size)
    return Prefixes(tuple(marks), tuple(sizes), goes_on, tuple(turns), marked, n_reasoning)


def tools_mark(tools: Sequence[Tool]) -> bytes:
    """A name for the tools on offer, which a seller's prompt cache begins with."""
    if not tools:
        return b""
    made = sha256()
    for tool in tools:
        made.update(f"{tool.name}\x1f{tool.description}\x1f".encode("utf-8", "replace"))
        made.update(b"" if tool.parameters is None else bytes(tool.parameters))
    return made.digest()[:16]


def _short(kind: str, text: str) -> str:
    """A text, of a kind and a length, so that no two lists of them read the same."""
    if len(text) <= _WHOLE:
        return f"{kind}{len(text)}:{text}"
    return f"{kind}{len(text)}:{text[:_EDGE]}\x1e{text[-_EDGE:]}"


def _tell(part: Part, told: list[str]) -> int:
    """Put what identifies a part into `told`; its size."""
    if isinstance(part, ToolCall):
        told += [_short("i", part.id), _short("n", part.name), _short("a", part.arguments)]
        return len(part.name) + len(part.arguments)
    if isinstance(part, ToolResult):
        told.append(_short(f"r{len(part.parts)}.", part.call_id))
        return sum(_tell(p, told) for p in part.parts)
    if isinstance(part, Image):
        told.append(_short("p", part.url or part.data or ""))
        return _IMAGE_SIZE
    if isinstance(part, Text):
        told.append(_short("t", part.text))
        return len(part.text)
    return 0
