"""OpenTelemetry's GenAI spans and metrics, as calls told of. Pure: bytes in, lines out.

Follows the semantic conventions `gen_ai.*` of 2026 and what they renamed (`gen_ai.system`,
`gen_ai.usage.prompt_tokens`). A client span of an inference is a call. A histogram of durations is
many: each bucket's count becomes that many calls at the bucket's middle, of which a sample is kept
where there are very many; histograms must be deltas, since a sum since start tells of calls told of
before. Prompts and answers that spans may carry are not looked at.

References
----------
OTLP 1.10, OTLP/HTTP; GenAI semantic conventions, spans and metrics.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from bidding.outcome import FailureClass
from feeds.errors import BadRecord
from feeds.failure_words import failure_of
from feeds.told import TelemetryLine, Told

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"
MAX_CALLS_A_POINT: Final = 200
_DELTA: Final = 1
_CALLS: Final = frozenset({"chat", "text_completion", "generate_content", "embeddings"})
_DURATION: Final = frozenset({"gen_ai.client.operation.duration", "gen_ai.server.request.duration"})
_FIRST: Final = frozenset(
    {"gen_ai.client.operation.time_to_first_chunk", "gen_ai.server.time_to_first_token"}
)


def read_traces(body: bytes, content_type: str) -> Told:
    """The calls in an export of spans. Raises `BadRecord`."""
    request = _parsed(body, content_type, ExportTraceServiceRequest())
    told = Told(lines=[])
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                _take(told, _span(span))
    return told


def read_metrics(body: bytes, content_type: str) -> Told:
    """The calls in an export of metrics. Raises `BadRecord`."""
    request = _parsed(body, content_type, ExportMetricsServiceRequest())
    told = Told(lines=[])
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                if metric.name not in _DURATION | _FIRST or not metric.HasField("histogram"):
                    continue
                histogram = metric.histogram
                for point in histogram.data_points:
                    if histogram.aggregation_temporality != _DELTA:
                        told.n_rejected += 1
                        told.why = "histograms must be deltas: set the exporter's temporality"
                        continue
                    for said in _point(metric.name, metric.unit, point):
                        _take(told, said)
    return told


def answer(told: Told, content_type: str, kind: str, n_refused: int, why: str) -> bytes:
    """The export's response, saying how much was rejected; `kind` is `traces` or `metrics`."""
    n = told.n_rejected + n_refused
    words = "; ".join(w for w in (told.why, why) if w)[:500]
    response: Any
    if kind == "traces":
        response = ExportTraceServiceResponse()
        if n:
            response.partial_success.rejected_spans = n
    else:
        response = ExportMetricsServiceResponse()
        if n:
            response.partial_success.rejected_data_points = n
    if n:
        response.partial_success.error_message = words
    if content_type == JSON:
        return str(json_format.MessageToJson(response, indent=None)).encode()
    found: bytes = response.SerializeToString()
    return found


def _parsed(body: bytes, content_type: str, into: Message) -> Any:
    try:
        if content_type == JSON:
            json_format.Parse(body, into, ignore_unknown_fields=True, max_recursion_depth=64)
        else:
            into.ParseFromString(body)
    except (DecodeError, json_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        raise BadRecord(f"not an OTLP export: {str(error)[:200]}") from error
    except (ValueError, TypeError, AttributeError) as error:  # as json_format lets through
        raise BadRecord(f"not an OTLP export: {str(error)[:200]}") from error
    return into


def _take(told: Told, said: Mapping[str, Any] | None) -> None:
    if said is None:
        return
    try:
        told.lines.append(msgspec.convert(said, TelemetryLine))
    except msgspec.ValidationError as error:
        told.n_rejected += 1
        told.why = str(error)


def _attributes(pairs: Iterable[Any]) -> dict[str, Any]:
    """Attributes as plain values, what is no text or number left out."""
    found: dict[str, Any] = {}
    for pair in pairs:
        kind = pair.value.WhichOneof("value")
        if kind in ("string_value", "int_value", "double_value", "bool_value"):
            found[pair.key] = getattr(pair.value, kind)
    return found


def _span(span: Any) -> dict[str, Any] | None:
    said = _attributes(span.attributes)
    called = _called(said)
    if called is None:
        return None
    took_ms = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6
    status = _whole(said.get("http.response.status_code"))
    error = str(said.get("error.type", "")) or ("error" if span.status.code == 2 else "")
    failure = failure_of(error, status)
    first_s = said.get("gen_ai.response.time_to_first_chunk")
    ttft_ms = first_s * 1e3 if isinstance(first_s, int | float) else _first_event_ms(span)
    return called | {
        "at_us": span.end_time_unix_nano // 1_000,
        "error": failure.value,
        "ttft_ms": ttft_ms,
        "latency_ms": took_ms if failure is FailureClass.OK else None,
        "waited_ms": took_ms if failure is FailureClass.TIMEOUT_TOTAL else None,
        "input_tokens": _whole(
            said.get("gen_ai.usage.input_tokens", said.get("gen_ai.usage.prompt_tokens"))
        ),
        "output_tokens": _whole(
            said.get("gen_ai.usage.output_tokens", said.get("gen_ai.usage.completion_tokens"))
        ),
        "cached_tokens": _whole(said.get("gen_ai.usage.cache_read.input_tokens")),
        "streaming": bool(said.get("gen_ai.request.stream", ttft_ms is not None)),
        "http_status": status,
    }


def _first_event_ms(span: Any) -> float | None:
    """From the first event that marks a first token or chunk, as some instrumentations do."""
    for event in span.events:
        name = event.name.lower()
        if "first" in name and ("token" in name or "chunk" in name):
            return float((event.time_unix_nano - span.start_time_unix_nano) / 1e6)
    return None


def _point(name: str, unit: str, point: Any) -> list[dict[str, Any]]:
    said = _attributes(point.attributes)
    called = _called(said)
    if called is None or not point.count:
        return []
    scale = {"ms": 1.0, "us": 1e-3, "ns": 1e-6}.get(unit, 1e3)
    failure = failure_of(
        str(said.get("error.type", "")), _whole(said.get("http.response.status_code"))
    )
    bounds = list(point.explicit_bounds)
    counts = list(point.bucket_counts) or [point.count]
    keep = min(1.0, MAX_CALLS_A_POINT / sum(counts)) if sum(counts) else 0.0
    found: list[dict[str, Any]] = []
    owed = 0.0
    for i, count in enumerate(counts):
        owed += count * keep
        ms = _middle(i, bounds, point) * scale
        first = name in _FIRST
        line = called | {
            "at_us": point.time_unix_nano // 1_000,
            "error": failure.value,
            "ttft_ms": ms if first else None,
            "latency_ms": ms if not first and failure is FailureClass.OK else None,
            "waited_ms": ms if failure is FailureClass.TIMEOUT_TOTAL else None,
            "streaming": first,
        }
        n = math.floor(owed + 1e-9)
        owed -= n
        found += [line] * n
    return found


def _middle(i: int, bounds: list[float], point: Any) -> float:
    """A bucket's middle; of the outer ones the measured extremes, where they are told."""
    if not bounds:
        return float(point.sum / point.count)
    low = bounds[i - 1] if i else 0.0
    if i >= len(bounds):
        return float(max(point.max if point.HasField("max") else low, low))
    low = max(low, point.min) if point.HasField("min") and point.min <= bounds[i] else low
    high = min(bounds[i], point.max) if point.HasField("max") and point.max >= low else bounds[i]
    return float((low + high) / 2.0)


def _called(said: Mapping[str, Any]) -> dict[str, Any] | None:
    """Who was called; None where it was no inference."""
    operation = str(said.get("gen_ai.operation.name", "chat"))
    provider = said.get("gen_ai.provider.name", said.get("gen_ai.system", ""))
    model = said.get("gen_ai.request.model") or said.get("gen_ai.response.model") or ""
    offer = str(said.get("broker.offer", ""))
    if operation not in _CALLS or not (offer or (provider and model)):
        return None
    return {
        "offer": offer,
        "provider": str(provider),
        "model": str(model),
        "task": str(said.get("broker.task", "")),
    }


def _whole(value: Any) -> int:
    """A number of an attribute, whatever type it has; 0 where it is none."""
    try:
        return max(int(value), 0)
    except (TypeError, ValueError, OverflowError):
        return 0
