"""From a record of params on the log to the params in force: the same rule for everybody.

Gateways and estimators follow `market.params` (its topic is compacted: the newest version of each
scope) and go on under the newest version they can read. One that cannot be read changes nothing.
"""

from __future__ import annotations

import logging
from typing import Final

import msgspec

from bidding.params import Params
from feeds.control_records import ParamsRecord

logger = logging.getLogger(__name__)

GLOBAL_SCOPE: Final = "global"
"""The scope whose params are in force for all that no trial has taken."""


def newer(known: Params, record: ParamsRecord) -> Params | None:
    """The params of a record that supersedes `known`; None where it does not."""
    if record.scope != GLOBAL_SCOPE or record.version <= known.version:
        return None
    try:
        params = msgspec.json.decode(record.params, type=Params)
    except msgspec.DecodeError as error:
        logger.error("params version %d refused, the old stay: %s", record.version, error)
        return None
    return msgspec.structs.replace(params, version=record.version)
