"""The app's own check of an answer, at an address that the operator allows and nowhere else.

An address is allowed by its origin, scheme and port included, and refused before anything is
bought. Names that resolve to addresses that are not public are refused when they are resolved
(the connection goes to the very address that was looked at), unless the operator listed the
host; redirects are not followed, no proxy is used, no cookie kept, and a long reply is cut off.
"""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Annotated, Any, Final

import aiohttp
import msgspec
from msgspec import Meta, Struct
from yarl import URL

from bidding.errors import BadRequest
from feeds.fetch import PublicOnly, is_public

_MAX_REPLY_BYTES: Final = 65_536
_PATH: Final = "sla.verify.webhook"


class VerifySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`webhooks`: origins that may be asked to check answers, such as `https://checks.acme.com`.
    `private_hosts`: hosts among them that may lie at addresses that are not public.
    """

    webhooks: tuple[Annotated[str, Meta(pattern=r"^https?://[^/@?# ]+$")], ...] = ()
    private_hosts: tuple[str, ...] = ()
    timeout_s: Annotated[float, Meta(gt=0, le=120)] = 5.0
    at_once: Annotated[int, Meta(ge=1, le=4096)] = 64


class Said(Struct, frozen=True):
    """A webhook's reply: whether it is a good answer, or how good, 0 to 1."""

    ok: bool | None = None
    score: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None


class NoWord(Exception):
    """The webhook gave no verdict: it failed, was slow, or said something else."""


_said = msgspec.json.Decoder(Said)
_encode = msgspec.json.Encoder().encode


class Webhooks:
    """Asks webhooks; one an event loop."""

    def __init__(self, settings: VerifySettings) -> None:
        self._settings = settings
        self._allowed = {str(URL(origin).origin()) for origin in settings.webhooks}
        self._session: aiohttp.ClientSession | None = None

    def look_at(self, address: str) -> None:
        """Raise `BadRequest` for an address that may not be asked."""
        try:
            url = URL(address)
            origin = str(url.origin())
        except ValueError as error:
            raise BadRequest(
                "the webhook is no address", path=_PATH, remedy="give an https address"
            ) from error
        if url.user is not None or url.password is not None or origin not in self._allowed:
            raise BadRequest(
                f"the webhook's origin {origin!r} is not allowed here",
                path=_PATH,
                remedy="ask your operator to list it in verify.webhooks",
            )
        host = url.host or ""
        try:
            literal = ipaddress.ip_address(host)
        except ValueError:
            return
        if host not in self._settings.private_hosts and not is_public(literal):
            raise BadRequest(
                "the webhook is not at a public address",
                path=_PATH,
                remedy="ask your operator to list its host in verify.private_hosts",
            )

    async def ask(self, address: str, told: dict[str, Any]) -> float:
        """What the webhook says the answer is worth, 0 to 1.

        Raises
        ------
        NoWord
        """
        self.look_at(address)
        try:
            async with (
                asyncio.timeout(self._settings.timeout_s),
                self._opened().post(
                    URL(address),
                    data=_encode(told),
                    headers={"Content-Type": "application/json"},
                    allow_redirects=False,
                ) as reply,
            ):
                if reply.status != 200:
                    raise NoWord(f"status {reply.status}")
                body = await _body(reply)
            said = _said.decode(body)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise NoWord(type(error).__name__) from error
        if said.score is not None:
            return said.score
        if said.ok is None:
            raise NoWord("neither ok nor score")
        return 1.0 if said.ok else 0.0

    async def close(self) -> None:
        """Let go of connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    resolver=PublicOnly(self._settings.private_hosts),
                    limit=self._settings.at_once,
                    use_dns_cache=False,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,
                headers={
                    "User-Agent": "model-market-broker (verify)",
                    "Accept-Encoding": "identity",
                },
            )
        return self._session


async def _body(reply: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in reply.content.iter_chunked(8_192):
        body += piece
        if len(body) > _MAX_REPLY_BYTES:
            raise NoWord("too long")
    return bytes(body)
