"""The outside of a call: its address, its key where the provider wants it, its headers."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from broker.providers.base import Seat, WireCall
from broker.providers.quirks import Quirks

_ACCEPT = {True: "text/event-stream", False: "application/json"}


def wire_call(seat: Seat, quirks: Quirks, path: str, body: bytes, *, stream: bool) -> WireCall:
    """A call of `path` at `seat`, with its key where the provider wants it."""
    headers = {"Content-Type": "application/json", "Accept": _ACCEPT[stream]}
    url = seat.provider.base_url.rstrip("/") + path
    if "{model}" in path:
        url = url.replace("{model}", quote(seat.offer.wire_model, safe="@"))
    query = quirks.query
    if seat.key is not None:
        style, _, name = quirks.auth.partition(":")
        if style == "bearer":
            headers["Authorization"] = "Bearer " + seat.key
        elif style == "header":
            headers[name] = seat.key
        elif style == "query":
            query = {**query, name: seat.key}
    if query:
        url += "?" + urlencode(query)
    if quirks.extra_headers:
        headers.update(quirks.extra_headers)
    return WireCall(url=url, headers=headers, body=body)
