"""Traces and metrics over OTLP/HTTP: one trace from app to seller, in the conventions' words."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics

from broker.config import Settings, load, masked
from broker.otel import Otel
from broker.paper.faults import Fault, FaultSpec
from broker.tracing import OtelSettings
from tests.fakes.gateway_rig import Rig, rig
from tests.fakes.otlp_receiver import Receiver, plain, receiver

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
APP_SPAN = "00f067aa0ba902b7"
SECRET = "the owl of minerva and sk-very-secret"
SERVER, CLIENT, INTERNAL = 2, 3, 1
OK, ERROR = 0, 2


@pytest.fixture
async def collector() -> AsyncIterator[Receiver]:
    async with receiver() as made:
        yield made


@pytest.fixture
async def traced(tmp_path: Path, collector: Receiver) -> AsyncIterator[tuple[Rig, Otel]]:
    async with rig(tmp_path, providers=("groq", "novita")) as r:
        settings = OtelSettings(endpoint=collector.url, headers={"x-key": "k"})
        state = r.gateway.state
        otel = Otel(
            settings,
            state.metrics.registry,
            instance="gw-0",
            refresh=state.journal.update_gauges,
        )
        state.tracing = otel
        yield r, otel
        await asyncio.to_thread(otel.close)


def by_kind(collector: Receiver, kind: int) -> list[Any]:
    found = [s for s in collector.spans if s.kind == kind]
    return sorted(found, key=lambda s: s.start_time_unix_nano)


async def test_one_trace_from_app_to_seller(traced: tuple[Rig, Otel], collector: Receiver) -> None:
    r, otel = traced
    r.gateway.learn(groq=50.0, novita=400.0)
    # The first choice fails, the runner-up answers: two calls in one trace.
    view = await r.ask(r.gateway.key(), "warm up, untraced by the app")
    first = view.headers["x-broker-offer"].split("/")[0]
    await r.paper.set_faults(first, [FaultSpec(kind=Fault.ERROR)])
    reply = await r.ask(
        r.gateway.key(),
        SECRET,
        headers={"traceparent": f"00-{TRACE}-{APP_SPAN}-01"},
        max_tokens=40,
    )
    assert reply.status == 200
    await asyncio.to_thread(otel.close)

    spans = [s for s in collector.spans if s.trace_id.hex() == TRACE]
    (server,) = [s for s in spans if s.kind == SERVER]
    (auction,) = [s for s in spans if s.kind == INTERNAL]
    calls = sorted((s for s in spans if s.kind == CLIENT), key=lambda s: s.start_time_unix_nano)
    assert server.parent_span_id.hex() == APP_SPAN
    assert len(calls) == int(reply.headers["x-broker-attempts"]) == 2
    assert {s.parent_span_id for s in (auction, *calls)} == {server.span_id}
    told = plain(server.attributes)
    assert server.name == "chat market"
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.request.model"] == "market"
    assert told["http.route"] == "/v1/chat/completions"
    assert told["http.response.status_code"] == 200
    assert told["broker.decision_id"] == reply.headers["x-broker-decision"]
    assert told["broker.offer"] == reply.headers["x-broker-offer"]
    assert told["gen_ai.usage.output_tokens"] == reply.body["usage"]["completion_tokens"]
    assert server.status.code == OK
    assert plain(auction.attributes)["broker.winner"].startswith(f"{first}/")
    failed, good = (plain(s.attributes) for s in calls)
    assert failed["error.type"] == "overloaded"
    assert [s.status.code for s in calls] == [ERROR, OK]
    assert good["gen_ai.provider.name"] == reply.headers["x-broker-offer"].split("/")[0]
    assert good["gen_ai.request.model"] == "llama-3-8b"
    assert good["server.address"] == "127.0.0.1"
    assert good["gen_ai.response.time_to_first_chunk"] > 0
    assert good["broker.attempt"] == 2
    # Every seller was told its own call's span.
    for call in calls:
        provider = plain(call.attributes)["gen_ai.provider.name"]
        at_seller = r.paper.sellers[provider].ledger.calls()[-1].buyer_ids["traceparent"]
        assert at_seller == f"00-{TRACE}-{call.span_id.hex()}-01"
    # A request with no trace of its own begins one, and its sellers are in it.
    others = [s for s in collector.spans if s.trace_id.hex() != TRACE]
    assert {s.kind for s in others} == {SERVER, INTERNAL, CLIENT}
    assert len({s.trace_id for s in others}) == 1
    # Ids, names, counts and times; no prompt, no answer, no key.
    sent = b"".join(collector.raw)
    assert SECRET.encode() not in sent
    assert reply.body["choices"][0]["message"]["content"].encode() not in sent
    assert r.paper.api_key.encode() not in sent
    assert all(h["x-key"] == "k" for h in collector.headers)
    assert collector.resources[0]["service.name"] == "model-market-broker"
    assert collector.resources[0]["service.instance.id"] == "gw-0"


async def test_streams_refusals_and_metrics(traced: tuple[Rig, Otel], collector: Receiver) -> None:
    r, otel = traced
    key = r.gateway.key()
    assert (await r.ask(key, stream=True)).status == 200
    assert (await r.ask(key, model="no-such-model")).status == 404
    assert (await r.ask(key, max_tokens=-1)).status == 400
    await asyncio.to_thread(otel.close)
    served = [plain(s.attributes) for s in by_kind(collector, SERVER)]
    assert [s["http.response.status_code"] for s in served] == [200, 404, 400]
    assert served[0]["gen_ai.request.stream"] is True
    assert [s.status.code for s in by_kind(collector, SERVER)] == [OK, ERROR, ERROR]
    assert served[2]["error.type"]
    points = collector.points
    (call,) = points["gen_ai.client.operation.duration"]
    assert call.count == 1
    assert plain(call.attributes)["gen_ai.operation.name"] == "chat"
    assert len(call.explicit_bounds) == 14
    tokens = {
        plain(p.attributes)["gen_ai.token.type"]: p for p in points["gen_ai.client.token.usage"]
    }
    assert tokens["output"].sum > 0
    assert sum(p.count for p in points["gen_ai.server.request.duration"]) == 3
    assert collector.units["gen_ai.client.operation.duration"] == "s"
    # The counters and gauges of /metrics, by the same names.
    text = r.gateway.state.metrics.exposition().decode()
    (spent,) = points["broker_spend_usd_total"]
    provider = plain(spent.attributes)["provider"]
    assert f'broker_spend_usd_total{{provider="{provider}"}} {spent.as_double}' in text
    assert "broker_spool_waiting" in points


async def test_a_collector_that_is_away_costs_a_request_nothing(tmp_path: Path) -> None:
    async with rig(tmp_path, providers=("groq",)) as r:
        otel = Otel(
            OtelSettings(endpoint="http://127.0.0.1:9", timeout_s=0.3, propagate=False),
            r.gateway.state.metrics.registry,
            instance="gw-0",
        )
        r.gateway.state.tracing = otel
        for _ in range(5):
            assert (await r.ask(r.gateway.key())).status == 200
        (calls,) = [r.paper.sellers["groq"].ledger.calls()]
        assert all("traceparent" not in call.buyer_ids for call in calls)
        begun_s = time.monotonic()
        await asyncio.to_thread(otel.close)
        assert time.monotonic() - begun_s < 10.0


def test_names_are_the_conventions() -> None:
    known = {v for m in (gen_ai_attributes, gen_ai_metrics) for v in vars(m).values()
             if isinstance(v, str) and v.startswith("gen_ai.")}  # fmt: skip
    source = (Path(__file__).parents[2] / "broker" / "otel.py").read_text()
    used = {
        getattr(module, name)
        for module, word in ((gen_ai_attributes, "gen_ai."), (gen_ai_metrics, "gen_ai_metrics."))
        for name in vars(module)
        if name.startswith("GEN_AI_") and f"{word}{name}" in source
    }
    assert len(used) >= 12
    assert used <= known
    assert '"gen_ai.' not in source, "names come from the package"


def test_it_is_not_loaded_unless_asked_for() -> None:
    code = "import broker.app, sys; print([m for m in sys.modules if 'opentelemetry.sdk' in m])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_its_configuration(tmp_path: Path) -> None:
    file = tmp_path / "broker.toml"
    file.write_text('[otel]\nendpoint = "http://c:4318"\nheaders = {authorization = "Bearer x"}\n')
    settings = load(file, {"BROKER__OTEL__TRACES_SHARE": "0.1"})
    assert settings.otel.traces_share == 0.1
    assert masked(settings)["otel"]["headers"] == {"authorization": "***"}
    assert Settings().otel.endpoint == ""
