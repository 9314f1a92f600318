"""ClickHouse's HTTP request, read into a `Call`: SQL, data, parameters, settings.

The interface mixes everything into the URL: names it reserves, ``param_x`` for query
parameters, and any other name is a setting. SQL is in ``query=``, in the body, or both (then
the body is the data or the rest of the SQL). A multipart form carries long queries and
parameters. Answers are never compressed (loopback is faster than any codec); compressed bodies
are read within a bound.
"""

from __future__ import annotations

import asyncio
import base64
import re
import sys
import uuid
import zlib
from typing import Final, Protocol

import lz4.frame
import msgspec
from aiohttp import web

from broker.embedded.errors import (
    BAD_ARGUMENTS,
    NOT_IMPLEMENTED,
    REQUEST_TOO_LARGE,
    QueryFailed,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: Parameters of the interface itself. `compress` is refused where set, the rest need no action.
_RESERVED: Final = frozenset(
    {
        *("buffer_size", "client_protocol_version", "close_session", "compress", "database"),
        *("decompress", "default_format", "enable_http_compression", "password", "query"),
        *("query_id", "quota_key", "role", "session_check", "session_id", "session_timeout"),
        *("stacktrace", "user", "wait_end_of_query"),
    }
)
_SETTING: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OFF_LOOP_BYTES: Final = 1 << 16  # unpacking more than this would hold up other requests
_TRUE: Final = frozenset({"1", "true"})


class Call(msgspec.Struct, frozen=True):
    """One request: `sql` and what follows it in the body, parameters and settings."""

    sql: bytes
    params: dict[str, str]
    settings: dict[str, str]
    database: str
    default_format: str
    query_id: str


def credentials(request: web.Request) -> tuple[str, str]:
    """User and password from ``X-ClickHouse-User``, basic authentication or the URL, in this order.

    They need no body, so a stranger's is never read.
    """
    header = request.headers.get("X-ClickHouse-User")
    if header is not None:
        return header, request.headers.get("X-ClickHouse-Key", "")
    authorization = request.headers.get("Authorization")
    if authorization is not None:
        scheme, _, encoded = authorization.partition(" ")
        try:
            plain = base64.b64decode(encoded, validate=True).decode()
        except ValueError:
            return "", ""
        user, _, password = plain.partition(":")
        return (user, password) if scheme.lower() == "basic" else ("", "")
    return request.query.get("user", "default"), request.query.get("password", "")


async def read_call(request: web.Request, max_body_bytes: int) -> Call:
    """Read a request to ``/``.

    Raises
    ------
    QueryFailed : malformed or unsupported; the text names the parameter or header
    """
    fields = dict(request.query)
    body = b""
    if request.method == "POST":
        if request.content_type == "multipart/form-data":
            fields |= await _form_fields(request)
        else:
            body = await _body(request, max_body_bytes)
    for name in ("compress", "decompress"):
        if fields.get(name, "0") in _TRUE:
            raise QueryFailed(
                NOT_IMPLEMENTED,
                "NOT_IMPLEMENTED",
                f"{name}=1 (ClickHouse's own block compression) is not offered by the embedded "
                "server; use HTTP compression or none.",
            )
    query = fields.get("query", "").encode()
    return Call(
        sql=query + b"\n" + body if query and body else query or body,
        params={name[6:]: value for name, value in fields.items() if name.startswith("param_")},
        settings=_settings(fields),
        database=fields.get("database", request.headers.get("X-ClickHouse-Database", "")),
        default_format=fields.get(
            "default_format", request.headers.get("X-ClickHouse-Format", "TabSeparated")
        ),
        query_id=fields.get("query_id") or str(uuid.uuid4()),
    )


def _settings(fields: dict[str, str]) -> dict[str, str]:
    settings = {}
    for name, value in fields.items():
        if name in _RESERVED or name.startswith("param_"):
            continue
        if not _SETTING.fullmatch(name):
            raise QueryFailed(
                BAD_ARGUMENTS, "BAD_ARGUMENTS", f"{name!r} in the URL is no name of a setting."
            )
        settings[name] = value
    return settings


async def _form_fields(request: web.Request) -> dict[str, str]:
    fields = {}
    form = await request.post()
    for name, value in form.items():
        if not isinstance(value, str):
            raise QueryFailed(
                NOT_IMPLEMENTED,
                "NOT_IMPLEMENTED",
                f"external data ({name!r}) is not offered by the embedded server.",
            )
        fields[name] = value
    return fields


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes | None: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _decompressor(encoding: str) -> _Decompressor:
    decompressor: _Decompressor
    match encoding:
        case "gzip":
            decompressor = zlib.decompressobj(zlib.MAX_WBITS | 16)
        case "deflate":
            decompressor = zlib.decompressobj()
        case "lz4":
            decompressor = lz4.frame.LZ4FrameDecompressor()
        case "zstd":
            decompressor = zstd.ZstdDecompressor()
        case _:
            raise QueryFailed(
                NOT_IMPLEMENTED,
                "NOT_IMPLEMENTED",
                f"Content-Encoding {encoding!r} is not one of gzip, deflate, lz4, zstd.",
            )
    return decompressor


def decompress(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """Undo HTTP `encoding`, which may be several frames one after the other.

    Raises
    ------
    QueryFailed : not `encoding`, cut short, or more than `max_bytes` when unpacked
    """
    parts: list[bytes] = []
    left = max_bytes
    while body:
        decompressor = _decompressor(encoding)
        try:
            part = decompressor.decompress(body, left + 1)
        except (zlib.error, zstd.ZstdError, RuntimeError, EOFError) as error:
            raise _bad_encoding(encoding, str(error)) from error
        left -= len(part)
        if left < 0:
            raise _too_large(max_bytes)
        if not decompressor.eof:
            raise _bad_encoding(encoding, "it is cut short")
        parts.append(part)
        body = decompressor.unused_data or b""
    return b"".join(parts)


async def _body(request: web.Request, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    n_bytes = 0
    while chunk := await request.content.readany():
        n_bytes += len(chunk)
        if n_bytes > max_bytes:
            raise _too_large(max_bytes)
        chunks.append(chunk)
    body = b"".join(chunks)
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return body
    if n_bytes < _OFF_LOOP_BYTES:
        return decompress(body, encoding, max_bytes)
    return await asyncio.to_thread(decompress, body, encoding, max_bytes)


def _bad_encoding(encoding: str, why: str) -> QueryFailed:
    return QueryFailed(
        BAD_ARGUMENTS,
        "BAD_ARGUMENTS",
        f"the body is not the {encoding} its Content-Encoding header says: {why}.",
    )


def _too_large(max_bytes: int) -> QueryFailed:
    return QueryFailed(
        REQUEST_TOO_LARGE,
        "TOO_MANY_BYTES",
        f"the request is larger than {max_bytes} bytes; send it in parts.",
    )
