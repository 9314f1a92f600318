"""What this gateway tells the log: attempts, decisions, feedback, dead letters.

One place that stamps times, counts metrics, keeps the recent flights and puts records into the
spool. Nothing here waits: the spool takes what it is given and no request stands still for it.
"""

from __future__ import annotations

from bidding.outcome import FailureClass
from broker.metrics import Metrics
from broker.recent import Flight, RecentDecisions
from feeds.clock import Clock
from feeds.control_records import CatalogueRecord
from feeds.market_records import AskRecord, NoticeRecord, ViewRecord
from feeds.records import AttemptRecord, DeadRecord, DecisionRecord, FeedbackRecord, PromptRecord
from feeds.spool import Spool
from feeds.topics import (
    ATTEMPTS,
    CATALOGUE,
    DEAD,
    DECISIONS,
    FEEDBACK,
    NOTICES,
    PRICES,
    PROMPTS,
    VIEWS,
)


class Journal:
    """Writes records down: to the spool, to the recent flights, to the metrics.

    What others push has a spool of its own, if there is one: however much it is, it neither
    delays nor displaces what this gateway has seen itself.
    """

    def __init__(
        self,
        spool: Spool,
        recent: RecentDecisions,
        metrics: Metrics,
        clock: Clock,
        push_spool: Spool | None = None,
    ) -> None:
        self._spool = spool
        self._push_spool = push_spool or spool
        self._metrics = metrics
        self._clock = clock
        self.recent = recent

    def attempt(self, record: AttemptRecord) -> None:
        """An attempt has ended."""
        self._spool.put(ATTEMPTS, record)
        self._metrics.attempts.labels(record.offer, record.failure).inc()
        if record.source == "probe":
            self._metrics.probes.labels(record.offer, record.failure).inc()
        if record.failure is FailureClass.OK and record.ttft_ms is not None:
            self._metrics.ttft_seconds.labels(record.provider).observe(record.ttft_ms / 1e3)
        if record.cost_nusd:
            self._metrics.spend_usd.labels(record.provider).inc(record.cost_nusd * 1e-9)
        if record.unseen_nusd:
            self._metrics.unseen_usd.labels(record.provider).inc(record.unseen_nusd * 1e-9)

    def decision(self, record: DecisionRecord, attempts: list[AttemptRecord]) -> None:
        """A decision is settled (or was all that was asked)."""
        self._spool.put(DECISIONS, record)
        self.recent.put(Flight(record, attempts))
        for reason, n in record.no_bids.items():
            self._metrics.no_bids.labels(reason).inc(n)
        if record.handoff:
            self._metrics.handoffs.labels(record.handoff.partition(":")[0]).inc()
        for verdict in record.verdicts:
            self._metrics.verdicts.labels(verdict.check).inc()
        if record.on_time is False:
            self._metrics.late.inc()

    def view(self, record: ViewRecord) -> None:
        """A view has been read by a decision for the first time."""
        self._spool.put(VIEWS, record)

    def prompt(self, record: PromptRecord | None) -> None:
        """A sealed prompt; None: it was too large to be kept."""
        self._metrics.prompts.labels("too_large" if record is None else "kept").inc()
        if record is not None:
            self._spool.put(PROMPTS, record)

    def catalogue(self, record: CatalogueRecord) -> None:
        """What this gateway sells, before anything is bought."""
        self._spool.put(CATALOGUE, record)

    def feedback(self, record: FeedbackRecord, flight: Flight) -> None:
        """A decision's answer was scored."""
        self._spool.put(FEEDBACK, record)
        flight.feedback.append(record)

    def own_attempt(self, record: AttemptRecord, flight: Flight) -> None:
        """An app reports a call it made itself."""
        self.attempt(record)
        flight.attempts.append(record)

    def pushed(self, record: AttemptRecord) -> None:
        """Someone tells of a call that was not ours."""
        self._push_spool.put(ATTEMPTS, record)

    @property
    def n_pushed_waiting(self) -> int:
        """Pushed records owed to the log."""
        stats = self._push_spool.stats
        return (
            stats.n_put + stats.n_restored - stats.n_delivered - stats.n_dropped - stats.n_refused
        )

    def ask(self, record: AskRecord) -> None:
        """A seller asks a price."""
        self._spool.put(PRICES, record)

    def notice(self, record: NoticeRecord) -> None:
        """What became of an ask."""
        self._spool.put(NOTICES, record)

    def told_by(self, source: str, n_accepted: int, n_refused: int) -> None:
        """Count what a source has pushed."""
        self._metrics.telemetry.labels(source, "accepted").inc(n_accepted)
        self._metrics.telemetry.labels(source, "refused").inc(n_refused)

    def dead(self, source: str, payload: bytes, reason: str) -> None:
        """Bytes that an app sent and that could not be used."""
        self._spool.put(
            DEAD,
            DeadRecord(
                at_us=self._clock.now_us(),
                topic=source,
                partition=0,
                offset=0,
                reason=reason,
                payload=payload[:65_536],
            ),
        )

    def update_gauges(self) -> None:
        """Bring the spool's levels into the metrics."""
        stats = self._spool.stats
        self._metrics.spool_waiting.set(stats.n_memory + stats.n_disk)
        self._metrics.spool_dropped.set(stats.n_dropped)
