"""The one HTTP client to sellers, and its errors in our words.

Nothing a seller sends reaches us unbounded or unasked: answers are asked for unencoded and, if
encoded all the same, inflated piecewise under a cap; redirects are not followed, the
environment's proxies not used, and a call goes only to the origin its provider is configured
with, since the key travels in its headers. aiohttp's exceptions end here: each is an
`AttemptFailed` with a class, by a table that a test compares with aiohttp's own list.
"""

from __future__ import annotations

import asyncio
import ssl
import zlib
from functools import lru_cache
from typing import Annotated, Protocol

import aiohttp
from aiohttp import ClientTimeout, hdrs
from msgspec import Meta, Struct
from multidict import CIMultiDictProxy
from yarl import URL

from bidding.errors import MarketError
from bidding.market import Provider
from bidding.outcome import FailureClass
from broker.litellm_reach import LiteLLMReach
from broker.providers.base import WireCall

Bytes = Annotated[int, Meta(ge=1024)]


_LATE = 1.1
"""A timeout that comes later than this many times its length says that the loop was not running."""


class UpstreamSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of the client to sellers."""

    connect_timeout_s: Annotated[float, Meta(gt=0, le=60)] = 1.0
    max_connections: Annotated[int, Meta(ge=1)] = 4096
    keepalive_s: Annotated[float, Meta(gt=0)] = 30.0
    max_body_bytes: Bytes = 16 * 1024 * 1024
    read_buffer_bytes: Bytes = 64 * 1024


class AttemptFailed(MarketError):
    """One call to one seller has failed; runners-up may do better.

    `stale` says that the connection closed before any answer: most likely an idle one that the
    seller had given up, so that asking again at once is sensible.
    """

    def __init__(self, failure: FailureClass, reason: str, *, stale: bool = False) -> None:
        super().__init__(f"{failure}: {reason}")
        self.failure = failure
        self.reason = reason
        self.stale = stale


ERRORS: tuple[tuple[type[BaseException], FailureClass, str], ...] = (
    (aiohttp.ClientConnectorCertificateError, FailureClass.TLS, "certificate"),
    (aiohttp.ClientConnectorSSLError, FailureClass.TLS, "handshake"),
    (aiohttp.ServerFingerprintMismatch, FailureClass.TLS, "fingerprint"),
    (aiohttp.ClientSSLError, FailureClass.TLS, "tls"),
    (aiohttp.ClientConnectorDNSError, FailureClass.CONNECT, "dns"),
    (aiohttp.ConnectionTimeoutError, FailureClass.CONNECT, "connect timeout"),
    (aiohttp.ClientConnectorError, FailureClass.CONNECT, "refused"),
    (aiohttp.ServerDisconnectedError, FailureClass.CONNECT, "disconnected"),
    (aiohttp.ClientConnectionResetError, FailureClass.CONNECT, "reset"),
    (aiohttp.ServerTimeoutError, FailureClass.TIMEOUT_GAP, "socket timeout"),
    (aiohttp.ClientPayloadError, FailureClass.TRUNCATED, "payload"),
    (aiohttp.ClientOSError, FailureClass.CONNECT, "reset"),
    (aiohttp.ClientConnectionError, FailureClass.CONNECT, "connection"),
    (aiohttp.InvalidURL, FailureClass.CONNECT, "url"),
    (aiohttp.ClientResponseError, FailureClass.MALFORMED, "http"),
    (aiohttp.ClientError, FailureClass.MALFORMED, "http"),
    (ssl.SSLError, FailureClass.TLS, "tls"),
    (OSError, FailureClass.CONNECT, "socket"),
)
"""Most specific first."""


def failure_from(error: BaseException, *, answered: bool) -> AttemptFailed:
    """`error` in our words; once the seller has `answered`, a broken connection truncates."""
    for kind, failure, reason in ERRORS:
        if isinstance(error, kind):
            stale = reason in ("disconnected", "reset") and not answered
            if answered and failure is FailureClass.CONNECT:
                failure = FailureClass.TRUNCATED
            return AttemptFailed(failure, reason, stale=stale)
    raise error


class Reply(Protocol):
    """A seller's answer after its headers. `read` gives b"" at the end."""

    status: int
    headers: CIMultiDictProxy[str]

    async def read(self) -> bytes: ...

    def close(self) -> None: ...


class HttpReply:
    """An answer over aiohttp. `close` ends the call at once unless it was read to its end."""

    __slots__ = ("_inflate", "_max", "_n", "_response", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse, max_bytes: int) -> None:
        self._response = response
        self._max = max_bytes
        self._n = 0
        self.status = response.status
        self.headers = response.headers
        self._inflate: zlib._Decompress | None = None
        encoding = response.headers.get(hdrs.CONTENT_ENCODING, "identity").lower()
        if encoding in ("gzip", "x-gzip", "deflate"):
            self._inflate = zlib.decompressobj(wbits=47 if "gzip" in encoding else 15)
        elif encoding not in ("identity", ""):
            response.close()
            raise AttemptFailed(FailureClass.MALFORMED, "content-encoding")

    async def read(self) -> bytes:
        """The next piece of the body. Raises `AttemptFailed`."""
        while True:
            try:
                piece = await self._response.content.readany()
            except (aiohttp.ClientError, OSError, ssl.SSLError) as error:
                raise failure_from(error, answered=True) from error
            if not piece:
                return b""
            if self._inflate is not None:
                piece = self._inflated(piece)
            self._n += len(piece)
            if self._n > self._max:
                raise AttemptFailed(FailureClass.MALFORMED, "body too large")
            if piece:
                return piece

    def _inflated(self, piece: bytes) -> bytes:
        room = self._max - self._n + 1
        inflate = self._inflate
        if inflate is None:
            return piece
        try:
            return inflate.decompress(piece, room)
        except zlib.error as error:
            raise AttemptFailed(FailureClass.MALFORMED, "inflate") from error

    def close(self) -> None:
        """End the call; the connection is kept only if the body was read to its end."""
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


class Upstream:
    """The client. One a process; `start` on the loop that will use it."""

    def __init__(
        self, settings: UpstreamSettings | None = None, *, tls: ssl.SSLContext | None = None
    ) -> None:
        self._settings = settings or UpstreamSettings()
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None
        self._litellm = LiteLLMReach()
        limit = self._settings.connect_timeout_s
        self._timeout = ClientTimeout(total=None, sock_connect=limit, connect=limit * 2)

    async def start(self) -> None:
        """Open the session."""
        connector = aiohttp.TCPConnector(
            limit=self._settings.max_connections,
            keepalive_timeout=self._settings.keepalive_s,
            ssl=self._tls if self._tls is not None else True,
            ttl_dns_cache=30,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=self._timeout,
            skip_auto_headers=("User-Agent",),
            read_bufsize=self._settings.read_buffer_bytes,
        )

    async def close(self) -> None:
        """Close every connection, and let their transports go."""
        if self._session is not None:
            await self._session.close()
            await self._litellm.close()
            self._session = None
            await asyncio.sleep(0)

    async def call(self, call: WireCall, provider: Provider) -> Reply:
        """Send `call`; return when its headers have come.

        Raises
        ------
        AttemptFailed
            When no answer came, or one that is not HTTP. Timeouts past connecting are the
            caller's to set, around this.
        """
        if self._session is None:
            raise AttemptFailed(FailureClass.CONNECT, "client is closed")
        if provider.wire == "litellm":
            return await self._litellm.call(call, provider)
        url = _url(call.url)
        if url.origin() != _url(provider.base_url).origin():
            raise AttemptFailed(FailureClass.CONNECT, "not the provider's origin")
        call.headers["Accept-Encoding"] = "identity"
        try:
            response = await self._answered(self._session, call, url)
        except (aiohttp.ClientError, OSError, ssl.SSLError) as error:
            raise failure_from(error, answered=False) from error
        return HttpReply(response, self._settings.max_body_bytes)

    async def _answered(
        self, session: aiohttp.ClientSession, call: WireCall, url: URL
    ) -> aiohttp.ClientResponse:
        """The answer's headers. A connection that timed out while this very process stood still is
        made once more: the seller may have accepted in time, and nothing has been sent to it.
        """
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        try:
            return await session.request(
                call.method, url, data=call.body, headers=call.headers, allow_redirects=False
            )
        except aiohttp.ConnectionTimeoutError:
            if loop.time() - begun_s < _LATE * self._settings.connect_timeout_s:
                raise
        return await session.request(
            call.method, url, data=call.body, headers=call.headers, allow_redirects=False
        )


@lru_cache(maxsize=4096)
def _url(text: str) -> URL:
    """An address; with percent signs in it, it is sent as it is, since it may be signed."""
    return URL(text, encoded="%" in text)
