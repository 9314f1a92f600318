"""The market page's files, its live quotes and its reports. Nothing here decides anything."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from importlib import resources
from typing import Any, Final

import msgspec
from aiohttp import web

from broker.analyst_desk import MEDIA_TYPES, AnalystDesk, catalogue
from broker.errors import NotFound
from broker.market_stream import MarketStream

_TYPES: Final = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".LICENSE": "text/plain",
}
_encoder = msgspec.json.Encoder()


def load_files() -> dict[str, tuple[bytes, str]]:
    """Every file of the page by its path under `/page/`, with its media type."""
    found = {}
    root = resources.files("broker.page").joinpath("static")
    for folder, prefix in ((root, ""), (root.joinpath("vendor"), "vendor/")):
        for file in folder.iterdir():
            kind = next((t for end, t in _TYPES.items() if file.name.endswith(end)), None)
            if kind is not None:
                found[prefix + file.name] = (file.read_bytes(), kind)
    return found


def security_headers(admin_origin: str) -> dict[str, str]:
    """What the browser may do on the page: our own files, our own API, the admin port."""
    return {
        "Content-Security-Policy": (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
            f"connect-src 'self' {admin_origin}; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'"
        ).replace(" ;", ";"),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }


def page_file(files: Mapping[str, tuple[bytes, str]], name: str, admin_origin: str) -> web.Response:
    """One of the page's files. Raises `NotFound`."""
    if name not in files:
        raise NotFound(f"the page has no file {name!r}")
    body, kind = files[name]
    return web.Response(
        body=body, content_type=kind, charset="utf-8", headers=security_headers(admin_origin)
    )


async def stream_market(request: web.Request, stream: MarketStream) -> web.StreamResponse:
    """Send the market's changes until the watcher leaves."""
    events = stream.watch()
    async with contextlib.aclosing(events):
        first = await anext(events)
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        )
        await response.prepare(request)
        await response.write(first)
        with contextlib.suppress(ConnectionResetError):
            async for event in events:
                await response.write(event)
        return response


async def answer_report(desk: AnalystDesk, name: str, query: Mapping[str, str]) -> web.Response:
    """A named report, as JSON, or as the file that `format` names."""
    given = dict(query)
    fmt = given.pop("format", "")
    if fmt:
        body = await desk.export(name, given, fmt)
        return web.Response(
            body=body,
            content_type=MEDIA_TYPES[fmt],
            headers={"Content-Disposition": f'attachment; filename="{name}.{fmt}"'},
        )
    answer: dict[str, Any] = await desk.run(name, given)
    return web.Response(body=_encoder.encode(answer), content_type="application/json")


def list_reports() -> web.Response:
    """All reports and what they may be given."""
    return web.Response(body=_encoder.encode(catalogue()), content_type="application/json")
