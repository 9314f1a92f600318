"""A ClickHouse answer as HTTP: status, headers, body."""

from __future__ import annotations

import json
from typing import Final

from aiohttp import web

from broker.embedded.engine import Answer
from broker.embedded.errors import QueryFailed

_CHUNK_BYTES: Final = 1 << 20

#: HTTP status by ClickHouse error code, as its own server maps them; anything else is a 500.
_STATUS: Final = {
    **dict.fromkeys((194,), 401),  # REQUIRED_PASSWORD
    **dict.fromkeys((192, 193, 291, 497, 516), 403),  # user, password, database, access
    **dict.fromkeys((16, 46, 47, 60, 73, 81), 404),  # unknown column ... database
    **dict.fromkeys((159,), 408),  # TIMEOUT_EXCEEDED
    **dict.fromkeys(
        (6, 7, 26, 27, 36, 38, 41, 42, 43, 53, 62, 72, 115, 117, 164, 306, 456, 457), 400
    ),
    **dict.fromkeys((307, 396), 413),  # TOO_MANY_BYTES, TOO_MANY_ROWS_OR_BYTES
    **dict.fromkeys((48,), 501),  # NOT_IMPLEMENTED
    **dict.fromkeys((202,), 503),  # TOO_MANY_SIMULTANEOUS_QUERIES
}

_TEXT: Final = "text/tab-separated-values; charset=UTF-8"
_CONTENT_TYPE: Final = (
    ("JSONEachRow", "application/x-ndjson; charset=UTF-8"),
    ("JSONCompactEachRow", "application/x-ndjson; charset=UTF-8"),
    ("JSON", "application/json; charset=UTF-8"),
    ("CSV", "text/csv; charset=UTF-8; header=absent"),
    ("TSV", _TEXT),
    ("TabSeparated", _TEXT),
    ("Pretty", "text/plain; charset=UTF-8"),
    ("Vertical", "text/plain; charset=UTF-8"),
    ("XML", "application/xml; charset=UTF-8"),
    ("Arrow", "application/vnd.apache.arrow.file"),
)


async def send_answer(
    request: web.Request, answer: Answer, *, query_id: str, timezone: str
) -> web.StreamResponse:
    """Send a whole answer; its size is known, so errors can no longer come after the status."""
    response = web.StreamResponse(
        headers={
            "Content-Type": _content_type(answer.format),
            "X-ClickHouse-Query-Id": query_id,
            "X-ClickHouse-Format": answer.format,
            "X-ClickHouse-Timezone": timezone,
            "X-ClickHouse-Server-Display-Name": "broker-embedded",
            "X-ClickHouse-Summary": _summary(answer),
        }
    )
    response.content_length = len(answer.data)
    await response.prepare(request)
    view = memoryview(answer.data)
    for start in range(0, len(view), _CHUNK_BYTES):
        await response.write(view[start : start + _CHUNK_BYTES])
    await response.write_eof()
    return response


def error_answer(error: QueryFailed, *, query_id: str, version: str) -> web.Response:
    """An error as ClickHouse sends it: code in a header, code, text and name in the body."""
    return web.Response(
        status=_STATUS.get(error.code, 500),
        text=error.body(version),
        headers={
            "X-ClickHouse-Exception-Code": str(error.code),
            "X-ClickHouse-Query-Id": query_id,
        },
    )


def _content_type(format_: str) -> str:
    for prefix, content_type in _CONTENT_TYPE:
        if format_.startswith(prefix):
            return content_type
    return "application/octet-stream"


def _summary(answer: Answer) -> str:
    counts = {
        "read_rows": answer.n_rows_read,
        "read_bytes": answer.n_bytes_read,
        "written_rows": answer.n_rows_written,
        "written_bytes": answer.n_bytes_written,
        "total_rows_to_read": answer.n_rows_read,
        "result_rows": answer.n_rows,
        "result_bytes": len(answer.data),
        "elapsed_ns": int(answer.elapsed_s * 1e9),
    }
    return json.dumps({name: str(count) for name, count in counts.items()})
