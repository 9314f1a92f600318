"""The live params under one hand: changed, rolled back, tried in the shadow and as a canary.

One change at a time, on the log before it is acknowledged; gateways follow the same topic and need
no telling. The log keeps the newest version in force and the newest word on each trial, the store
all of them.

While a canary runs the params in force stay as they are, since they are what it is compared with:
only a rollback is let through, and ends it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec

from analytics.errors import StoreError
from analytics.store import StoreSettings
from bidding.errors import BadParams
from bidding.params import Params
from bidding.params_change import differences, with_changes
from bidding.quote import Position
from bidding.trial import Trial, TrialKind
from broker.auth import KeyRing
from broker.errors import NotFound, NotReady, ParamsConflict, TrialConflict
from broker.params_followed import IN_FORCE, Followed, FollowedReader
from broker.params_history import (
    MOST_SHOWN,
    exactly,
    shown_event,
    shown_trial,
    shown_version,
    stored_trials,
    stored_versions,
)
from broker.params_log import Event, ParamsLog
from feeds.clock import Clock
from feeds.codec import Record
from feeds.compacted import Follower
from feeds.control_records import KeyRecord, ParamsRecord
from feeds.kafka import KafkaSettings
from feeds.live_params import CANARY, GLOBAL_SCOPE
from feeds.topics import KEYS, PARAMS

logger = logging.getLogger(__name__)

CANARY_SHARES: Final = (0.001, 0.9)
"""Some requests have to stay outside a canary, for it to be compared with."""
SHADOW_SHARES: Final = (0.0001, 1.0)
CANARY_HOURS: Final = (0.001, 720.0)
_HOUR_US: Final = 3_600_000_000
_UNCHANGED: Final = "nothing was changed"
Make = Callable[[Params, int], Params]


class ParamsControl:
    """What is in force, what is tried, what was, and the only way to change it.

    Attributes
    ----------
    keys : who may do what, as the log tells
    """

    def __init__(self, kafka: KafkaSettings, store: StoreSettings, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._log = ParamsLog(kafka, clock)
        self._followed = FollowedReader(store, clock)
        self.keys = KeyRing()
        self.follower = Follower(kafka, [PARAMS, KEYS], self.on_record)

    @property
    def params(self) -> Params:
        """The version in force."""
        return self._log.in_force.params

    @property
    def canary(self) -> Trial | None:
        """The canary that runs."""
        return self._log.in_force.canary

    @property
    def ready(self) -> bool:
        """Whether everything that was on the log at the start has been taken in."""
        return self.follower.caught_up.is_set()

    async def close(self) -> None:
        """End within seconds."""
        await self._log.close()

    def on_record(self, key: str, record: Record | None, position: Position) -> None:
        """Take in what a followed topic says."""
        if isinstance(record, KeyRecord):
            self.keys.apply(record)
        elif isinstance(record, ParamsRecord):
            self._log.take(record)

    async def change(
        self, changes: Mapping[str, float], *, if_version: int, by: str, why: str
    ) -> dict[str, Any]:
        """Put a new version in force; what it is, as `history` shows it.

        Raises
        ------
        ParamsConflict
            Another version than `if_version` is in force.
        TrialConflict
            A canary runs.
        BadParams
            Unknown, out of bounds, or no change.
        ParamsNotRecorded
            The log did not take it, or did not say so.
        """

        def make(now: Params, version: int) -> Params:
            return with_changes(now, changes, version=version)

        return await self._put(make, "set", if_version, by, why)

    async def rollback(
        self, to: int, *, by: str, why: str, if_version: int | None = None
    ) -> dict[str, Any]:
        """Put the numbers of an earlier version in force again, as a new version; ends a canary.

        Raises
        ------
        NotFound
            There was no such version.
        StoreError
            It is no longer in memory, and the store does not answer.
        ParamsConflict, BadParams, ParamsNotRecorded
            As `change`.
        """
        wanted = await self._version(to)

        def again(now: Params, version: int) -> Params:
            if not differences(now, wanted):
                raise BadParams(f"version {to} has the numbers that are in force already")
            return msgspec.structs.replace(wanted, version=version)

        return await self._put(again, "rollback", if_version, by, f"rollback to {to}: {why}")

    async def begin(
        self,
        kind: TrialKind,
        changes: Mapping[str, float],
        *,
        share: float,
        tenant: str,
        by: str,
        why: str,
        hours: float = 0.0,
    ) -> dict[str, Any]:
        """Begin to try the params in force with some numbers changed.

        Parameters
        ----------
        share : of the requests concerned
        tenant : whose; empty for everybody's
        hours : after which it ends by itself; 0: never

        Raises
        ------
        TrialConflict
            One of this kind runs already.
        BadParams
            Unknown, out of bounds, or what is in force already; also for share and hours.
        ParamsNotRecorded
        """
        _within("share", share, CANARY_SHARES if kind == CANARY else SHADOW_SHARES)
        if kind == CANARY:
            _within("hours", hours, CANARY_HOURS)
        async with self._log.lock:
            await self._current()
            running = self._log.in_force.trials.get(kind)
            if running is not None:
                version = running.params.version
                raise TrialConflict(f"a {kind} of version {version} runs already", version)
            params = with_changes(self.params, changes, version=self._log.next_version())
            until_us = self._clock.now_us() + round(hours * _HOUR_US) if hours else 0
            more = {"share": share, "tenant": tenant, "until_us": until_us}
            record = self._log.made(kind, params, by=by, why=why, scope=kind, **more)
            await self._log.write(record)
            return {**shown_event(record), "changes": differences(self.params, params)}

    async def end(
        self,
        kind: TrialKind,
        *,
        by: str,
        why: str,
        event: Event = "end",
        found: str = "",
        version: int | None = None,
    ) -> dict[str, Any]:
        """End a trial; nothing of it stays in force.

        Parameters
        ----------
        event : `rollback` where a guard ends it, `promote` where its params go in force
        found : what that is based on, as JSON
        version : refuse if another is being tried

        Raises
        ------
        TrialConflict
            None runs, or another version.
        ParamsNotRecorded
        """
        async with self._log.lock:
            await self._current()
            trial = self._log.in_force.trials.get(kind)
            if trial is None or version not in (None, trial.params.version):
                wanted = "" if version is None else f" of version {version}"
                raise TrialConflict(f"no {kind}{wanted} runs")
            record = self._ended(trial, event, by, why, found)
            if event != "promote":
                await self._log.write(record)
                return shown_event(record)
            now = self.params
            promoted = self._log.made("promote", trial.params, by=by, why=why, found=found)
            await self._log.write(record, promoted)
            return shown_version(promoted, now)

    def trials(self) -> dict[str, Any]:
        """What is being tried."""
        in_force = self._log.in_force
        return {
            "version": self.params.version,
            "shadow": shown_trial(in_force.shadow, self.params),
            "canary": shown_trial(in_force.canary, self.params),
        }

    async def history(self, n: int = MOST_SHOWN) -> dict[str, Any]:
        """The newest versions and the newest words on trials, newest first: who, why, when, old
        and new, and what followed. `complete` is false where the store could not be asked.
        """
        found, events, complete = dict(self._log.versions), dict(self._log.events), True
        followed: Followed = {}
        try:
            version = self.params.version
            found |= await stored_versions(self._store, GLOBAL_SCOPE, n + 1, version)
            events = await stored_trials(self._store, n) | events
        except StoreError as error:
            logger.warning("history of the params is what memory holds: %s", error)
            complete = False
        with suppress(StoreError):  # said above, or there is nothing yet to look at
            followed = await self._followed.every()
        numbers = sorted(found)
        shown = [
            shown_version(found[numbers[i]], _before(found, numbers, i, complete, n))
            | {"followed": followed.get((IN_FORCE, numbers[i]))}
            for i in reversed(range(len(numbers)))
        ][:n]
        trials = [shown_event(events[r]) for r in sorted(events, reverse=True)[:n]]
        for trial in trials:
            trial["followed"] = followed.get((trial["trial"], trial["version"]))
        return {"versions": shown, "trials": trials, "complete": complete}

    async def followed(self, version: int) -> dict[str, Any]:
        """What followed a version: in force, as a canary, or both.

        Raises
        ------
        NotFound
            It was neither within the last 90 days.
        StoreError
        """
        every = await self._followed.every()
        told = {kind: every.get((kind, version)) for kind in (IN_FORCE, CANARY)}
        if not any(told.values()):
            raise NotFound(f"no version {version} was put in force or tried in the last 90 days")
        return {"version": version, "in_force": told[IN_FORCE], "canary": told[CANARY]}

    async def _put(
        self, make: Make, event: Event, if_version: int | None, by: str, why: str
    ) -> dict[str, Any]:
        async with self._log.lock:
            await self._current()
            now = self.params
            if if_version is not None and if_version != now.version:
                raise ParamsConflict(
                    f"the params are at version {now.version}, not {if_version}", now.version
                )
            canary = self.canary
            if canary is not None and event != "rollback":
                version = canary.params.version
                raise TrialConflict(f"a canary of version {version} runs", version)
            params = make(now, self._log.next_version())
            ended = [] if canary is None else [self._ended(canary, "end", by, why)]
            record = self._log.made(event, params, by=by, why=why)
            await self._log.write(*ended, record)
            return shown_version(record, now)

    def _ended(
        self, trial: Trial, event: Event, by: str, why: str, found: str = ""
    ) -> ParamsRecord:
        more = {"share": trial.share, "tenant": trial.tenant, "found": found}
        return self._log.made(event, trial.params, by=by, why=why, scope=trial.kind, **more)

    async def _current(self) -> None:
        """Know what the log holds now; hold the lock."""
        if not self.ready:
            raise NotReady("the log has not been read to its end yet")
        await self._log.refresh(_UNCHANGED)

    async def _version(self, wanted: int) -> Params:
        if wanted == 0:
            return Params()
        record = self._log.versions.get(wanted)
        if record is None:
            record = (await stored_versions(self._store, GLOBAL_SCOPE, 1, wanted)).get(wanted)
        if record is None:
            raise NotFound(f"no version {wanted} of the params")
        return exactly(record)


def _before(
    found: Mapping[int, ParamsRecord], numbers: Sequence[int], i: int, complete: bool, n: int
) -> Params | None:
    """What was in force before the `i`-th of the versions known; None where that is not known.

    Numbers have gaps: versions that were tried and never put in force.
    """
    first = numbers[i] == 1 or (complete and i == 0 and len(numbers) <= n)
    if first:
        return Params()
    if i == 0 or not (complete or numbers[i - 1] == numbers[i] - 1):
        return None
    try:
        return exactly(found[numbers[i - 1]])
    except BadParams:
        return None


def _within(name: str, value: float, bounds: tuple[float, float]) -> None:
    low, high = bounds
    if not low <= value <= high:
        raise BadParams(
            f"{name} = {value:g} is out of bounds: {low:g} to {high:g}",
            path=name,
            low=low,
            high=high,
        )
