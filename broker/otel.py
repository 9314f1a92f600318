"""Traces and metrics over OTLP/HTTP, in OpenTelemetry's words for generative AI.

Imported only where `[otel] endpoint` is set; needs the extra `[otel]`. One trace a request: the
app's span (if it sent a `traceparent`), ours, the auction's, and one per call at a seller, which
gets it as its parent. Spans and points are made on the loop and sent by the SDK's own threads; a
collector that is away costs a request nothing, and what does not fit in the SDK's queue is dropped.

Names come from the installed conventions package; ours begin with `broker.`. The counters and
gauges of `metrics` go out as well, under the same names as at `/metrics`.

References
----------
https://opentelemetry.io/docs/specs/semconv/gen-ai/ (spans and metrics)
https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import CallbackOptions, Histogram, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as gen_ai
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.semconv.attributes import (
    error_attributes,
    http_attributes,
    server_attributes,
)
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import CollectorRegistry

from bidding.errors import MarketError
from bidding.outcome import FailureClass
from broker.error_answers import answer_for
from broker.providers.base import Seat
from broker.tracing import CallTrace, OtelSettings
from broker.wire.neutral import NeutralRequest
from feeds.records import AttemptRecord, DecisionRecord

#: Our providers by the conventions' own names, where they have one; others go by ours.
PROVIDER_NAMES: Final[dict[str, str]] = {
    "aws": gen_ai.GenAiProviderNameValues.AWS_BEDROCK.value,
    "azure": gen_ai.GenAiProviderNameValues.AZURE_AI_OPENAI.value,
    "azure-v1": gen_ai.GenAiProviderNameValues.AZURE_AI_OPENAI.value,
    "gemini": gen_ai.GenAiProviderNameValues.GCP_GEMINI.value,
    "google": gen_ai.GenAiProviderNameValues.GCP_VERTEX_AI.value,
    "mistral": gen_ai.GenAiProviderNameValues.MISTRAL_AI.value,
    "xai": gen_ai.GenAiProviderNameValues.X_AI.value,
}
#: Bounds that the conventions advise.
_SECONDS: Final = tuple(0.01 * 2**i for i in range(14))
_TOKENS: Final = tuple(float(4**i) for i in range(14))
_LONGEST_NAME: Final = 100
_NO_FAULT: Final = frozenset({FailureClass.CANCELLED, FailureClass.HEDGE_LOST})
_W3C: Final = TraceContextTextMapPropagator()


class Otel:
    """The SDK's providers for one process, and the instruments."""

    def __init__(
        self,
        settings: OtelSettings,
        registry: CollectorRegistry,
        *,
        instance: str,
        refresh: Callable[[], None] = lambda: None,
    ) -> None:
        self.propagate = settings.propagate
        self._closed = False
        resource = Resource.create(
            {"service.name": settings.service_name, "service.instance.id": instance}
        )
        way: dict[str, Any] = {"headers": settings.headers, "timeout": settings.timeout_s}
        base = settings.endpoint.rstrip("/")
        self._tracers = TracerProvider(
            resource=resource,
            sampler=ParentBased(TraceIdRatioBased(settings.traces_share)),
            shutdown_on_exit=False,
        )
        self._tracers.add_span_processor(
            BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{base}/v1/traces", **way))
        )
        self._meters = MeterProvider(
            resource=resource,
            metric_readers=[
                PeriodicExportingMetricReader(
                    OTLPMetricExporter(endpoint=f"{base}/v1/metrics", **way),
                    export_interval_millis=settings.metrics_interval_s * 1e3,
                    export_timeout_millis=settings.timeout_s * 1e3,
                )
            ],
            shutdown_on_exit=False,
        )
        self.tracer = self._tracers.get_tracer("broker")
        meter = self._meters.get_meter("broker")

        def histogram(name: str, unit: str, what: str, bounds: tuple[float, ...]) -> Histogram:
            return meter.create_histogram(
                name, unit=unit, description=what, explicit_bucket_boundaries_advisory=bounds
            )

        self.call_seconds = histogram(
            gen_ai_metrics.GEN_AI_CLIENT_OPERATION_DURATION, "s", "Calls at sellers.", _SECONDS
        )
        self.first_chunk_seconds = histogram(
            gen_ai_metrics.GEN_AI_CLIENT_OPERATION_TIME_TO_FIRST_CHUNK,
            "s",
            "Calls at sellers, to the first piece of the answer.",
            _SECONDS,
        )
        self.tokens = histogram(
            gen_ai_metrics.GEN_AI_CLIENT_TOKEN_USAGE, "{token}", "Tokens billed.", _TOKENS
        )
        self.request_seconds = histogram(
            gen_ai_metrics.GEN_AI_SERVER_REQUEST_DURATION, "s", "Apps' requests.", _SECONDS
        )
        _bridge(meter, registry, refresh)

    def request(self, headers: Mapping[str, str], route: str) -> _Request:
        """A request's trace, a child of the app's if `headers` name it."""
        lower = {name.lower(): value for name, value in headers.items()}
        context = _W3C.extract(lower)
        span = self.tracer.start_span(f"POST {route}", context=context, kind=SpanKind.SERVER)
        return _Request(self, span, route)

    def close(self) -> None:
        """Send what is owed and end the SDK's threads. A second time does nothing."""
        if self._closed:
            return
        self._closed = True
        self._tracers.shutdown()
        self._meters.shutdown()


class _Request:
    """One request; a context manager around serving it."""

    def __init__(self, otel: Otel, span: Span, route: str) -> None:
        self._otel = otel
        self._span = span
        self._inside = set_span_in_context(span)
        self._began_ns = time.time_ns()
        self._labels: dict[str, Any] = {gen_ai.GEN_AI_OPERATION_NAME: "chat"}
        span.set_attributes({http_attributes.HTTP_ROUTE: route})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, MarketError):
            answer = answer_for(error)
            self.answered(answer.status)
            self._failed(answer.code)
        elif error is not None:
            self._failed(type(error).__name__)
        took_s = (time.time_ns() - self._began_ns) * 1e-9
        self._otel.request_seconds.record(took_s, self._labels)
        self._span.end()

    def decided(self, request: NeutralRequest, record: DecisionRecord, took_ns: int) -> None:
        operation = "chat" if request.embedding is None else "embeddings"
        self._labels = {
            gen_ai.GEN_AI_OPERATION_NAME: operation,
            "broker.task": record.task,
        }
        if not self._span.is_recording():
            return
        self._span.update_name(f"{operation} {request.model[:_LONGEST_NAME]}")
        self._span.set_attributes(
            {
                **self._labels,
                gen_ai.GEN_AI_REQUEST_MODEL: request.model,
                gen_ai.GEN_AI_REQUEST_STREAM: request.stream,
                "broker.decision_id": record.decision_id,
                "broker.sla_class": record.sla_class,
            }
        )
        auction = self._otel.tracer.start_span(
            "auction", context=self._inside, start_time=self._began_ns
        )
        auction.set_attributes(
            {
                "broker.winner": record.winner or "",
                "broker.n_bids": record.n_bids,
                "broker.n_turned_away": sum(record.no_bids.values()),
                "broker.policy": record.policy,
                "broker.params_version": record.params_version,
                "broker.view_number": record.view_number,
                "broker.feasible": record.feasible,
            }
        )
        auction.end(self._began_ns + took_ns)

    def call(self, seat: Seat, n: int, *, hedge: bool) -> CallTrace:
        operation = self._labels[gen_ai.GEN_AI_OPERATION_NAME]
        labels = {
            gen_ai.GEN_AI_OPERATION_NAME: operation,
            gen_ai.GEN_AI_PROVIDER_NAME: provider_name(seat.provider.id),
            gen_ai.GEN_AI_REQUEST_MODEL: seat.offer.model,
            **_address(seat.provider.base_url),
        }
        span = self._otel.tracer.start_span(
            f"{operation} {seat.offer.model}", context=self._inside, kind=SpanKind.CLIENT
        )
        span.set_attributes(
            {**labels, "broker.offer": seat.offer.id, "broker.attempt": n, "broker.hedge": hedge}
        )
        return _Call(self._otel, span, labels)

    def settled(self, record: DecisionRecord) -> None:
        self._span.set_attributes(
            {
                "broker.offer": record.delivered_offer or "",
                "broker.n_attempts": record.n_attempts,
                "broker.cost_usd": record.cost_nusd * 1e-9,
                gen_ai.GEN_AI_RESPONSE_MODEL: record.delivered_model or "",
                gen_ai.GEN_AI_USAGE_INPUT_TOKENS: record.input_tokens_billed,
                gen_ai.GEN_AI_USAGE_OUTPUT_TOKENS: record.output_tokens,
            }
        )
        if record.on_time is not None:
            self._span.set_attribute("broker.on_time", record.on_time)

    def answered(self, status: int) -> None:
        self._span.set_attribute(http_attributes.HTTP_RESPONSE_STATUS_CODE, status)

    def _failed(self, kind: str) -> None:
        self._labels = {**self._labels, error_attributes.ERROR_TYPE: kind}
        self._span.set_attribute(error_attributes.ERROR_TYPE, kind)
        self._span.set_status(Status(StatusCode.ERROR))


class _Call:
    """One call at one seller."""

    def __init__(self, otel: Otel, span: Span, labels: dict[str, Any]) -> None:
        self._otel = otel
        self._span = span
        self._labels = labels
        self._began_ns = time.time_ns()

    def inject(self, headers: dict[str, str]) -> None:
        if self._otel.propagate:
            _W3C.inject(headers, context=set_span_in_context(self._span))

    def end(self, record: AttemptRecord) -> None:
        labels = self._labels
        if record.failure is not FailureClass.OK:
            labels = {**labels, error_attributes.ERROR_TYPE: str(record.failure)}
            self._span.set_attribute(error_attributes.ERROR_TYPE, str(record.failure))
            if record.failure not in _NO_FAULT:
                self._span.set_status(Status(StatusCode.ERROR))
        otel = self._otel
        otel.call_seconds.record((time.time_ns() - self._began_ns) * 1e-9, labels)
        if record.ttft_ms is not None:
            otel.first_chunk_seconds.record(record.ttft_ms * 1e-3, labels)
        if record.input_tokens:
            kind = gen_ai.GEN_AI_TOKEN_TYPE
            otel.tokens.record(record.input_tokens, {**self._labels, kind: "input"})
            otel.tokens.record(record.output_tokens, {**self._labels, kind: "output"})
        if self._span.is_recording():
            self._span.set_attributes(
                {
                    gen_ai.GEN_AI_USAGE_INPUT_TOKENS: record.input_tokens,
                    gen_ai.GEN_AI_USAGE_OUTPUT_TOKENS: record.output_tokens,
                    gen_ai.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: record.cached_tokens,
                    "broker.cost_usd": record.cost_nusd * 1e-9,
                }
            )
            if record.http_status:
                self._span.set_attribute(
                    http_attributes.HTTP_RESPONSE_STATUS_CODE, record.http_status
                )
            if record.ttft_ms is not None:
                self._span.set_attribute(
                    gen_ai.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK, record.ttft_ms * 1e-3
                )
        self._span.end()


def provider_name(provider: str) -> str:
    """A provider as the conventions call it.

    Examples
    --------
    >>> provider_name("aws"), provider_name("groq")
    ('aws.bedrock', 'groq')
    """
    return PROVIDER_NAMES.get(provider, provider)


@lru_cache(maxsize=1024)
def _address(base_url: str) -> dict[str, Any]:
    parts = urlsplit(base_url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return {
        server_attributes.SERVER_ADDRESS: parts.hostname or "",
        server_attributes.SERVER_PORT: port,
    }


def _bridge(meter: Any, registry: CollectorRegistry, refresh: Callable[[], None]) -> None:
    """Every counter and gauge of the registry as an observable instrument of the same name."""

    def reading(sample_name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def read(_: CallbackOptions) -> Iterable[Observation]:
            refresh()
            families = registry.restricted_registry([sample_name]).collect()
            return [
                Observation(sample.value, dict(sample.labels))
                for family in families
                for sample in family.samples
                if sample.name == sample_name
            ]

        return read

    for family in registry.collect():
        if family.type == "counter":
            name = f"{family.name}_total"
            meter.create_observable_counter(name, [reading(name)], description=family.documentation)
        elif family.type == "gauge":
            meter.create_observable_gauge(
                family.name, [reading(family.name)], description=family.documentation
            )
