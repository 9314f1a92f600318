"""Calls made by LiteLLM's SDK (extra `[litellm]`), shaped as answers of a seller.

Imported when the first such call is made, off the loop, since importing it takes seconds; told
to use its own price map, since otherwise it fetches one from the network as it is imported. It
neither retries nor falls back nor drops parameters here: that is the broker's to decide. Its
sockets are its own, so origin, redirects and size are in its hands, not in `upstream`'s.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from multidict import CIMultiDict, CIMultiDictProxy

from bidding.market import Provider
from broker.providers.base import WireCall
from broker.providers.litellm import EMBEDDINGS, KEY_HEADER

_CODES = {
    "ContextWindowExceededError": "context_length_exceeded",
    "ContentPolicyViolationError": "content_policy_violation",
    "UnsupportedParamsError": "unsupported_parameter",
    "RateLimitError": "rate_limit_exceeded",
    "AuthenticationError": "invalid_api_key",
    "PermissionDeniedError": "permission_denied",
    "NotFoundError": "model_not_found",
    "PaymentRequiredError": "payment_required",
    "BudgetExceededError": "insufficient_quota",
    "LiteLLMUnknownProvider": "model_not_found",
}
"""LiteLLM's exceptions in words that `providers.failures` knows; the rest go by their status."""
_DONE = b"data: [DONE]\n\n"
_encode = msgspec.json.Encoder().encode


class LiteLLMReply:
    """An answer of the SDK: `read` gives its body, or its stream's chunks as events."""

    def __init__(
        self, status: int, body: bytes, chunks: AsyncIterator[Any] | None, wait: str | None = None
    ) -> None:
        self.status = status
        kind = "application/json" if chunks is None else "text/event-stream"
        headers = CIMultiDict({"content-type": kind})
        if wait is not None:
            headers["retry-after"] = wait
        self.headers = CIMultiDictProxy(headers)
        self._body = body
        self._chunks = chunks
        self._closing: asyncio.Task[None] | None = None

    async def read(self) -> bytes:
        """The next piece; b"" at the end."""
        if self._chunks is None:
            body, self._body = self._body, b""
            return body
        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            self._chunks = None
            return _DONE
        except Exception as error:  # noqa: BLE001 - whatever a hundred vendors' clients raise
            self._chunks = None
            return b"data: " + error_body(error) + b"\n\n"
        data: bytes = chunk.model_dump_json(exclude_none=True).encode()
        return b"data: " + data + b"\n\n"

    def close(self) -> None:
        """End the call."""
        chunks, self._chunks = self._chunks, None
        end = getattr(chunks, "aclose", None)
        if end is not None:
            self._closing = asyncio.ensure_future(_quietly(end))


async def _quietly(end: Any) -> None:
    try:
        await end()
    except Exception as error:  # noqa: BLE001 - the answer is over; nobody is left to tell
        logging.getLogger(__name__).debug("closing a stream: %s", type(error).__name__)


class LiteLLMReach:
    """The SDK, loaded once."""

    def __init__(self) -> None:
        self._sdk: Any = None
        self._loading = asyncio.Lock()

    async def call(self, call: WireCall, provider: Provider) -> LiteLLMReply:
        """Make `call`; errors come back as answers with their status."""
        sdk = await self._loaded()
        asked: dict[str, Any] = msgspec.json.decode(call.body)
        asked |= {"num_retries": 0, "max_retries": 0, "drop_params": False}
        asked["api_key"] = call.headers.get(KEY_HEADER)
        if provider.base_url:
            asked["api_base"] = provider.base_url
        if provider.region is not None:
            asked["aws_region_name"] = provider.region
        _split_pair(asked)
        try:
            if call.url == EMBEDDINGS:
                answer = await sdk.aembedding(**asked)
            else:
                answer = await sdk.acompletion(**asked)
        except Exception as error:  # noqa: BLE001 - whatever a hundred vendors' clients raise
            wait = getattr(getattr(error, "response", None), "headers", {}).get("retry-after")
            return LiteLLMReply(_status(error), error_body(error), None, wait)
        if asked.get("stream"):
            return LiteLLMReply(200, b"", aiter(answer))
        return LiteLLMReply(200, answer.model_dump_json(exclude_none=True).encode(), None)

    async def close(self) -> None:
        """Close the SDK's connections."""
        end = getattr(self._sdk, "close_litellm_async_clients", None)
        if end is not None:
            await _quietly(end)

    async def _loaded(self) -> Any:
        async with self._loading:
            if self._sdk is None:
                self._sdk = await asyncio.to_thread(_load)
        return self._sdk


def _load() -> Any:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    sdk: Any = importlib.import_module("litellm")
    sdk.telemetry = False
    sdk.suppress_debug_info = True
    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return sdk


def _split_pair(asked: dict[str, Any]) -> None:
    """AWS wants its key in parts: `ACCESS:SECRET[:TOKEN]`, as for our own Bedrock adapter."""
    key = asked["api_key"]
    if not str(asked["model"]).startswith("bedrock/") or key is None or ":" not in key:
        return
    parts = key.split(":", 2)
    names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    asked |= dict(zip(names, parts, strict=False))
    del asked["api_key"]


def _status(error: Exception) -> int:
    status = getattr(error, "status_code", None)
    try:
        found = int(status) if status is not None else 500
    except (TypeError, ValueError):
        found = 500
    return found if 400 <= found < 600 else 500


def error_body(error: Exception) -> bytes:
    """An exception of the SDK as an error in OpenAI's shape."""
    names = [kind.__name__ for kind in type(error).__mro__]
    code = next((_CODES[name] for name in names if name in _CODES), None)
    told = {"message": str(error)[:2000], "type": names[0], "code": code}
    return _encode({"error": told})
