"""Revoked keys, as the shared state tells of them: in force within half a second, log or no log.

Whoever revokes a key writes it here first and to the log second. Every gateway looks here twice
a second; if the log could not be told at the time, the gateway that notices tells it, through its
spool, as soon as the log is back.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import msgspec

from broker.auth import KeyRing
from broker.shared_state import SharedState, StateUnavailable
from feeds.clock import Clock
from feeds.spool import Spool
from feeds.topics import KEYS

logger = logging.getLogger(__name__)

POLL_S: Final = 0.5
_TELL_AFTER_US: Final = 5_000_000


async def follow_revocations(state: SharedState, keys: KeyRing, spool: Spool, clock: Clock) -> None:
    """Keep `keys` in step with what is revoked, until cancelled."""
    n_failures = 0
    while True:
        try:
            revoked = await state.revoked()
            keys.revoke(revoked)
            # Whoever revokes gets this long to tell the log itself.
            if any(at_us < clock.now_us() - _TELL_AFTER_US for at_us in revoked.values()):
                await _tell(state, keys, spool)
            n_failures = 0
        except StateUnavailable as error:
            n_failures += 1
            if n_failures in (1, 120):
                logger.error("revoked keys cannot be looked up: %s", error)
        await asyncio.sleep(POLL_S)


async def _tell(state: SharedState, keys: KeyRing, spool: Spool) -> None:
    for key_id, at_us, by in await state.claim_untold():
        record = keys.record(key_id)
        if record is not None and not record.revoked:
            revoked = msgspec.structs.replace(record, revoked=True, at_us=at_us, by=by)
            spool.put(KEYS, revoked)
