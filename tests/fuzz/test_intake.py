"""Whatever is pushed (telemetry lines, OTLP in either encoding, sellers' asks), the answer is a 4xx
with a cause, or a good one that counts what was taken and what was not: never a 5xx.
"""

from __future__ import annotations

import base64
import gzip
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf import json_format
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from broker.auth import new_key
from broker.config import GatewaySettings
from feeds.control_records import KeyPolicy
from feeds.otlp import JSON as OTLP_JSON
from feeds.otlp import PROTOBUF
from tests.fakes.rig_thread import rig_on_thread
from tests.fuzz.json_values import JSON, changed, places

OFFER = "groq/llama-3-8b"
SIGNER = Ed25519PrivateKey.from_private_bytes(b"7" * 32)
QUICKLY = settings(
    max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
EVENT: dict[str, Any] = {
    "offer": OFFER,
    "at_us": 1_700_000_000_000_000,
    "ttft_ms": 210.5,
    "latency_ms": 900,
    "input_tokens": 10,
    "output_tokens": 5,
}
ATTRIBUTES = [
    {"key": "gen_ai.provider.name", "value": {"stringValue": "groq"}},
    {"key": "gen_ai.request.model", "value": {"stringValue": "llama3-8b-8192"}},
    {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}},
    {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "321"}},
]
SPAN: dict[str, Any] = {
    "name": "chat",
    "startTimeUnixNano": "1700000000000000000",
    "endTimeUnixNano": "1700000001000000000",
    "attributes": ATTRIBUTES,
    "status": {},
}
TRACES: dict[str, Any] = {"resourceSpans": [{"resource": {}, "scopeSpans": [{"spans": [SPAN]}]}]}
POINT: dict[str, Any] = {
    "startTimeUnixNano": "1700000000000000000",
    "timeUnixNano": "1700000001000000000",
    "count": "3",
    "sum": 2.0,
    "bucketCounts": ["1", "2", "0"],
    "explicitBounds": [0.5, 1.0],
    "attributes": ATTRIBUTES,
}
METRIC: dict[str, Any] = {
    "name": "gen_ai.client.operation.duration",
    "unit": "s",
    "histogram": {"dataPoints": [POINT], "aggregationTemporality": 1},
}
METRICS: dict[str, Any] = {
    "resourceMetrics": [{"resource": {}, "scopeMetrics": [{"metrics": [METRIC]}]}]
}
EXPORTS = {
    "/otlp/v1/traces": (TRACES, ExportTraceServiceRequest, ExportTraceServiceResponse),
    "/otlp/v1/metrics": (METRICS, ExportMetricsServiceRequest, ExportMetricsServiceResponse),
}


class Intake:
    """The port, and keys of a source of telemetry and of a seller."""

    def __init__(self, url: str, source: str, seller: str) -> None:
        self.url = url
        self._source = source
        self._seller = seller
        self._http = requests.Session()

    def push(self, path: str, body: bytes, **headers: str) -> requests.Response:
        sent = {k.replace("_", "-"): v for k, v in headers.items()}
        return self._post(path, body, sent | {"Authorization": f"Bearer {self._source}"})

    def ask(self, body: bytes, signature: str | None = None) -> requests.Response:
        signed = base64.b64encode(SIGNER.sign(body)).decode() if signature is None else signature
        headers = {"Authorization": f"Bearer {self._seller}", "x-broker-signature": signed}
        return self._post("/v1/asks", body, headers)

    def _post(self, path: str, body: bytes, headers: dict[str, str]) -> requests.Response:
        response = self._http.post(self.url + path, data=body, headers=headers, timeout=30)
        told = (path, body[:400], response.status_code, response.text[:400])
        assert response.status_code < 500, told
        if response.status_code == 400 and response.headers["content-type"].startswith("text/"):
            # A body that came with its head and cannot be inflated: aiohttp's parser says so
            # before there is a request that we could answer.
            assert headers.get("content-encoding") in ("gzip", "deflate", "zstd"), told
        elif response.status_code >= 400:
            error = response.json()["error"]
            assert isinstance(error["message"], str), told
            assert {"type", "code", "param"} <= error.keys(), told
        return response


@pytest.fixture(scope="module")
def intake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Intake]:
    folder = tmp_path_factory.mktemp("intake")
    # A stream that never ends as its encoding has it is waited for as long as any body.
    soon = {"gateway": GatewaySettings(body_timeout_s=0.3)}
    with rig_on_thread(folder, providers=("groq",), time_scale=0.001, settings=soon) as market:
        keys = market.gateway.market.keys
        policy = KeyPolicy(source="acme-eu", trust=0.4)
        source, held = new_key("acme", ("telemetry",), at_us=1, by="t", policy=policy)
        keys.apply(held)
        public = base64.b64encode(SIGNER.public_key().public_bytes_raw()).decode()
        policy = KeyPolicy(models=("groq",), public_key=public)
        seller, held = new_key("seller", ("seller",), at_us=1, by="t", policy=policy)
        keys.apply(held)
        yield Intake(market.gateway.url, source, seller)


def _n_lines(body: bytes) -> int:
    return sum(bool(line.strip()) for line in body.split(b"\n"))


def _counted(response: requests.Response, n_lines: int) -> None:
    """A 202 counts each line once, and tells why of those refused."""
    if response.status_code != 202:
        return
    told = response.json()
    assert set(told) == {"accepted", "refused", "errors"}
    assert told["accepted"] + told["refused"] == n_lines, told
    assert min(told["accepted"], told["refused"]) >= 0
    assert bool(told["errors"]) == bool(told["refused"]), told


def test_telemetry_lines_broken_anywhere(intake: Intake) -> None:
    @seed(3)
    @QUICKLY
    @given(
        at=st.sampled_from(list(places(EVENT))),
        new=JSON,
        added=st.dictionaries(st.text(max_size=8), JSON, max_size=1),
        before=st.integers(0, 2),
    )
    def hold(at: tuple[Any, ...], new: Any, added: dict[str, Any], before: int) -> None:
        event = changed(EVENT, at, new)
        if isinstance(event, dict):
            event = {**event, **added}
        lines = [json.dumps(EVENT)] * before + [json.dumps(event)]
        body = "\n".join(lines).encode()
        _counted(intake.push("/v1/telemetry", body), len(lines))

    hold()


def test_telemetry_of_any_bytes(intake: Intake) -> None:
    @seed(4)
    @QUICKLY
    @given(
        pieces=st.lists(
            st.binary(max_size=60)
            | st.sampled_from([b"\n", b"[" * 5_000, b'{"a":' * 5_000, b"null", b"\xff", b"\r\n"]),
            max_size=5,
        ),
        encoding=st.sampled_from(["", "gzip", "zstd", "deflate", "nonsense"]),
        honest=st.booleans(),
    )
    def hold(pieces: list[bytes], encoding: str, honest: bool) -> None:
        body = b"\n".join(pieces)
        sent = gzip.compress(body) if encoding == "gzip" and honest else body
        # Each on a connection of its own: aiohttp closes after a body that it could not inflate.
        headers = {"content_encoding": encoding, "connection": "close"} if encoding else {}
        response = intake.push("/v1/telemetry", sent, **headers)
        if not encoding or sent is not body:
            _counted(response, _n_lines(body))

    hold()


@pytest.mark.parametrize("path", EXPORTS)
@pytest.mark.parametrize("encoding", [OTLP_JSON, PROTOBUF])
def test_exports_broken_anywhere(intake: Intake, path: str, encoding: str) -> None:
    good, request, answer = EXPORTS[path]

    @seed(5)
    @QUICKLY
    @given(at=st.sampled_from(list(places(good))), new=JSON)
    def hold(at: tuple[Any, ...], new: Any) -> None:
        told = changed(good, at, new)
        body = json.dumps(told).encode()
        if encoding == PROTOBUF:
            message = request()
            try:
                json_format.Parse(body, message)
            except (json_format.ParseError, RecursionError):
                return
            body = message.SerializeToString()
        _exported(intake.push(path, body, content_type=encoding), encoding, answer)

    hold()


@pytest.mark.parametrize("path", EXPORTS)
def test_exports_of_any_bytes(intake: Intake, path: str) -> None:
    good, request, answer = EXPORTS[path]
    message = request()
    json_format.ParseDict(good, message)
    whole = message.SerializeToString()

    @seed(6)
    @QUICKLY
    @given(
        noise=st.binary(min_size=1, max_size=20),
        at=st.integers(0, len(whole)),
        cut=st.integers(0, 30),
        encoding=st.sampled_from([OTLP_JSON, PROTOBUF, "text/plain", ""]),
    )
    def hold(noise: bytes, at: int, cut: int, encoding: str) -> None:
        body = whole[:at] + noise + whole[at + cut :]
        response = intake.push(path, body, content_type=encoding)
        _exported(response, encoding, answer)
        assert encoding in (OTLP_JSON, PROTOBUF) or response.status_code >= 400

    hold()


def _exported(response: requests.Response, encoding: str, answer: Any) -> None:
    """What is taken is answered in the encoding asked in, as OTLP has it."""
    if response.status_code >= 400:
        return
    assert response.headers["content-type"].startswith(encoding)
    told = answer()
    if encoding == PROTOBUF:
        told.ParseFromString(response.content)
    else:
        json_format.Parse(response.content, told)
    for field, n in told.partial_success.ListFields():
        if field.name.startswith("rejected"):
            assert n > 0


def test_asks_broken_anywhere(intake: Intake) -> None:
    now_us = time.time_ns() // 1_000
    good = {
        "offer": OFFER,
        "at_us": now_us,
        "until_us": now_us + 3_600_000_000,
        "from_us": now_us,
        "capacity_tokens": 1_000_000,
        "prices": {"input_usd_per_mtok": 0.001, "output_usd_per_mtok": 0.001},
    }
    assert intake.ask(json.dumps(good).encode()).status_code == 202

    @seed(8)
    @QUICKLY
    @given(
        at=st.sampled_from(list(places(good))),
        new=JSON,
        added=st.dictionaries(st.text(max_size=8), JSON, max_size=1),
        signature=st.none() | st.text(st.characters(codec="ascii", exclude_categories=["C"])),
    )
    def hold(at: tuple[Any, ...], new: Any, added: dict[str, Any], signature: str | None) -> None:
        body = changed(good, at, new)
        if isinstance(body, dict):
            body = {**body, **added}
        response = intake.ask(json.dumps(body).encode(), signature)
        assert signature is None or response.status_code >= 400
        if response.status_code < 400:
            assert set(response.json()) == {"ask_id", "offer", "until_us"}

    hold()
    for bomb in (b"", b"null", b"[" * 9_000, b'{"a":' * 2_000, b"\xff", b"x" * 20_000):
        assert intake.ask(bomb).status_code >= 400
