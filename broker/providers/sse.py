"""Server-sent events, incrementally: bytes in as they come, whole events out.

Lines end in LF, CRLF or CR alone; a CR that ends a piece may be half of a CRLF, so its LF is
swallowed if it comes. One BOM at the start and comments are dropped; several `data` lines are
joined by LF. A line longer than the cap ends the stream, since a seller without line breaks
would otherwise fill our memory (WHATWG HTML, section 9.2.6).
"""

from __future__ import annotations

from typing import NamedTuple

MAX_LINE_BYTES = 1024 * 1024
"""Far above any chunk of any dialect; images do not travel in streams we accept."""


class LineTooLong(Exception):
    """A line passed the cap without ending; the attempt is malformed."""


class ServerEvent(NamedTuple):
    """An event's name (empty if none was given) and its data, undecoded."""

    event: bytes
    data: bytes


class SseParser:
    """Incremental parser. `feed` may be given any pieces, down to single bytes.

    Examples
    --------
    >>> SseParser().feed(b"event: ping\\r\\ndata: 1\\r\\ndata: 2\\r\\n\\r\\n: note\\n")
    [ServerEvent(event=b'ping', data=b'1\\n2')]
    """

    __slots__ = ("_buffer", "_data", "_event", "_max_line", "_skip_lf", "_started")

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._buffer = b""
        self._data: list[bytes] = []
        self._event = b""
        self._skip_lf = False
        self._started = False
        self._max_line = max_line_bytes

    def feed(self, piece: bytes) -> list[ServerEvent]:
        """The events completed by `piece`. Raises `LineTooLong`."""
        if self._skip_lf and piece:
            self._skip_lf = False
            if piece[0] == 0x0A:
                piece = piece[1:]
        buffer = self._buffer + piece if self._buffer else piece
        if not self._started:
            if len(buffer) < 3 and b"\xef\xbb\xbf".startswith(buffer):
                self._buffer = buffer
                return []
            self._started = True
            buffer = buffer.removeprefix(b"\xef\xbb\xbf")
        if b"\r" in buffer:
            self._skip_lf = buffer.endswith(b"\r")
            buffer = buffer.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = buffer.split(b"\n")
        self._buffer = lines.pop()
        if len(self._buffer) > self._max_line:
            raise LineTooLong(f"a line passed {self._max_line} bytes")
        events: list[ServerEvent] = []
        for line in lines:
            if not line:
                if self._data:
                    events.append(ServerEvent(self._event, b"\n".join(self._data)))
                    self._data = []
                self._event = b""
            elif line[0] != 0x3A:
                self._field(line)
        return events

    def _field(self, line: bytes) -> None:
        if len(line) > self._max_line:
            raise LineTooLong(f"a line passed {self._max_line} bytes")
        name, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if name == b"data":
            self._data.append(value)
            if len(self._data) > 4096 or sum(map(len, self._data)) > self._max_line:
                raise LineTooLong(f"an event's data passed {self._max_line} bytes")
        elif name == b"event":
            self._event = value

    @property
    def pending(self) -> bool:
        """Whether bytes are left that no blank line has completed into an event."""
        return bool(self._buffer or self._data)
