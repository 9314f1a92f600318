"""Reading an answer that comes in one body: collected, decoded once, never raising."""

from __future__ import annotations

from abc import ABC, abstractmethod

import msgspec

from broker.providers.base import malformed, truncated
from broker.wire.neutral import Event


class WholeBody(ABC):
    """Collects a body; a subclass says in `read` what it means.

    `read` may raise what decoders raise; that becomes the event it deserves.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._over = False

    @property
    def done(self) -> bool:
        return self._over

    def feed(self, piece: bytes) -> list[Event]:
        self._pieces.append(piece)
        return []

    def close(self) -> list[Event]:
        self._over = True
        body = b"".join(self._pieces).removeprefix(b"\xef\xbb\xbf")
        self._pieces = []
        try:
            return self.read(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            kind = "empty body" if not body.strip() else "body"
            cut = "truncated" in str(error)
            return [truncated("body cut short") if cut else malformed(kind, body)]

    @abstractmethod
    def read(self, body: bytes) -> list[Event]:
        """The events of a whole body."""
