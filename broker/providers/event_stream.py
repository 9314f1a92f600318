"""`application/vnd.amazon.eventstream`, incrementally: bytes in as they come, whole messages out.

A message is a prelude (total length, length of the headers, CRC-32 of both), headers, a payload,
and a CRC-32 of all before it; numbers are big-endian. Both sums are checked, and lengths bounded
before anything is kept, so that noise is found out at once rather than waited for.

References
----------
https://docs.aws.amazon.com/AmazonS3/latest/userguide/RESTSelectObjectAppendix.html (framing),
smithy.io, "Amazon Event Stream Specification" (header types)
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

MAX_MESSAGE_BYTES = 16 * 1024 * 1024 + 16
"""What the specification allows: 16 MiB of payload; answers of a model stay far below."""
MAX_HEADER_BYTES = 128 * 1024
_PRELUDE = struct.Struct(">II")
_CRC = struct.Struct(">I")
_HEAD = 12
_FIXED = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
_TEXT = 7
_BYTES = 6


class BadFrame(Exception):
    """Bytes that are no message: a checksum that does not hold, or an absurd length."""


class EventMessage(NamedTuple):
    """A message: its text headers, and its payload."""

    headers: dict[str, str]
    payload: bytes


class EventStreamParser:
    """Incremental parser. `feed` may be given any pieces, down to single bytes."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = b""

    @property
    def pending(self) -> bool:
        """Whether a message has begun that is not complete."""
        return bool(self._buffer)

    def feed(self, piece: bytes) -> list[EventMessage]:
        """The messages completed by `piece`. Raises `BadFrame`."""
        buffer = self._buffer + piece if self._buffer else piece
        out: list[EventMessage] = []
        at = 0
        while len(buffer) - at >= _HEAD:
            total, of_headers = _PRELUDE.unpack_from(buffer, at)
            if zlib.crc32(buffer[at : at + 8]) != _CRC.unpack_from(buffer, at + 8)[0]:
                raise BadFrame("prelude checksum")
            if not _HEAD + 4 <= total <= MAX_MESSAGE_BYTES or of_headers > MAX_HEADER_BYTES:
                raise BadFrame("length")
            if of_headers > total - _HEAD - 4:
                raise BadFrame("length of headers")
            if len(buffer) - at < total:
                break
            end = at + total
            if zlib.crc32(buffer[at : end - 4]) != _CRC.unpack_from(buffer, end - 4)[0]:
                raise BadFrame("message checksum")
            split = at + _HEAD + of_headers
            headers = _headers(buffer[at + _HEAD : split])
            out.append(EventMessage(headers, buffer[split : end - 4]))
            at = end
        self._buffer = buffer[at:]
        return out


def _headers(raw: bytes) -> dict[str, str]:
    """The headers of text type; others are skipped by their length."""
    found: dict[str, str] = {}
    at = 0
    try:
        while at < len(raw):
            n_name = raw[at]
            name = raw[at + 1 : at + 1 + n_name].decode()
            kind = raw[at + 1 + n_name]
            at += 2 + n_name
            if kind in (_TEXT, _BYTES):
                (size,) = struct.unpack_from(">H", raw, at)
                if at + 2 + size > len(raw):
                    raise BadFrame("header value")
                if kind == _TEXT:
                    found[name] = raw[at + 2 : at + 2 + size].decode()
                at += 2 + size
            else:
                at += _FIXED[kind]
    except (IndexError, KeyError, struct.error, UnicodeDecodeError) as error:
        raise BadFrame("headers") from error
    return found


def encode_message(headers: dict[str, str], payload: bytes) -> bytes:
    """One message, as a seller sends it.

    Examples
    --------
    >>> EventStreamParser().feed(encode_message({":event-type": "x"}, b"{}"))
    [EventMessage(headers={':event-type': 'x'}, payload=b'{}')]
    """
    parts = []
    for name, value in headers.items():
        raw_name, raw = name.encode(), value.encode()
        parts.append(bytes([len(raw_name)]) + raw_name + struct.pack(">BH", _TEXT, len(raw)) + raw)
    head = b"".join(parts)
    prelude = _PRELUDE.pack(_HEAD + len(head) + len(payload) + 4, len(head))
    begun = prelude + _CRC.pack(zlib.crc32(prelude)) + head + payload
    return begun + _CRC.pack(zlib.crc32(begun))
