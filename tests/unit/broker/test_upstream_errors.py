"""Every exception aiohttp's client can raise is mapped, and encoded bodies are bounded."""

from __future__ import annotations

import gzip
import inspect
import zlib
from typing import Any

import pytest
from aiohttp import client_exceptions

from bidding.outcome import FailureClass
from broker.providers.base import WireCall
from broker.upstream import ERRORS, AttemptFailed, Upstream, UpstreamSettings
from tests.fakes.dispatching import market
from tests.fakes.scripted_seller import Connection, ScriptedSeller, streams

GOOD = {"prompt_tokens": 12, "completion_tokens": 5}


def test_no_client_exception_is_unmapped() -> None:
    raised = [
        kind
        for _, kind in inspect.getmembers(client_exceptions, inspect.isclass)
        if issubclass(kind, Exception) and kind.__module__ == client_exceptions.__name__
        if not kind.__name__.startswith("WS")  # no web sockets are opened
    ]
    assert len(raised) > 20
    for kind in raised:
        assert any(issubclass(kind, known) for known, _, _ in ERRORS), kind


def test_more_special_errors_stand_first() -> None:
    kinds = [kind for kind, _, _ in ERRORS]
    for i, kind in enumerate(kinds):
        assert not any(issubclass(kind, earlier) for earlier in kinds[:i]), kind


def encoded(encoding: str, body: bytes) -> ScriptedSeller:
    async def script(c: Connection) -> None:
        await c.whole(body, content_encoding=encoding)

    return ScriptedSeller(script)


WHOLE = (
    b'{"choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":12,"completion_tokens":5}}'
)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [("gzip", gzip.compress(WHOLE)), ("deflate", zlib.compress(WHOLE)), ("identity", WHOLE)],
)
async def test_an_answer_encoded_all_the_same_is_read(encoding: str, body: bytes) -> None:
    async with market(encoded(encoding, body)) as m:
        delivery = await m.dispatcher.run(m.order())
        assert delivery.answer is not None
        assert delivery.answer.choices[0].text == "hi"


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(b" " * 64 * 1024 * 1024)),
        ("gzip", b"no gzip"),
        ("br", b"x"),
    ],
)
async def test_a_bomb_or_an_unknown_encoding_falls_back(encoding: str, body: bytes) -> None:
    async with market(encoded(encoding, body), ScriptedSeller(streams(["hi"], usage=GOOD))) as m:
        await m.dispatcher.run(m.order())
        assert m.ends() == [("a", "malformed"), ("b", "ok")]


async def test_the_key_goes_to_the_providers_origin_only() -> None:
    upstream = Upstream(UpstreamSettings())
    await upstream.start()
    elsewhere: Any = ScriptedSeller(streams(["hi"]))
    try:
        async with market(elsewhere) as m:
            seat = m.seats["a/m"]
            call = WireCall(url="http://127.0.0.1:9/v1", headers={}, body=b"{}")
            with pytest.raises(AttemptFailed) as caught:
                await upstream.call(call, seat.provider)
    finally:
        await upstream.close()
    assert caught.value.failure is FailureClass.CONNECT
    assert elsewhere.calls == []
