"""From a record of params on the log to the params in force: the same rule for everybody.

Gateways and estimators follow `market.params` (its topic is compacted: the newest version of each
scope) and go on under the newest version they can read. One that cannot be read changes nothing.
Beside the params in force there may be a version in the shadow and one as a canary.
"""

from __future__ import annotations

import logging
from typing import Final

import msgspec

from bidding.params import Params
from bidding.trial import Trial, TrialKind
from feeds.control_records import ParamsRecord

logger = logging.getLogger(__name__)

GLOBAL_SCOPE: Final = "global"
"""The scope whose params are in force for all that no trial has taken."""
SHADOW: Final[TrialKind] = "shadow"
CANARY: Final[TrialKind] = "canary"


class ParamsInForce:
    """What is in force and what is being tried, by the records taken in.

    Attributes
    ----------
    params : in force
    trials : by kind, those that run
    """

    def __init__(self, params: Params | None = None) -> None:
        self.params = params or Params()
        self.trials: dict[TrialKind, Trial] = {}
        self._revisions: dict[str, int] = {}

    def take(self, record: ParamsRecord) -> bool:
        """Take in a record; whether it changed anything."""
        if record.scope == GLOBAL_SCOPE:
            params = newer(self.params, record)
            if params is not None:
                self.params = params
            return params is not None
        if record.scope not in (SHADOW, CANARY):
            return False
        if record.revision <= self._revisions.get(record.scope, -1):
            return False
        kind: TrialKind = SHADOW if record.scope == SHADOW else CANARY
        trial = None
        if record.event == kind:
            params = decoded(record)
            if params is None:
                return False
            trial = trial_of(kind, params, record)
        self._revisions[record.scope] = record.revision
        was = self.trials.pop(kind, None)
        if trial is not None:
            self.trials[kind] = trial
        return trial != was

    @property
    def shadow(self) -> Trial | None:
        return self.trials.get(SHADOW)

    @property
    def canary(self) -> Trial | None:
        return self.trials.get(CANARY)


def trial_of(kind: TrialKind, params: Params, record: ParamsRecord) -> Trial:
    """The trial that a record tells of."""
    return Trial(
        kind=kind,
        params=params,
        share=record.share,
        tenant=record.tenant,
        at_us=record.at_us,
        until_us=record.until_us,
        by=record.by,
        why=record.why,
    )


def newer(known: Params, record: ParamsRecord) -> Params | None:
    """The params of a record that supersedes `known`; None where it does not."""
    if record.scope != GLOBAL_SCOPE or record.version <= known.version:
        return None
    return decoded(record)


def decoded(record: ParamsRecord) -> Params | None:
    """The params of a record; None where they cannot be used."""
    try:
        params = msgspec.json.decode(record.params, type=Params)
    except msgspec.DecodeError as error:
        logger.error("params version %d refused, the old stay: %s", record.version, error)
        return None
    return msgspec.structs.replace(params, version=record.version)
