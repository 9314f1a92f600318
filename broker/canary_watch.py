"""The guard's loop: follows decisions and scores while a canary runs, and rolls it back.

Reads the log from where it ends when the canary is first seen; an operators' process that starts
while one runs counts afresh. A canary that has run out is ended with a word on how it did.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any, Final

import msgspec

from bidding.errors import MarketError
from bidding.guard import Guard, Worse
from bidding.trial import Trial, class_and_arm
from broker.guard_intake import seen_of
from broker.params_control import ParamsControl
from feeds.clock import Clock
from feeds.codec import decode
from feeds.consumer import LogConsumer, RawMessage
from feeds.errors import BadRecord, LogUnavailable
from feeds.kafka import KafkaSettings
from feeds.live_params import CANARY
from feeds.records import DecisionRecord, FeedbackRecord
from feeds.topics import DECISIONS, FEEDBACK

logger = logging.getLogger(__name__)

GUARD: Final = "guard"
_POLL_MS: Final = 200
_LOOK_S: Final = 0.25
_PAUSE_S: Final = 1.0


class CanaryWatch:
    """One an operators' process. `await run()` until cancelled."""

    def __init__(self, control: ParamsControl, kafka: KafkaSettings, clock: Clock) -> None:
        self._control = control
        self._kafka = kafka
        self._clock = clock
        self._trial: Trial | None = None
        self._guard = Guard()

    async def run(self) -> None:
        """Watch whatever canary runs, until cancelled."""
        while True:
            trial = self._control.canary
            if trial is None:
                await asyncio.sleep(_LOOK_S)
                continue
            if self._trial is None or trial.arm != self._trial.arm:
                self._trial, self._guard = trial, Guard()
            try:
                await self._watch(trial)
            except MarketError as error:
                logger.warning("the canary's guard begins to read again: %s", error)
                await asyncio.sleep(_PAUSE_S)

    def told(self) -> dict[str, Any] | None:
        """What the guard of the canary that runs has seen."""
        trial = self._control.canary
        if trial is None or self._trial is None or trial.arm != self._trial.arm:
            return None
        return found(self._guard)

    async def _watch(self, trial: Trial) -> None:
        consumer = LogConsumer(self._kafka, [DECISIONS, FEEDBACK])
        try:
            await consumer.start()
            for partition, (_, end) in (await consumer.spans(consumer.assignment)).items():
                consumer.seek(partition, end)
            while self._control.canary is not None and self._control.canary.arm == trial.arm:
                for messages in (await consumer.poll(timeout_ms=_POLL_MS)).values():
                    self._fold(trial, messages)
                await self._judge(trial)
        finally:
            with suppress(LogUnavailable):
                await consumer.close()

    def _fold(self, trial: Trial, messages: list[RawMessage]) -> None:
        for message in messages:
            try:
                record = decode(message.value or b"")
            except BadRecord:
                continue  # the recorder reads it too and writes the dead letter
            if isinstance(record, DecisionRecord):
                seen = seen_of(record, trial)
                if seen is not None:
                    self._guard.take(seen)
            elif isinstance(record, FeedbackRecord):
                self._score(trial, record)

    def _score(self, trial: Trial, record: FeedbackRecord) -> None:
        plain, arm = class_and_arm(record.sla_class)
        if arm not in ("", trial.arm) or (trial.tenant and record.tenant != trial.tenant):
            return
        self._guard.score(
            in_canary=bool(arm), quality=record.quality, target=_target(plain), sla_class=plain
        )

    async def _judge(self, trial: Trial) -> None:
        breach = self._guard.breach()
        if breach is not None:
            await self._end(trial, "rollback", f"rolled back: {in_words(breach)}")
        elif trial.until_us and self._clock.now_us() >= trial.until_us:
            await self._end(trial, "end", "ran out")

    async def _end(self, trial: Trial, event: Any, why: str) -> None:
        logger.warning("canary %d: %s", trial.params.version, why)
        evidence = msgspec.json.encode(found(self._guard)).decode()
        await self._control.end(
            CANARY, by=GUARD, why=why, event=event, found=evidence, version=trial.params.version
        )


def found(guard: Guard) -> dict[str, Any]:
    """What a guard has seen, for people and for the history."""
    return {
        "n_control": guard.n[0],
        "n_canary": guard.n[1],
        "compared": [{**msgspec.structs.asdict(w), "surely": w.surely} for w in guard.compared()],
    }


_WORDS: Final = {
    "failed": "fails more",
    "late": "is late more",
    "bad": "has worse answers",
    "less_good": "buys what is believed less good",
    "dearer": "buys dearer",
    "spend": "spends more",
}


def in_words(worse: Worse) -> str:
    """Why a canary is ended."""
    whose = f" in {worse.sla_class}" if worse.sla_class else ""
    return (
        f"{_WORDS[worse.what]}{whose} ({worse.what} {worse.value:+.3f},"
        f" surely over {worse.least:+.3f},"
        f" let pass {worse.tolerated:g}; {worse.n_canary} requests against {worse.n_control})"
    )


def _target(sla_class: str) -> float | None:
    """The promised share in a class's name."""
    for part in sla_class.split("|")[2:]:
        if part.startswith("q"):
            with suppress(ValueError):
                return float(part[1:])
    return None
