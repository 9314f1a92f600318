"""Refusals into classes; nothing of a seller's free text in what is recorded."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bidding.outcome import FailureClass
from broker.providers.dialects import DIALECTS
from broker.providers.failures import SellerError, classify, failed, read_error, retry_after_s
from broker.wire.neutral import Failed

SECRET = "sk-very-secret-1234 and my prompt"


@pytest.mark.parametrize(
    ("status", "body", "failure"),
    [
        (
            429,
            b'{"error":{"code":429,"message":"x","status":"RESOURCE_EXHAUSTED"}}',
            "rate_limited",
        ),
        (400, b'[{"error":{"code":400,"message":"API key not valid"}}]', "bad_request"),
        (
            400,
            b'{"message":"Input is too long","__type":"ValidationException"}',
            "context_too_long",
        ),
        (429, b'{"__type":"com.amazon#ThrottlingException"}', "rate_limited"),
        (503, b'{"error":"Model x is currently loading"}', "overloaded"),
        (503, b"", "server_error"),
        (529, b"", "overloaded"),
        (404, b"not json", "model_missing"),
        (402, b"{}", "quota"),
        (418, b"{}", "bad_request"),
        (302, b"", "malformed"),
        (599, b"", "server_error"),
        (400, b'{"error":{"message":"The model `q` does not exist"}}', "model_missing"),
        (401, b'{"error":{"message":"rate limit of bad logins"}}', "auth"),
        (500, b'{"error":{"message":"upstream is overloaded"}}', "overloaded"),
    ],
)
def test_classes(status: int, body: bytes, failure: str) -> None:
    assert classify(status, read_error(body)) == failure


def test_free_text_is_never_in_the_reason() -> None:
    error = SellerError(code=SECRET, kind="x", message=SECRET)
    for status in (400, 401, 429, 500):
        assert " and my prompt" not in failed(status, error).reason
    assert failed(401, SellerError(message=SECRET)).message == ""
    assert failed(500, SellerError(message=SECRET)).message == ""


def test_text_that_is_shown_has_no_control_characters() -> None:
    shown = failed(400, SellerError(message="a\r\ndata: x\x00\u2028" + "y" * 1000)).message
    assert shown.startswith("a data: x y")
    assert len(shown) <= 500


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "30"}, 30.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 90.0),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "1e99"}, 3600.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers, now_s=10.0) == seconds


@given(status=st.integers(100, 700), body=st.binary(max_size=200))
def test_any_refusal_has_a_class(status: int, body: bytes) -> None:
    for dialect in DIALECTS.values():
        assert dialect.refusal(status, body, None).failure is not FailureClass.OK


def _mutated(rng: random.Random, body: bytes) -> bytes:
    out = bytearray(body)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(out))
        what = rng.randrange(4)
        if what == 0:
            out[at] = rng.randrange(256)
        elif what == 1:
            del out[at : at + rng.randint(1, 20)]
        elif what == 2:
            out[at:at] = rng.choice(
                [b"\x00", b"\xef\xbb\xbf", b"\xff\xfe", b"null", b"[{", b"\n\n"]
            )
        else:
            out[at:at] = out[at : at + 40]
        if not out:
            return b""
    return bytes(out)


SAMPLES = {
    "openai": b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"role":"assistant",'
    b'"content":"a","tool_calls":[{"index":0,"id":"x","function":{"name":"f","arguments":"{}"}}]},'
    b'"finish_reason":null}]}\n\ndata: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\ndata: [DONE]\n\n',
    "anthropic": b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","usage":'
    b'{"input_tokens":3}}}\n\nevent: content_block_delta\ndata: {"type":"content_block_delta",'
    b'"index":0,"delta":{"type":"text_delta","text":"a"}}\n\nevent: message_delta\ndata: '
    b'{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":2}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
}


@pytest.mark.parametrize("name", SAMPLES)
def test_ten_thousand_mutations_crash_nothing(name: str) -> None:
    rng = random.Random(20261124)
    n_failed = 0
    for _ in range(5000):
        body = _mutated(rng, SAMPLES[name])
        for stream in (True, False):
            reader = DIALECTS[name].reader(stream=stream)
            cut = rng.randrange(len(body) + 1)
            events = [*reader.feed(body[:cut]), *reader.feed(body[cut:]), *reader.close()]
            bad = [e for e in events if isinstance(e, Failed)]
            assert len(bad) <= 1
            assert not bad or events[-1] is bad[0]
            n_failed += bool(bad)
    assert n_failed > 1000


def test_an_error_buried_in_depth_is_not_followed() -> None:
    deep = b'{"error":' * 5000 + b"1" + b"}" * 5000
    assert read_error(deep) == SellerError()
    nested = json.dumps({"error": {"error": {"error": {"message": "rate limit"}}}}).encode()
    assert classify(0, read_error(nested)) is FailureClass.RATE_LIMITED
