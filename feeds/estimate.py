"""The estimators' process: attempts, decisions, feedback, incidents in; quotes and skills out.

Two loops. The pipeline folds batches into the pure estimators; the tick publishes what changed.
A batch counts as done, and its offset is committed, only when the quotes it moved have been
acknowledged by the log: so after a crash reading begins no later than what was published, and
what is read twice is passed over by each offer's and task's own position.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from bidding.appraisal import Appraiser, Label, Settled
from bidding.market import Catalogue
from bidding.outcome import FailureClass
from bidding.params import Params
from bidding.quote import Position
from bidding.quoting import Quoter
from bidding.trial import pacing_of
from feeds.batch import Batch, BatchSettings
from feeds.clock import Clock
from feeds.codec import Record
from feeds.compacted import Follower, latest
from feeds.control_records import ParamsRecord
from feeds.dead_letter import DeadLetters, DeadLetterSettings
from feeds.errors import LogUnavailable
from feeds.kafka import KafkaSettings, Partition
from feeds.live_params import ParamsInForce
from feeds.market_records import (
    CalibrationRecord,
    QuoteRecord,
    SeasonRecord,
    SkillRecord,
    SourceRecord,
)
from feeds.pipeline import Pipeline, PipelineSettings, Span, Start
from feeds.producer import LogProducer
from feeds.records import AttemptRecord, DeadRecord, DecisionRecord, FeedbackRecord, Written
from feeds.status.acting import IncidentsActing
from feeds.topics import (
    ATTEMPTS,
    DEAD,
    DECISIONS,
    FEEDBACK,
    FEEDS,
    PARAMS,
    QUOTES,
    SEASONS,
    SKILLS,
    SOURCES,
    STATUS,
    Topic,
)

logger = logging.getLogger(__name__)

_EVERYTHING_EVERY = 50
_ACT_EVERY_US = 5_000_000


class EstimateSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`tick_s` is how often changed quotes are published; `id` names this process's writer."""

    tick_s: Annotated[float, Meta(gt=0, le=60)] = 0.1
    group: str = "estimators"
    id: str = "estimator"


class Estimation:
    """The step of the pipeline, and the tick. `await run()`; `stop()` ends it in order."""

    def __init__(
        self,
        settings: EstimateSettings,
        kafka: KafkaSettings,
        clock: Clock,
        catalogue: Catalogue,
        params: Params | None = None,
    ) -> None:
        self._settings = settings
        self._kafka = kafka
        self._clock = clock
        self._in_force = ParamsInForce(params)
        self.quoter = Quoter(params)
        self.appraiser = Appraiser(catalogue, params)
        self._producer = LogProducer(kafka)
        self._waiting: list[asyncio.Future[None]] = []
        self._known_at_us: dict[str, int] = {}
        self._boot = secrets.token_hex(8)
        self._seq = 0
        self._mutes: list[Written] = []
        self._incidents = IncidentsActing(catalogue)
        self._act_at_us = 0
        self._follower = Follower(kafka, [SOURCES, SEASONS, STATUS, FEEDS, PARAMS], self._hear)
        self._stopping = asyncio.Event()
        self.pipeline = Pipeline(
            kafka,
            [ATTEMPTS, DECISIONS, FEEDBACK],
            self,
            group=settings.group,
            dead_letters=DeadLetters(DeadLetterSettings(), clock),
            bury=self._bury,
            settings=PipelineSettings(batch=BatchSettings(max_wait_ms=0), poll_ms=20),
        )

    @property
    def params(self) -> Params:
        """In force for all that no trial has taken."""
        return self._in_force.params

    async def run(self) -> None:
        """Estimate until stopped.

        Raises
        ------
        TooManyBad, LogRefused
            Somebody must look.
        """
        async with self._producer:
            tick = asyncio.create_task(self._tick())
            reading = asyncio.create_task(self._read())
            hearing = asyncio.create_task(self._follower.run())
            try:
                await asyncio.wait({tick, reading, hearing}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (tick, reading, hearing):
                    task.cancel()
                ends = await asyncio.gather(reading, tick, hearing, return_exceptions=True)
            for end in ends:
                if isinstance(end, Exception):
                    raise end

    def stop(self) -> None:
        """Finish what has begun, publish it, and end."""
        self._stopping.set()
        self.pipeline.stop()

    async def _read(self) -> None:
        """Read facts once it is known by which params they are to be read."""
        known = asyncio.create_task(self._follower.caught_up.wait())
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({known, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            known.cancel()
            stopping.cancel()
        await self.pipeline.run()

    async def assign(self, log: str, spans: Mapping[Partition, Span]) -> Mapping[Partition, Start]:
        """Take up every newer state that was published; the group's offset says where to read on.

        Partitions may come from another estimator, which went on after we last knew of its keys.
        """
        for topic in (SOURCES, SEASONS):  # before anything is folded
            for key, (record, position) in (await latest(self._kafka, topic)).items():
                self._hear(key, record, position)
        for record, _ in (await latest(self._kafka, QUOTES)).values():
            if isinstance(record, QuoteRecord) and self._is_newer(record.quote.offer, record.at_us):
                self.quoter.restore(record.quote)
        for record, _ in (await latest(self._kafka, SKILLS)).values():
            if isinstance(record, SkillRecord) and self._is_newer(record.task, record.at_us):
                self.appraiser.restore(
                    record.task,
                    record.state,
                    record.classes,
                    record.models,
                    record.quality_models,
                    record.positions,
                )
        return {}

    def _is_newer(self, key: str, at_us: int) -> bool:
        newer = at_us > self._known_at_us.get(key, 0)
        if newer:
            self._known_at_us[key] = at_us
        return newer

    async def revoke(self, partitions: frozenset[Partition]) -> None:
        """Nothing is kept per partition: states follow the keys and are published already."""

    async def take(self, batch: Batch) -> None:
        """Fold a batch; done once what it changed is published."""
        positions = [batch.position(i) for i in range(len(batch.records))]
        self._fold(batch, positions)
        published = asyncio.get_running_loop().create_future()
        self._waiting.append(published)
        await published

    def _fold(self, batch: Batch, positions: Sequence[Position]) -> None:
        if batch.partition.topic == ATTEMPTS.name:
            attempts = [
                (r.outcome(), p)
                for r, p in zip(batch.records, positions, strict=True)
                if isinstance(r, AttemptRecord)
            ]
            self.quoter.fold([o for o, _ in attempts], [p for _, p in attempts])
            return
        for record, position in zip(batch.records, positions, strict=True):
            if isinstance(record, DecisionRecord) and not (record.only or record.cached_from):
                self.appraiser.fold_decision(settled(record), position)
            elif isinstance(record, FeedbackRecord):
                self.appraiser.fold_label(label(record), position)

    async def _tick(self) -> None:
        n_ticks = 0
        while True:
            await asyncio.sleep(self._settings.tick_s)
            waiting, self._waiting = self._waiting, []
            n_ticks += 1
            self._act_on_incidents()
            if not waiting and not self.quoter.has_news and n_ticks < _EVERYTHING_EVERY:
                continue
            try:
                await self._publish(everything=n_ticks >= _EVERYTHING_EVERY)
            except LogUnavailable as error:
                logger.warning("quotes not published, everything is due again: %s", error)
                n_ticks = _EVERYTHING_EVERY
                self._waiting = waiting + self._waiting
                continue
            if n_ticks >= _EVERYTHING_EVERY:
                n_ticks = 0
            for published in waiting:
                if not published.done():
                    published.set_result(None)

    async def _publish(self, *, everything: bool) -> None:
        now_us = self._clock.now_us()
        quotes: list[Written] = [
            self._written(QuoteRecord(quote=quote, at_us=now_us))
            for quote in self.quoter.quotes(now_us, everything=everything)
        ]
        if everything:
            calibration = self.quoter.calibration(now_us)
            if calibration is not None:
                quotes.append(
                    self._written(
                        CalibrationRecord(
                            estimator=self._settings.id, calibration=calibration, at_us=now_us
                        )
                    )
                )
        skills: list[Written] = [
            self._written(
                SkillRecord(
                    task=made.skill.task,
                    at_us=now_us,
                    skill=made.skill,
                    positions=made.positions,
                    state=made.state,
                    classes=made.classes,
                    models=made.models,
                    quality_models=made.quality_models,
                )
            )
            for made in self.appraiser.skills(now_us, everything=everything)
        ]
        self._note_mutes()
        await self._send(SOURCES, self._mutes)
        self._mutes = []
        await self._send(QUOTES, quotes)
        await self._send(SKILLS, skills)
        self._known_at_us.update(
            (q.quote.offer, now_us) for q in quotes if isinstance(q, QuoteRecord)
        )
        self._known_at_us.update((k.task, now_us) for k in skills if isinstance(k, SkillRecord))

    def _hear(self, key: str, record: Record | None, position: Position) -> None:
        """Take in what is said of a source, of the hours, of incidents, and the params in force."""
        if isinstance(record, SourceRecord):
            self.quoter.hearsay.mute(record.mute())
        elif isinstance(record, SeasonRecord):
            self.quoter.set_season(record.offer, record.seasons()[0])
        elif isinstance(record, ParamsRecord):
            if self._in_force.take(record):
                self.quoter.steer(self.params)
                self.appraiser.steer(self.params, pacing_of(self._in_force.canary))
                logger.info("params version %d steer the estimators", self.params.version)
        elif self._incidents.take(record):
            self._act_at_us = 0

    def _act_on_incidents(self) -> None:
        """At once when one has changed, and now and then because feeds age."""
        now_us = self._clock.now_us()
        if now_us >= self._act_at_us:
            self._act_at_us = now_us + _ACT_EVERY_US
            self._incidents.act(self.quoter, now_us)

    def _note_mutes(self) -> None:
        for mute in self.quoter.hearsay.new_mutes():
            logger.error(
                "source %r is muted: at %s it claims %.0f%% failures and %.0f ms to a first token,"
                " where we see %.0f%% and %.0f ms",
                mute.source,
                mute.offer,
                100 * mute.claimed_fail_share,
                mute.claimed_ttft_ms,
                100 * mute.own_fail_share,
                mute.own_ttft_ms,
            )
            made = SourceRecord(by=self._settings.id, **msgspec.structs.asdict(mute))
            self._mutes.append(self._written(made))

    async def _send(self, topic: Topic, records: Sequence[Written]) -> None:
        if records:
            await self._producer.publish(topic, records)

    async def _bury(self, dead: Sequence[DeadRecord]) -> None:
        await self._send(DEAD, [self._written(d) for d in dead])

    def _written(self, record: Written) -> Written:
        self._seq += 1
        record.gateway, record.boot, record.seq = self._settings.id, self._boot, self._seq
        return record


def settled(record: DecisionRecord) -> Settled:
    """What a decision teaches its task; a failed one delivered nothing and is late."""
    delivered = record.failure is FailureClass.OK
    return Settled(
        task=record.task,
        sla_class=record.sla_class,
        at_us=record.at_us,
        model=record.delivered_model if delivered else None,
        output_tokens=record.output_tokens,
        cut=record.max_output_tokens is not None
        and record.output_tokens >= record.max_output_tokens,
        target_quality=record.target_quality,
        target_on_time=record.target_on_time,
        p_good=record.p_good if delivered else None,
        p_on_time=record.p_on_time,
        on_time=record.on_time,
        free=record.n_bids > 1 and record.candidates is None,
        paid_nusd=paid_nusd(record),
        features=tuple(record.features),
    )


class _Stated(Struct):
    """Of an SLA, what takes the class price's place."""

    value_usd: float | None = None


_stated = msgspec.json.Decoder(_Stated)


def paid_nusd(record: DecisionRecord) -> tuple[float | None, float | None]:
    """λ and μ of the class as the decision had them; None where they are not the class's."""
    try:
        has_value = _stated.decode(record.sla).value_usd is not None
    except msgspec.DecodeError:  # another build's; then it says nothing
        has_value = True
    own = record.target_quality is not None and not has_value
    return (
        record.quality_price_nusd if own else None,
        record.punctuality_price_nusd if record.target_on_time is not None else None,
    )


def label(record: FeedbackRecord) -> Label:
    """A quality score as the estimators take it."""
    return Label(
        task=record.task,
        sla_class=record.sla_class,
        at_us=record.at_us,
        model=record.model,
        quality=record.quality,
        weight=record.weight,
        labelled_share=record.labelled_share,
        features=tuple(record.features),
        p_good=record.p_good,
    )
