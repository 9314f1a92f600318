"""Answers gone wrong: what a faulty seller sends instead of a good body or a good stream.

Pure: bytes and frames in, bytes and frames out, so that each fault can be shown without a
socket. A fault of one form has a counterpart in the other where that makes sense (a stall of
an answer that is not streamed is a body that stops half-way).
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable, Iterator

from msgspec import Struct

from broker.paper.ask import Frame, When
from broker.paper.faults import Fault, FaultSpec

MIB = 1 << 20
HTML = b"<!doctype html><html><head><title>502</title></head><body>Bad gateway</body></html>"
_BOM_NUL_BAD_UTF8 = b"\xef\xbb\xbf\x00\xff\xfe"


class Shown(Struct, frozen=True, kw_only=True):
    """How an answer leaves: headers' part and frames; the connection may be cut at the end."""

    frames: Iterable[Frame]
    content_type: str
    encoding: str | None = None
    cut: bool = False


ErrorBody = Callable[[int, str], bytes]
ErrorFrame = Callable[[str], bytes]


def spoil_body(spec: FaultSpec, body: bytes, error_body: ErrorBody) -> Shown:
    """A whole answer as spoilt by `spec`."""
    plain = "application/json"
    match spec.kind:
        case Fault.HANG_AFTER_HEADERS:
            return Shown(frames=[_forever()], content_type=plain)
        case Fault.STALL:
            half = Frame(When.EPILOGUE, body[: len(body) // 2])
            return Shown(frames=[half, _forever()], content_type=plain)
        case Fault.DRIP:
            return Shown(frames=_dripped(body, spec.every_s), content_type=plain)
        case Fault.KEEPALIVE:
            return Shown(frames=_repeated(b"\n", spec.every_s), content_type=plain)
        case Fault.IN_BAND_ERROR | Fault.ERROR_BODY:
            return Shown(frames=[_whole(error_body(500, "Internal error"))], content_type=plain)
        case Fault.EMPTY_CHOICES:
            return Shown(frames=[_whole(_emptied(body))], content_type=plain)
        case Fault.TRUNCATED_JSON | Fault.NO_FINISH:
            return Shown(frames=[_whole(body[: len(body) // 2])], content_type=plain, cut=True)
        case Fault.HTML:
            return Shown(frames=[_whole(HTML)], content_type="text/html; charset=utf-8")
        case Fault.BAD_BYTES:
            return Shown(frames=[_whole(_BOM_NUL_BAD_UTF8 + body)], content_type=plain)
        case Fault.GIANT_LINE:
            return Shown(frames=_giant(b'{"id":"', spec.factor), content_type=plain)
        case Fault.GZIP_BOMB:
            return Shown(frames=[_bomb(spec.factor)], content_type=plain, encoding="gzip")
    return Shown(frames=[_whole(body)], content_type=plain)


def spoil_stream(
    spec: FaultSpec,
    frames: list[Frame],
    error_body: ErrorBody,
    error_frame: ErrorFrame,
    events: str = "text/event-stream",
) -> Shown:
    """A stream of content type `events` as spoilt by `spec`."""
    prelude = [f for f in frames if f.when is When.PRELUDE]
    content = [f for f in frames if f.when is When.CONTENT]
    epilogue = [f for f in frames if f.when is When.EPILOGUE]
    match spec.kind:
        case Fault.HANG_AFTER_HEADERS:
            return Shown(frames=[_forever()], content_type=events)
        case Fault.STALL:
            kept = [*prelude, *content[: spec.after_chunks], _forever()]
            return Shown(frames=kept, content_type=events)
        case Fault.DRIP:
            rest = b"".join(f.data for f in (content + epilogue)[spec.after_chunks :])
            first = [*prelude, *content[: spec.after_chunks]]
            return Shown(frames=_then(first, _dripped(rest, spec.every_s)), content_type=events)
        case Fault.KEEPALIVE:
            comments = _repeated(b": keep-alive\n\n", spec.every_s)
            return Shown(frames=_then(prelude, comments), content_type=events)
        case Fault.IN_BAND_ERROR:
            failed = Frame(When.EPILOGUE, error_frame("The server had an error"))
            return Shown(frames=[*prelude, failed], content_type=events)
        case Fault.ERROR_BODY:
            body = _whole(error_body(500, "Internal error"))
            return Shown(frames=[body], content_type="application/json")
        case Fault.EMPTY_CHOICES:
            empty = [f._replace(data=_emptied(f.data)) for f in prelude]
            return Shown(frames=[*empty, *map(_without, epilogue[-1:])], content_type=events)
        case Fault.TRUNCATED_JSON:
            data = content[len(content) // 2].data
            torn = Frame(When.CONTENT, data[: len(data) // 2], 1)
            kept = [*prelude, *content[: len(content) // 2], torn]
            return Shown(frames=kept, content_type=events, cut=True)
        case Fault.NO_FINISH:
            return Shown(frames=[*prelude, *content], content_type=events)
        case Fault.HTML:
            return Shown(frames=[_whole(HTML)], content_type="text/html; charset=utf-8")
        case Fault.BAD_BYTES:
            spoilt = [f._replace(data=f.data[:-8] + _BOM_NUL_BAD_UTF8 + b"\n\n") for f in content]
            return Shown(frames=[*prelude, *spoilt, *epilogue], content_type=events)
        case Fault.GIANT_LINE:
            return Shown(frames=_giant(b"data: ", spec.factor), content_type=events)
        case Fault.GZIP_BOMB:
            return Shown(frames=[_bomb(spec.factor)], content_type=events, encoding="gzip")
        case Fault.DUPLICATE_CHUNKS:
            twice = [f for frame in content for f in (frame, frame._replace(n_tokens=0))]
            return Shown(frames=[*prelude, *twice, *epilogue], content_type=events)
        case Fault.REORDER_CHUNKS:
            pairs = [content[i : i + 2][::-1] for i in range(0, len(content), 2)]
            mixed = [frame for pair in pairs for frame in pair]
            return Shown(frames=[*prelude, *mixed, *epilogue], content_type=events)
        case Fault.TWO_FINISHES:
            return Shown(
                frames=[*prelude, *content, *epilogue[:-1], *epilogue], content_type=events
            )
    return Shown(frames=frames, content_type=events)


def _whole(data: bytes) -> Frame:
    return Frame(When.EPILOGUE, data)


def _forever() -> Frame:
    return Frame(When.FOREVER, b"")


def _then(first: Iterable[Frame], rest: Iterable[Frame]) -> Iterator[Frame]:
    yield from first
    yield from rest


def _dripped(data: bytes, every_s: float) -> Iterator[Frame]:
    for i in range(len(data)):
        yield Frame(When.PAUSE, data[i : i + 1], pause_s=every_s)


def _repeated(data: bytes, every_s: float) -> Iterator[Frame]:
    while True:
        yield Frame(When.PAUSE, data, pause_s=every_s)


def _giant(head: bytes, mebibytes: float) -> Iterator[Frame]:
    yield Frame(When.EPILOGUE, head)
    block = b"x" * (MIB // 4)
    for _ in range(int(4 * mebibytes)):
        yield Frame(When.EPILOGUE, block)


def _bomb(mebibytes: float) -> Frame:
    return _whole(gzip.compress(b"\0" * int(mebibytes * MIB), compresslevel=9))


def _without(frame: Frame) -> Frame:
    return frame._replace(data=_emptied(frame.data))


def _emptied(data: bytes) -> bytes:
    """`data` with its list of choices, or of content blocks, empty (its JSON stays whole)."""
    for name in (b'"choices":[', b'"candidates":[', b'"content":['):
        start = data.find(name)
        if start < 0:
            continue
        depth = 0
        for i in range(start + len(name) - 1, len(data)):
            depth += (data[i] == ord("[")) - (data[i] == ord("]"))
            if depth == 0:
                return data[: start + len(name)] + data[i:]
    return data
