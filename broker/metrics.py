"""All metrics: names, meanings, labels. The only list; `docs/metrics.md` is written from it.

    python -m broker.metrics > docs/metrics.md

Labels are bounded by configuration (offers, tasks, statuses); nothing a caller writes becomes a
label value. Dashboards, alert rules and OTLP use these names and no others; tests hold that.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from analytics.recorder import RecorderStats
from feeds.clock import Clock, SystemClock

_FAST_S = (1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 5e-2, 0.25, 1.0)
_CALL_S = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """One process's metrics, in a registry of their own."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = Counter(
            "broker_requests_total",
            "Requests answered, by route and status class.",
            ["route", "status"],
            registry=registry,
        )
        self.in_flight = Gauge(
            "broker_requests_in_flight", "Requests being served now.", registry=registry
        )
        self.decision_seconds = Histogram(
            "broker_decision_seconds",
            "Time an auction took.",
            buckets=_FAST_S,
            registry=registry,
        )
        self.shadow_decisions = Counter(
            "broker_shadow_decisions_total",
            "Auctions held again under other params, by whether another offer would have won;"
            " `left_out` for want of time.",
            ["result"],
            registry=registry,
        )
        self.shadow_seconds = Histogram(
            "broker_shadow_seconds",
            "Time to hold one again, after the request is over.",
            buckets=_FAST_S,
            registry=registry,
        )
        self.overhead_seconds = Histogram(
            "broker_overhead_seconds",
            "Time from the request's arrival to its first call, all of it ours.",
            buckets=_FAST_S,
            registry=registry,
        )
        self.attempts = Counter(
            "broker_attempts_total",
            "Calls at offers, by how they ended.",
            ["offer", "failure"],
            registry=registry,
        )
        self.passed_over = Counter(
            "broker_passed_over_total",
            "How often an offer was passed over because the calls that were out to it were silent.",
            ["offer"],
            registry=registry,
        )
        self.probes = Counter(
            "broker_probes_total",
            "Tiny requests of our own among them, at offers that are broken or that nobody calls.",
            ["offer", "failure"],
            registry=registry,
        )
        self.ttft_seconds = Histogram(
            "broker_ttft_seconds",
            "Time to first token of successful calls, by provider.",
            ["provider"],
            buckets=_CALL_S,
            registry=registry,
        )
        self.handoffs = Counter(
            "broker_session_handoffs_total",
            "Steps of sessions that another offer served than the step before, by why.",
            ["why"],
            registry=registry,
        )
        self.cache_lookups = Counter(
            "broker_cache_lookups_total",
            "Requests of keys with a response cache, by what came of it.",
            ["word"],
            registry=registry,
        )
        self.verdicts = Counter(
            "broker_verdicts_total",
            "Answers that were checked before they were returned, by the check that failed.",
            ["check"],
            registry=registry,
        )
        self.spend_usd = Counter(
            "broker_spend_usd_total", "Dollars owed to providers.", ["provider"], registry=registry
        )
        self.unseen_usd = Counter(
            "broker_unseen_usd_total",
            "Dollars that providers may have billed beside after we had hung up; estimated.",
            ["provider"],
            registry=registry,
        )
        self.late = Counter(
            "broker_late_total", "Requests with a deadline that was missed.", registry=registry
        )
        self.no_bids = Counter(
            "broker_no_bids_total", "Offers turned away, by reason.", ["reason"], registry=registry
        )
        self.view_number = Gauge(
            "broker_view_number", "Number of the market view in force.", registry=registry
        )
        self.view_age_seconds = Gauge(
            "broker_view_age_seconds", "Age of the market view in force.", registry=registry
        )
        self.view_warm_seconds = Histogram(
            "broker_view_warm_seconds",
            "Time to make a new view's slates before anybody asks for them.",
            buckets=_FAST_S,
            registry=registry,
        )
        self.quotes = Counter(
            "broker_quotes_total", "Quotes taken in from the log.", registry=registry
        )
        self.telemetry = Counter(
            "broker_telemetry_events_total",
            "Pushed telemetry, by source and whether it was taken.",
            ["source", "verdict"],
            registry=registry,
        )
        self.source_muted = Gauge(
            "broker_source_muted",
            "1 while a source of telemetry is not heard for conflicting with our own attempts.",
            ["source"],
            registry=registry,
        )
        self.prompts = Counter(
            "broker_prompts_total",
            "Requests of tenants whose prompts are kept sealed.",
            ["verdict"],
            registry=registry,
        )
        self.spool_waiting = Gauge(
            "broker_spool_waiting", "Records owed to the log.", registry=registry
        )
        self.spool_dropped = Gauge(
            "broker_spool_dropped", "Records the spool had to drop.", registry=registry
        )

        self.feed_age_seconds = Gauge(
            "broker_feed_age_seconds",
            "Since a feed was last understood, or said to be unchanged.",
            ["feed"],
            registry=registry,
        )
        self.feed_stale = Gauge(
            "broker_feed_stale",
            "1 for a feed that has been silent too long.",
            ["feed"],
            registry=registry,
        )
        self.feed_refused = Gauge(
            "broker_feed_refused",
            "Documents of a feed that were refused or could not be read, by why.",
            ["feed", "refusal"],
            registry=registry,
        )
        self.feed_items = Gauge(
            "broker_feed_items",
            "Incidents going on, or offers priced.",
            ["feed"],
            registry=registry,
        )
        self.prices_held = Gauge(
            "broker_prices_held", "Reported prices that are not believed yet.", registry=registry
        )

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)


class RecorderMetrics(Collector):
    """What a recorder has counted, read when it is asked for.

    Parameters
    ----------
    stats : the recorder's own
    clock : says how old the newest stored record is
    """

    def __init__(self, stats: RecorderStats, clock: Clock) -> None:
        self._stats = stats
        self._clock = clock

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        chains, pipelines = self._stats.chains, list(self._stats.pipelines.items())
        yield CounterMetricFamily(
            "broker_recorder_rows", "Rows stored in ClickHouse.", value=chains.n_rows
        )
        yield CounterMetricFamily(
            "broker_recorder_batches", "Batches stored.", value=chains.n_batches
        )
        yield CounterMetricFamily(
            "broker_recorder_bytes", "Bytes of records stored.", value=chains.n_bytes
        )
        yield CounterMetricFamily(
            "broker_recorder_repaired",
            "Batches written by another recorder, or fed to rollups again, on taking over.",
            value=chains.n_adopted + chains.n_refed,
        )
        dead = CounterMetricFamily(
            "broker_recorder_dead", "Records that could not be read or stored.", labels=["pipeline"]
        )
        waiting = GaugeMetricFamily(
            "broker_recorder_retrying", "Calls waiting to be tried again.", labels=["pipeline"]
        )
        for name, pipeline in pipelines:
            dead.add_metric([name], pipeline.n_dead)
            waiting.add_metric([name], pipeline.n_retrying)
        yield dead
        yield waiting
        age_s = 0.0
        if chains.newest_at_us:
            age_s = max(self._clock.now_us() - chains.newest_at_us, 0) * 1e-6
        yield GaugeMetricFamily(
            "broker_recorder_newest_age_seconds",
            "Age of the newest record stored; grows too while there is nothing to store.",
            value=age_s,
        )


def listed() -> list[tuple[str, str, str, str, str]]:
    """Every metric as (name, kind, labels, where, meaning), as Prometheus sees it."""
    rows = []
    recorder = CollectorRegistry()
    recorder.register(RecorderMetrics(RecorderStats(), SystemClock()))
    for where, registry in (("gateway", Metrics().registry), ("recorder", recorder)):
        for family in registry.collect():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = ", ".join(_labels(registry, family.name, family))
            rows.append((name, family.type, labels, where, family.documentation))
    return rows


def _labels(registry: CollectorRegistry, name: str, family: object) -> tuple[str, ...]:
    for collector in registry._collector_to_names:
        if getattr(collector, "_name", None) == name:
            return tuple(getattr(collector, "_labelnames", ()))
    return tuple(getattr(family, "_labelnames", ()))


def document() -> str:
    """`docs/metrics.md`."""
    table = "\n".join(
        f"| `{name}` | {kind} | {labels} | {where} | {meaning} |"
        for name, kind, labels, where, meaning in listed()
    )
    return f"""# Metrics

Written by `python -m broker.metrics > docs/metrics.md`; a test holds it to the code, and
dashboards (`infra/grafana/`) and alert rules (`infra/prometheus/`) to it. The gateway serves its
own at `/metrics` of the public port, the recorder at the port that `[metrics] recorder_port` names.
With `[otel] endpoint` set, the gateway's counters and gauges go out over OTLP as well, beside
`gen_ai.*` histograms ([tracing](tracing.md)). Histograms have `_bucket`, `_sum` and `_count`.

| name | kind | labels | from | meaning |
|---|---|---|---|---|
{table}
"""


if __name__ == "__main__":
    print(document(), end="")
