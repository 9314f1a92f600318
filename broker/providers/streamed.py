"""Reading an answer that comes in frames: taken apart, each frame judged, never raising."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, Protocol, TypeVar

import msgspec

from broker.providers.base import malformed
from broker.providers.event_stream import BadFrame
from broker.providers.sse import LineTooLong, ServerEvent, SseParser
from broker.wire.neutral import Event

FrameT = TypeVar("FrameT")


class Frames(Protocol[FrameT]):
    """Makes frames of bytes. Raises `BadFrame` or `LineTooLong`."""

    def feed(self, piece: bytes) -> list[FrameT]:
        """The frames completed by `piece`."""
        ...


class StreamedBody(ABC, Generic[FrameT]):
    """Takes frames; a subclass says what each means, and what is owed when the body ends.

    `take` may raise what decoders raise; that becomes the event it deserves. After a frame that
    ended the answer, well or badly, nothing more is read.
    """

    def __init__(self, frames: Frames[FrameT]) -> None:
        self._frames = frames
        self._over = False

    @property
    def done(self) -> bool:
        return self._over

    def feed(self, piece: bytes) -> list[Event]:
        out: list[Event] = []
        if self._over:
            return out
        try:
            frames = self._frames.feed(piece)
        except (BadFrame, LineTooLong) as error:
            self._over = True
            long = isinstance(error, LineTooLong)
            return [malformed("line too long" if long else f"frame: {error}")]
        for frame in frames:
            try:
                going = self.take(frame, out)
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
                going = False
                out.append(malformed("event", self.bytes_of(frame)))
            if not going:
                self._over = True
                break
        return out

    def close(self) -> list[Event]:
        if self._over:
            return []
        self._over = True
        return self.end()

    @abstractmethod
    def take(self, frame: FrameT, out: list[Event]) -> bool:
        """Add the frame's events to `out`; False when it ended the answer."""

    @abstractmethod
    def end(self) -> list[Event]:
        """What is left to say where the body ends before the answer did."""

    @abstractmethod
    def bytes_of(self, frame: FrameT) -> bytes:
        """What is hashed of a frame that cannot be read."""


class StreamedEvents(StreamedBody[ServerEvent]):
    """A stream of server-sent events."""

    def __init__(self) -> None:
        super().__init__(SseParser())

    def bytes_of(self, frame: ServerEvent) -> bytes:
        return frame.data
