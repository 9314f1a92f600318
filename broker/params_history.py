"""Versions of the params and trials of them as people see them, and where the store has them."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from analytics.store import Store, StoreSettings
from bidding.errors import BadParams
from bidding.params import Params
from bidding.params_change import differences
from bidding.trial import Trial
from feeds.control_records import ParamsRecord
from feeds.live_params import CANARY, SHADOW

MOST_SHOWN: Final = 200
_COLUMNS: Final = """
SELECT scope, version, toUnixTimestamp64Micro(at), by, why, params, revision, event, share, tenant,
    found
FROM market.params_history
"""
_VERSIONS: Final = f"""{_COLUMNS}
WHERE scope = {{scope:String}} AND version <= {{upto:Int64}}
ORDER BY version DESC LIMIT {{n:UInt32}}
"""
_TRIALS: Final = f"""{_COLUMNS}
WHERE scope IN ('{SHADOW}', '{CANARY}') ORDER BY revision DESC LIMIT {{n:UInt32}}
"""


async def stored_versions(
    settings: StoreSettings, scope: str, n: int, upto: int
) -> dict[int, ParamsRecord]:
    """The newest `n` versions of a scope, up to `upto`.

    Raises
    ------
    StoreUnavailable, StoreRejected
    """
    async with await Store.open(settings) as store:
        answer = await store.query(_VERSIONS, {"scope": scope, "upto": upto, "n": n})
    return {record.version: record for record in map(_record, answer.rows)}


async def stored_trials(settings: StoreSettings, n: int) -> dict[int, ParamsRecord]:
    """The newest `n` beginnings and ends of trials, by revision.

    Raises
    ------
    StoreUnavailable, StoreRejected
    """
    async with await Store.open(settings) as store:
        answer = await store.query(_TRIALS, {"n": n})
    return {record.revision: record for record in map(_record, answer.rows)}


def _record(row: tuple[Any, ...]) -> ParamsRecord:
    scope, version, at_us, by, why, params, revision, event, share, tenant, found = row
    return ParamsRecord(
        scope=scope,
        version=version,
        at_us=at_us,
        by=by,
        why=why,
        params=params,
        revision=revision,
        event=event,
        share=share,
        tenant=tenant,
        found=found,
    )


def exactly(record: ParamsRecord) -> Params:
    """The params of a record. Raises `BadParams` where they cannot be used."""
    try:
        params = msgspec.json.decode(record.params, type=Params)
    except msgspec.DecodeError as error:
        raise BadParams(f"params version {record.version} cannot be used: {error}") from error
    return msgspec.structs.replace(params, version=record.version)


def shown_version(record: ParamsRecord, before: Params | None) -> dict[str, Any]:
    """A version as people see it; `changes` is null where the one before it is not known."""
    try:
        changes = None if before is None else differences(before, exactly(record))
    except BadParams:
        changes = None
    return {
        "version": record.version,
        "at_us": record.at_us,
        "by": record.by,
        "why": record.why,
        "event": record.event or "set",
        "changes": changes,
    }


def shown_event(record: ParamsRecord) -> dict[str, Any]:
    """The beginning or end of a trial as people see it; `found` is what an end was based on."""
    return {
        "trial": record.scope,
        "event": record.event,
        "version": record.version,
        "at_us": record.at_us,
        "by": record.by,
        "why": record.why,
        "share": record.share,
        "tenant": record.tenant,
        "found": msgspec.json.decode(record.found) if record.found else None,
    }


def shown_trial(trial: Trial | None, now: Params) -> dict[str, Any] | None:
    """A trial that runs, and in what its params differ from those in force."""
    if trial is None:
        return None
    return {
        "version": trial.params.version,
        "arm": trial.arm,
        "share": trial.share,
        "tenant": trial.tenant,
        "at_us": trial.at_us,
        "until_us": trial.until_us,
        "by": trial.by,
        "why": trial.why,
        "changes": differences(now, trial.params),
    }
