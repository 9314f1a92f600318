"""Whatever is sent to the public port, the answer is a 4xx in the surface's own shape or a good
one: never a 5xx, never anything of another tenant's.

schemathesis draws bodies that break our own OpenAPI document, hypothesis breaks good bodies of
every surface.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from broker.gateway import ROUTES
from broker.openapi import BODIES, document
from tests.fakes.rig_thread import rig_on_thread
from tests.fuzz.json_values import JSON, changed, places

SELLERS = ("groq", "novita", "openai")
MODELS = ("llama-3-8b", "text-embedding-3-small")
SECRET = "the other tenant's secret"
QUICKLY = settings(
    max_examples=25,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
SCHEMA = schemathesis.openapi.from_dict(document(ROUTES))
FUZZED = [*BODIES, "/v1/decisions/{id}", "/v1/reports/{name}"]
ASK = [{"role": "user", "content": "What is 6 * 7?"}]
GOOD: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "model": "llama-3-8b",
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": [{"type": "text", "text": "What is 6 * 7?"}]},
        ],
        "max_tokens": 20,
        "temperature": 0.5,
        "stop": ["x"],
        "sla": {"ttft_ms": 1000, "compliance": {"zdr": False}},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
    },
    "/v1/responses": {
        "model": "llama-3-8b",
        "input": [{"type": "message", "role": "user", "content": "What is 6 * 7?"}],
        "text": {"format": {"type": "text"}},
        "max_output_tokens": 20,
    },
    "/v1/embeddings": {"model": "text-embedding-3-small", "input": ["one", "two"]},
    "/v1/messages": {
        "model": "llama-3-8b",
        "max_tokens": 20,
        "system": [{"type": "text", "text": "Be short."}],
        "messages": ASK,
        "tools": [{"name": "f", "input_schema": {"type": "object"}}],
    },
    "/v1/messages/count_tokens": {"model": "llama-3-8b", "max_tokens": 20, "messages": ASK},
    "/v1/auctions": {"sla": {"quality": 0.5}, "input_tokens": 20, "max_output_tokens": 20},
    "/v1/outcomes": {"decision_id": "dec_unknown", "quality": 1.0, "source": "app"},
}


class Api:
    """The port, and a key to it."""

    def __init__(self, url: str, key: str, others_decision: str) -> None:
        self.url = url
        self.headers = {"Authorization": f"Bearer {key}"}
        self.others_decision = others_decision
        self.http = requests.Session()

    def post(self, path: str, body: bytes) -> requests.Response:
        headers = {**self.headers, "Content-Type": "application/json"}
        return self.http.post(self.url + path, data=body, headers=headers, timeout=30)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("fuzz")
    with rig_on_thread(
        folder, providers=SELLERS, models=MODELS, time_scale=0.001, most_chunks=2
    ) as market:
        gateway = market.gateway
        other = {"Authorization": f"Bearer {gateway.key('other')}"}
        body = {"model": "llama-3-8b", "messages": [{"role": "user", "content": SECRET}]}
        answer = requests.post(
            f"{gateway.url}/v1/chat/completions", json=body, headers=other, timeout=30
        )
        yield Api(gateway.url, gateway.key("mine"), answer.headers["x-broker-decision"])


def _judge(path: str, response: requests.Response, *, malformed: bool = False) -> None:
    """No 5xx, nobody else's words, and errors in the shape that the path's clients expect."""
    told = (path, response.request.body, response.status_code, response.text[:400])
    assert response.status_code < 500, told
    assert SECRET not in response.text, told
    assert not malformed or response.status_code >= 400, told
    if response.status_code < 400:
        return
    body = response.json()
    error = body["error"]
    assert isinstance(error["type"], str), told
    assert isinstance(error["message"], str), told
    assert (body.get("type") == "error") == path.startswith("/v1/messages"), told
    if not path.startswith("/v1/messages"):
        assert {"code", "param"} <= error.keys(), told


@pytest.mark.parametrize("path", FUZZED)
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_bodies_drawn_from_the_document(api: Api, path: str, mode: GenerationMode) -> None:
    method = "POST" if path in BODIES else "GET"
    operation = SCHEMA[path][method]

    @seed(7)
    @settings(QUICKLY, max_examples=10)
    @given(case=operation.as_strategy(generation_mode=mode))
    def hold(case: Any) -> None:
        _judge(path, case.call(base_url=api.url, headers=dict(api.headers), timeout=30))

    hold()


@pytest.mark.parametrize("path", GOOD)
def test_good_bodies_broken_anywhere(api: Api, path: str) -> None:
    good = GOOD[path]

    @seed(11)
    @QUICKLY
    @given(
        at=st.sampled_from(list(places(good))),
        new=JSON,
        added=st.dictionaries(st.text(max_size=8), JSON, max_size=1),
    )
    def hold(at: tuple[Any, ...], new: Any, added: dict[str, Any]) -> None:
        body = changed(good, at, new)
        if isinstance(body, dict):
            body = {**body, **added}
        _judge(path, api.post(path, json.dumps(body).encode()))

    hold()


@pytest.mark.parametrize("path", GOOD)
def test_bytes_that_are_no_json(api: Api, path: str) -> None:
    whole = json.dumps(GOOD[path]).encode()
    deep = b"[" * 100_000
    bombs = [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b'"text"',
        deep,
        b'{"a":' * 50_000,
        b'{"messages":' + deep,
        whole[:-1],
        whole + b"}",
        whole.replace(b'"', b"'"),
        b"\xef\xbb\xbf" + whole[:-3],
        whole[:-1] + b',"x":"\xff"}',
        b'{"model":"' + b"x" * 10_000 + b'"}',
    ]
    for bomb in bombs:
        _judge(path, api.post(path, bomb), malformed=True)


@pytest.mark.parametrize("path", GOOD)
def test_a_body_over_the_limit_is_413(api: Api, path: str) -> None:
    response = api.post(path, b'{"x":"' + b"y" * (1 << 20) + b'"}')
    assert response.status_code == 413
    _judge(path, response)


def test_nobody_elses_decision(api: Api) -> None:
    wanted = api.others_decision
    url = f"{api.url}/v1/decisions/{wanted}"
    response = api.http.get(url, headers=api.headers, timeout=30)
    assert response.status_code == 404
    line = json.dumps({"decision_id": wanted, "quality": 0.0}).encode()
    assert api.post("/v1/outcomes", line).status_code == 404


def test_the_document_is_served_and_names_every_route(api: Api) -> None:
    served = api.http.get(f"{api.url}/openapi.json", timeout=30).json()
    assert served == json.loads(json.dumps(document(ROUTES)))
    for method, path, _, _ in ROUTES:
        if path != "/" and not path.startswith("/page"):
            assert method.lower() in served["paths"][path]
    posts = {path for method, path, _, _ in ROUTES if method == "POST"}
    # Lines, lists and protobuf, told of in docs/telemetry.md and docs/asks.md.
    apart = {"/v1/telemetry", "/otlp/v1/traces", "/otlp/v1/metrics", "/v1/asks"}
    assert posts - BODIES.keys() == apart
