"""What the routes of the public port share: who calls, what was sent, how it is answered."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec
from aiohttp import web

from bidding.errors import BadRequest
from broker.auth import Caller, Scope, require
from broker.errors import BodyTooLarge
from broker.gateway_state import GatewayState
from broker.serve import RequestLine

STATE: Final = web.AppKey("state", GatewayState)
LINE: Final = web.AppKey("line", RequestLine)
_encoder = msgspec.json.Encoder()


def caller_of(request: web.Request, scope: Scope) -> Caller:
    """Whoever sent the request, if they may do this."""
    state = request.app[STATE]
    header = request.headers.get("Authorization") or request.headers.get("x-api-key")
    caller = state.market.keys.caller(header, state.clock.now_us())
    require(caller, scope)
    return caller


async def body_of(request: web.Request, limit: int | None = None) -> bytes:
    """The whole body, decompressed, within its time and `limit` (default: the settings').

    Raises
    ------
    BadRequest
        It did not come in time, or cannot be inflated.
    BodyTooLarge
        Known from its stated length before any of it is read, else once over the limit.
    """
    settings = request.app[STATE].settings.gateway
    most = settings.max_body_bytes if limit is None else limit
    if (request.content_length or 0) > most:
        raise BodyTooLarge(f"the body is over {most} bytes")
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            if limit is None:
                return await request.read()
            parts, n_bytes = [], 0
            async for part in request.content.iter_any():
                n_bytes += len(part)
                if n_bytes > most:
                    raise BodyTooLarge(f"the body is over {most} bytes")
                parts.append(part)
            return b"".join(parts)
    except TimeoutError as error:
        raise BadRequest("the body did not arrive in time") from error
    except web.RequestPayloadError as error:
        raise BadRequest(
            f"the body cannot be read: {error}", remedy="send it whole, encoded as it says"
        ) from error


def json_response(body: Any, *, status: int = 200) -> web.Response:
    """`body` as JSON."""
    return web.Response(status=status, body=_encoder.encode(body), content_type="application/json")
