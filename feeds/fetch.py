"""The one way out to feeds: conditional, bounded, and only to where it was told to go.

Feeds are other people's documents at configured addresses, so a page must not be able to send us
elsewhere: redirects are followed within the same host only, addresses that are not public are
refused when a name is resolved (not before, when it could still change), no proxy is taken from
the environment, no cookie kept. What comes is read piecewise under one cap, inflated or not, and
HTML is refused: it is what a gateway's login or an error page looks like.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import zlib
from collections.abc import Collection
from typing import Annotated, Any, Final, Literal, Self, get_args

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver
from msgspec import Meta, Struct
from yarl import URL

from feeds.errors import FetchFailed

Refusal = Literal[
    "address", "private", "connect", "timeout", "redirect", "status", "html", "encoding", "size"
]
REFUSALS: Final[tuple[Refusal, ...]] = get_args(Refusal)
MAX_REDIRECTS: Final = 3
_CHUNK: Final = 64 * 1024
_HEAD: Final = (b"<!doctype html", b"<html")
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class FetchSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of fetching. `private_hosts`: hosts (as written in addresses) that may lie at
    addresses that are not public, such as a paper market's or a price server of one's own.
    """

    timeout_s: Annotated[float, Meta(gt=0, le=120)] = 15.0
    max_bytes: Annotated[int, Meta(ge=1024, le=64 * 1024 * 1024)] = 32 * 1024 * 1024
    private_hosts: tuple[str, ...] = ()
    user_agent: str = "model-market-broker (feeds)"


class Fetched(Struct, frozen=True, kw_only=True):
    """A document; `body` None: unchanged since the one that `etag` and `modified` name."""

    body: bytes | None
    etag: str = ""
    modified: str = ""
    n_bytes: int = 0


class Fetcher:
    """Fetches documents. `async with Fetcher(settings) as fetcher`.

    Attributes
    ----------
    n_refused : how often each kind of refusal happened
    """

    def __init__(self, settings: FetchSettings | None = None) -> None:
        self.settings = settings or FetchSettings()
        self.n_refused: dict[Refusal, int] = dict.fromkeys(REFUSALS, 0)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        resolver = PublicOnly(self.settings.private_hosts)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=resolver, limit=16, use_dns_cache=False),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=self.settings.timeout_s),
            headers={
                "User-Agent": self.settings.user_agent,
                "Accept-Encoding": "gzip, deflate",
                "Accept": "application/json, application/atom+xml, application/rss+xml, */*;q=0.1",
            },
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def fetch(self, url: str, *, etag: str = "", modified: str = "") -> Fetched:
        """The document at `url`, or that it is unchanged.

        Parameters
        ----------
        etag, modified : what an earlier `Fetched` of the same address said

        Raises
        ------
        FetchFailed
            With the kind of refusal, counted.
        """
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                return await self._fetch(URL(url), etag, modified)
        except FetchFailed as error:
            self.n_refused[error.refusal] += 1
            raise
        except (TimeoutError, aiohttp.ServerTimeoutError) as error:
            self.n_refused["timeout"] += 1
            word = f"no answer within {self.settings.timeout_s:g} s"
            raise FetchFailed("timeout", f"{url}: {word}") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            kind: Refusal = "private" if isinstance(error.__cause__, _NotPublic) else "connect"
            self.n_refused[kind] += 1
            raise FetchFailed(kind, f"{url}: {error}") from error

    async def _fetch(self, url: URL, etag: str, modified: str) -> Fetched:
        assert self._session is not None, "used outside `async with`"
        asked = {"If-None-Match": etag} if etag else {}
        if modified:
            asked["If-Modified-Since"] = modified
        origin = url
        for _ in range(MAX_REDIRECTS + 1):
            self._check(url)
            async with self._session.get(url, headers=asked, allow_redirects=False) as answer:
                if answer.status in _REDIRECTS:
                    url = _redirected(origin, url, answer.headers.get("Location", ""))
                    continue
                if answer.status == 304 and asked:
                    return Fetched(body=None, etag=etag, modified=modified)
                if answer.status != 200:
                    raise FetchFailed("status", f"{url}: HTTP {answer.status}")
                if answer.content_type in ("text/html", "application/xhtml+xml"):
                    raise FetchFailed("html", f"{url}: an HTML page")
                body = await self._body(answer)
                if body[:512].lstrip().lower().startswith(_HEAD):
                    raise FetchFailed("html", f"{url}: an HTML page")
                return Fetched(
                    body=body,
                    etag=answer.headers.get("ETag", "")[:512],
                    modified=answer.headers.get("Last-Modified", "")[:128],
                    n_bytes=len(body),
                )
        raise FetchFailed("redirect", f"{origin}: more than {MAX_REDIRECTS} redirects")

    def _check(self, url: URL) -> None:
        if url.scheme not in ("http", "https") or not url.host or url.user is not None:
            raise FetchFailed("address", f"{url}: only http and https, without credentials")
        try:
            address = ipaddress.ip_address(url.host)
        except ValueError:
            return
        # Names are looked at when they are resolved; an address never is.
        if url.host not in self.settings.private_hosts and not is_public(address):
            raise FetchFailed("private", f"{url}: not a public address")

    async def _body(self, answer: aiohttp.ClientResponse) -> bytes:
        encoding = answer.headers.get("Content-Encoding", "identity").lower()
        if encoding not in ("identity", "", "gzip", "x-gzip", "deflate"):
            raise FetchFailed("encoding", f"{answer.url}: encoded as {encoding[:40]}")
        inflater = None if encoding in ("identity", "") else zlib.decompressobj(wbits=47)
        most = self.settings.max_bytes
        parts: list[bytes] = []
        n_read = n_kept = 0
        async for chunk in answer.content.iter_chunked(_CHUNK):
            n_read += len(chunk)
            try:
                piece = chunk if inflater is None else inflater.decompress(chunk, most + 1 - n_kept)
            except zlib.error as error:
                raise FetchFailed("encoding", f"{answer.url}: {error}") from error
            n_kept += len(piece)
            if n_read > most or n_kept > most or (inflater and inflater.unconsumed_tail):
                raise FetchFailed("size", f"{answer.url}: more than {most} bytes")
            parts.append(piece)
        if inflater is not None and not inflater.eof:
            raise FetchFailed("encoding", f"{answer.url}: ends in the middle")
        return b"".join(parts)


class _NotPublic(OSError):
    """A name that resolves to nothing but addresses that are not public; aiohttp wraps it."""


class PublicOnly(AbstractResolver):
    """Resolves names, and forgets addresses that are not public unless the host may have them."""

    def __init__(self, private_hosts: Collection[str]) -> None:
        self._private_hosts = frozenset(private_hosts)
        self._resolver = DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        if host in self._private_hosts:
            return found
        public = [r for r in found if is_public(ipaddress.ip_address(r["host"].split("%")[0]))]
        if not public:
            raise _NotPublic(f"{host} is not at a public address")
        return public

    async def close(self) -> None:
        await self._resolver.close()


def is_public(address: Any) -> bool:
    """Whether an address is one of the public internet."""
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is not None:
        return is_public(mapped)
    return bool(address.is_global and not address.is_multicast and not address.is_reserved)


def _redirected(origin: URL, url: URL, location: str) -> URL:
    try:
        to = url.join(URL(location))
    except ValueError as error:
        raise FetchFailed("redirect", f"{url}: to no address") from error
    upgraded = (url.scheme, to.scheme, to.port) == ("http", "https", 443) and url.port == 80
    same = (to.scheme, to.port) == (url.scheme, url.port)
    if not location or to.host != origin.host or not (same or upgraded):
        raise FetchFailed("redirect", f"{url}: to another host, {str(to)[:200]}")
    return to
