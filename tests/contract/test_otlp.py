"""OpenTelemetry's own SDK exporting GenAI spans and metrics to a real gateway."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode

from bidding.outcome import FailureClass
from broker.offer_names import OfferNames
from feeds.errors import BadRecord
from feeds.failure_words import failure_of
from feeds.otlp import JSON, PROTOBUF, read_metrics, read_traces
from feeds.records import AttemptRecord, DeadRecord
from tests.contract.test_telemetry import source_key
from tests.fakes.gateway_rig import Rig, rig

GROQ = {"gen_ai.provider.name": "groq", "gen_ai.request.model": "llama3-8b-8192"}


def export_spans(url: str, key: str) -> None:
    """What an instrumented app does: three calls, one of which was rate limited."""
    exporter = OTLPSpanExporter(
        endpoint=f"{url}/otlp/v1/traces", headers={"Authorization": f"Bearer {key}"}
    )
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("app")
    with tracer.start_as_current_span("chat llama3-8b-8192", kind=SpanKind.CLIENT) as span:
        span.set_attributes(
            GROQ
            | {
                "gen_ai.operation.name": "chat",
                "gen_ai.usage.input_tokens": 321,
                "gen_ai.usage.output_tokens": 45,
                "gen_ai.usage.cache_read.input_tokens": 100,
                "gen_ai.response.time_to_first_chunk": 0.25,
                "gen_ai.input.messages": "a secret prompt",
            }
        )
    with tracer.start_as_current_span("chat old") as span:
        span.set_attributes(
            {
                "gen_ai.system": "groq",
                "gen_ai.request.model": "llama-3-8b",
                "gen_ai.usage.prompt_tokens": 7,
            }
        )
    with tracer.start_as_current_span("chat limited") as span:
        span.set_attributes(GROQ | {"error.type": "openai.RateLimitError"})
        span.set_status(StatusCode.ERROR)
    with tracer.start_as_current_span("execute_tool") as span:
        span.set_attributes(GROQ | {"gen_ai.operation.name": "execute_tool"})
    with tracer.start_as_current_span("GET /"):
        pass
    with tracer.start_as_current_span("chat elsewhere") as span:
        span.set_attributes({"gen_ai.provider.name": "groq", "gen_ai.request.model": "unknown"})
    provider.shutdown()


def export_metrics(url: str, key: str, temporality: AggregationTemporality) -> None:
    exporter = OTLPMetricExporter(
        endpoint=f"{url}/otlp/v1/metrics",
        headers={"Authorization": f"Bearer {key}"},
        preferred_temporality={Histogram: temporality},
    )
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
    provider = MeterProvider(metric_readers=[reader])
    meter = provider.get_meter("app")
    took = meter.create_histogram("gen_ai.client.operation.duration", unit="s")
    first = meter.create_histogram("gen_ai.server.time_to_first_token", unit="s")
    tokens = meter.create_histogram("gen_ai.client.token.usage", unit="{token}")
    for i in range(20):
        took.record(0.8 + i / 100, GROQ | {"gen_ai.operation.name": "chat"})
        first.record(0.2, GROQ | {"gen_ai.operation.name": "chat"})
        tokens.record(100, GROQ)
    for _ in range(3):
        took.record(0.1, GROQ | {"error.type": "503"})
    provider.shutdown()


async def test_spans_of_the_real_sdk_become_attempts(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        await asyncio.to_thread(export_spans, r.gateway.url, source_key(r.gateway))
        found = await r.gateway.written(AttemptRecord)
        assert [a.offer for a in found] == ["groq/llama-3-8b"] * 3
        whole, old, limited = found
        assert (whole.input_tokens, whole.output_tokens, whole.cached_tokens) == (321, 45, 100)
        assert (whole.ttft_ms, whole.streaming, whole.failure) == (250.0, True, "ok")
        assert whole.total_ms is not None
        assert (old.input_tokens, old.ttft_ms) == (7, None)
        assert limited.failure is FailureClass.RATE_LIMITED
        assert {a.pusher for a in found} == {"acme-eu"}
        dead = await r.gateway.written(DeadRecord)
        assert len(dead) == 1
        assert b"secret" not in b"".join(d.payload for d in dead)


async def test_delta_histograms_become_calls_and_sums_since_start_are_refused(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as r:
        key, url = source_key(r.gateway), r.gateway.url
        await asyncio.to_thread(export_metrics, url, key, AggregationTemporality.DELTA)
        found = await r.gateway.written(AttemptRecord)
        took = [a for a in found if a.total_ms is not None]
        first = [a for a in found if a.ttft_ms is not None]
        failed = [a for a in found if a.failure is not FailureClass.OK]
        assert (len(took), len(first), len(failed)) == (20, 20, 3)
        assert all(700 < (a.total_ms or 0) < 1_100 for a in took)
        assert {f.failure for f in failed} == {FailureClass.OVERLOADED}
        await asyncio.to_thread(export_metrics, url, key, AggregationTemporality.CUMULATIVE)
        assert len(await r.gateway.written(AttemptRecord)) == len(found)


async def post(r: Rig, key: str, kind: str, body: bytes, content_type: str) -> tuple[int, bytes]:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": content_type}
    url = f"{r.gateway.url}/otlp/v1/{kind}"
    async with r.http.post(url, data=body, headers=headers) as response:
        return response.status, await response.read()


def a_span(**attributes: Any) -> dict[str, Any]:
    now_ns = 1_790_000_000_000_000_000
    pairs = [{"key": k, "value": {"stringValue": v}} for k, v in attributes.items()]
    span = {
        "startTimeUnixNano": str(now_ns),
        "endTimeUnixNano": str(now_ns + 9),
        "attributes": pairs,
    }
    return {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}


async def test_json_is_taken_too_and_refusals_are_told_as_partial_success(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        key = source_key(r.gateway)
        old = json.dumps(a_span(**GROQ)).encode()
        status, answered = await post(r, key, "traces", old, JSON)
        told = json.loads(answered)
        assert (status, told["partialSuccess"]["rejectedSpans"]) == (200, "1")
        assert "at_us" in told["partialSuccess"]["errorMessage"]
        packed = json_format.Parse(old, ExportTraceServiceRequest()).SerializeToString()
        status, answered = await post(r, key, "traces", packed, PROTOBUF)
        assert ExportTraceServiceResponse.FromString(answered).partial_success.rejected_spans == 1
        empty = ExportMetricsServiceRequest().SerializeToString()
        status, answered = await post(r, key, "metrics", empty, PROTOBUF)
        assert status == 200
        assert not ExportMetricsServiceResponse.FromString(answered).HasField("partial_success")
        assert (await post(r, key, "traces", b"\xff\xff", PROTOBUF))[0] == 400
        assert (await post(r, key, "traces", b"{", JSON))[0] == 400
        assert (await post(r, key, "traces", b"{}", "text/plain"))[0] == 400
        assert (await post(r, r.gateway.key(), "traces", b"{}", JSON))[0] == 403
        assert len(await r.gateway.written(DeadRecord)) == 4


@pytest.mark.parametrize("read", [read_traces, read_metrics])
@pytest.mark.parametrize(
    "body",
    [b"\x00", b"\xff" * 100, b"[]", b"null", b"{" * 5_000, b'{"resourceSpans": 3}', b"\x80abc"],
)
def test_what_is_no_export_is_a_bad_record(read: Any, body: bytes) -> None:
    for content_type in (PROTOBUF, JSON):
        try:
            told = read(body, content_type)
        except BadRecord:
            continue
        assert told.lines == []


def test_failures_are_known_by_type_and_status() -> None:
    assert failure_of("", 200) is FailureClass.OK
    assert failure_of("timeout", 0) is FailureClass.TIMEOUT_TOTAL
    assert failure_of("java.net.ConnectException", 0) is FailureClass.CONNECT
    assert failure_of("429", 0) is FailureClass.RATE_LIMITED
    assert failure_of("whatever", 500) is FailureClass.SERVER_ERROR
    assert failure_of("ThrottlingException", 0) is FailureClass.RATE_LIMITED


async def test_offers_are_found_by_the_names_that_others_use(tmp_path: Path) -> None:
    async with rig(tmp_path, providers=("aws", "gemini", "azure", "groq"), models=None) as r:
        catalogue = r.gateway.market.catalogue
        names = OfferNames(catalogue)
        for offer in catalogue.offers:
            assert names.find(offer.provider, offer.wire_model) is not None
            assert names.find(offer.provider.upper(), f"{offer.provider}/{offer.model}") is not None
        assert names.find("gcp.gemini", "gemini-1.5-flash") == "gemini/gemini-1.5-flash"
        assert names.find("azure.ai.openai", "gpt-4o") == "azure/gpt-4o"
        assert names.find("nobody", "gpt-4o") is None
