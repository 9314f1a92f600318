"""A collector on loopback: takes OTLP/HTTP as an OpenTelemetry Collector does, and decodes it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


def value_of(value: Any) -> Any:
    """An AnyValue as a plain one."""
    kind = value.WhichOneof("value")
    return None if kind is None else getattr(value, kind)


def plain(attributes: Any) -> dict[str, Any]:
    return {a.key: value_of(a.value) for a in attributes}


class Receiver:
    """What came: spans with their attributes, metric points by name, and the bytes themselves."""

    def __init__(self) -> None:
        self.url = ""
        self.raw: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.spans: list[Any] = []
        self.resources: list[dict[str, Any]] = []
        self.points: dict[str, list[Any]] = {}
        self.units: dict[str, str] = {}

    async def traces(self, request: web.Request) -> web.Response:
        export = ExportTraceServiceRequest.FromString(await self._body(request))
        for resource in export.resource_spans:
            self.resources.append(plain(resource.resource.attributes))
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return _protobuf(ExportTraceServiceResponse())

    async def metrics(self, request: web.Request) -> web.Response:
        export = ExportMetricsServiceRequest.FromString(await self._body(request))
        for resource in export.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    self.units[metric.name] = metric.unit
                    data = getattr(metric, metric.WhichOneof("data"))
                    self.points[metric.name] = list(data.data_points)
        return _protobuf(ExportMetricsServiceResponse())

    async def _body(self, request: web.Request) -> bytes:
        assert request.content_type == "application/x-protobuf"
        body = await request.read()
        self.raw.append(body)
        self.headers.append(dict(request.headers))
        return body


def _protobuf(message: Any) -> web.Response:
    return web.Response(body=message.SerializeToString(), content_type="application/x-protobuf")


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver that listens."""
    made = Receiver()
    app = web.Application()
    app.router.add_post("/v1/traces", made.traces)
    app.router.add_post("/v1/metrics", made.metrics)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()
