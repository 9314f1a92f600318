"""All metrics: names, meanings, labels. The only list; a test demands a word on every one.

Labels are bounded by configuration (offers, tasks, statuses); nothing a caller writes becomes a
label value.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

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
        self.ttft_seconds = Histogram(
            "broker_ttft_seconds",
            "Time to first token of successful calls, by provider.",
            ["provider"],
            buckets=_CALL_S,
            registry=registry,
        )
        self.spend_usd = Counter(
            "broker_spend_usd_total", "Dollars owed to providers.", ["provider"], registry=registry
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
        self.spool_waiting = Gauge(
            "broker_spool_waiting", "Records owed to the log.", registry=registry
        )
        self.spool_dropped = Gauge(
            "broker_spool_dropped", "Records the spool had to drop.", registry=registry
        )

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)
