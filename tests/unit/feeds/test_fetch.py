"""Fetching over real sockets: what is refused, and that it is counted."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio
from aiohttp import web

from feeds.errors import FetchFailed
from feeds.fetch import Fetcher, FetchSettings

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
JSON = {"Content-Type": "application/json"}
BOMB = gzip.compress(b" " * 40_000_000)


class Host:
    """A host whose answers are set per path."""

    def __init__(self) -> None:
        self.answers: dict[str, Handler] = {}
        self.asked: list[web.BaseRequest] = []
        self.port = 0

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def says(self, path: str, body: bytes = b"{}", status: int = 200, **headers: str) -> None:
        async def answer(_request: web.BaseRequest) -> web.StreamResponse:
            sent = {**JSON, **{k.replace("_", "-"): v for k, v in headers.items()}}
            return web.Response(body=body, status=status, headers=sent)

        self.answers[path] = answer

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request)
        return await self.answers[request.path](request)


@pytest_asyncio.fixture
async def host() -> AsyncIterator[Host]:
    made = Host()
    runner = web.ServerRunner(web.Server(made.handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


@pytest_asyncio.fixture
async def fetcher() -> AsyncIterator[Fetcher]:
    settings = FetchSettings(private_hosts=("127.0.0.1",), max_bytes=100_000, timeout_s=2.0)
    async with Fetcher(settings) as made:
        yield made


async def refused(fetcher: Fetcher, url: str) -> str:
    with pytest.raises(FetchFailed) as failed:
        await fetcher.fetch(url)
    assert fetcher.n_refused[failed.value.refusal] >= 1
    return str(failed.value.refusal)


async def test_unchanged_is_asked_for_and_understood(host: Host, fetcher: Fetcher) -> None:
    host.says("/a", b'{"a":1}', ETag='W/"1"', Last_Modified="Mon, 01 Jan 2024 00:00:00 GMT")
    first = await fetcher.fetch(host.url("/a"))
    assert first.body == b'{"a":1}'
    host.says("/a", b"", status=304)
    again = await fetcher.fetch(host.url("/a"), etag=first.etag, modified=first.modified)
    assert (again.body, again.etag) == (None, 'W/"1"')
    assert host.asked[1].headers["If-None-Match"] == 'W/"1"'
    assert host.asked[1].headers["If-Modified-Since"] == first.modified


async def test_a_304_that_nobody_asked_for_is_no_document(host: Host, fetcher: Fetcher) -> None:
    host.says("/a", b"", status=304)
    assert await refused(fetcher, host.url("/a")) == "status"


@pytest.mark.parametrize("encode", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
async def test_encoded_documents_are_inflated(
    host: Host, fetcher: Fetcher, encode: Callable[[bytes], bytes]
) -> None:
    name = "gzip" if encode is gzip.compress else "deflate"
    host.says("/a", encode(b"x" * 50_000), Content_Encoding=name)
    assert (await fetcher.fetch(host.url("/a"))).n_bytes == 50_000


async def test_size_is_bounded_plain_and_inflated(host: Host, fetcher: Fetcher) -> None:
    host.says("/plain", b" " * 100_001)
    host.says("/bomb", BOMB, Content_Encoding="gzip")
    assert len(BOMB) < 100_000
    assert await refused(fetcher, host.url("/plain")) == "size"
    assert await refused(fetcher, host.url("/bomb")) == "size"


async def test_odd_encodings_are_refused(host: Host, fetcher: Fetcher) -> None:
    host.says("/br", b"x", Content_Encoding="br")
    host.says("/lie", b"not gzip", Content_Encoding="gzip")
    host.says("/cut", gzip.compress(b"x" * 1000)[:20], Content_Encoding="gzip")
    for path in ("/br", "/lie", "/cut"):
        assert await refused(fetcher, host.url(path)) == "encoding"


async def test_html_is_refused_whatever_it_calls_itself(host: Host, fetcher: Fetcher) -> None:
    host.says("/a", b"<!DOCTYPE html><p>Sign in", Content_Type="text/html; charset=utf-8")
    host.says("/b", b"\n<HTML><p>Sign in")
    assert await refused(fetcher, host.url("/a")) == "html"
    assert await refused(fetcher, host.url("/b")) == "html"


async def test_redirects_stay_within_the_host(host: Host, fetcher: Fetcher) -> None:
    host.says("/here", status=302, Location="/there")
    host.says("/there", b"[]")
    assert (await fetcher.fetch(host.url("/here"))).body == b"[]"
    elsewhere = (
        f"http://localhost:{host.port}/there",
        f"http://127.0.0.2:{host.port}/there",
        f"http://127.0.0.1:{host.port + 1}/there",
        "https://127.0.0.1/there",
        "file:///etc/passwd",
        "",
    )
    for location in elsewhere:
        host.says("/away", status=301, Location=location)
        assert await refused(fetcher, host.url("/away")) == "redirect", location
    host.says("/round", status=307, Location="/round")
    assert await refused(fetcher, host.url("/round")) == "redirect"


async def test_addresses_that_are_not_public_are_refused(host: Host) -> None:
    host.says("/a")
    async with Fetcher(FetchSettings(timeout_s=2.0)) as fetcher:
        for name in ("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"):
            assert await refused(fetcher, host.url("/a", name)) == "private", name
        for url in ("http://10.0.0.1/", "http://169.254.169.254/latest", "http://224.0.0.1/"):
            assert await refused(fetcher, url) == "private", url
        for url in ("ftp://example.com/", "file:///etc/passwd", "http://u:p@example.com/"):
            assert await refused(fetcher, url) == "address", url
    assert not host.asked


async def test_a_host_that_hangs_is_given_up(host: Host) -> None:
    hanging = asyncio.Event()

    async def slowly(request: web.BaseRequest) -> web.StreamResponse:
        answer = web.StreamResponse(headers=JSON)
        await answer.prepare(request)
        await answer.write(b"[")
        await hanging.wait()
        return answer

    host.answers["/a"] = slowly
    settings = FetchSettings(private_hosts=("127.0.0.1",), timeout_s=0.2)
    async with Fetcher(settings) as fetcher:
        assert await refused(fetcher, host.url("/a")) == "timeout"
    hanging.set()


async def test_errors_and_absent_hosts_are_refusals(host: Host, fetcher: Fetcher) -> None:
    host.says("/a", status=503)
    assert await refused(fetcher, host.url("/a")) == "status"
    assert await refused(fetcher, "http://127.0.0.1:1/") == "connect"
