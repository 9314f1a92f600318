"""When the gateway left a broken seller, after how many failures, and when it came back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from msgspec import Struct

from broker.demo.storm.stand import Stand

_EVERY_S = 0.02
_NO_FAILURES = frozenset(
    {"ok", "cancelled", "hedge_lost", "bad_request", "rate_limited", "overloaded", "quota"}
)

Attempts = Mapping[tuple[str, str], int]


def n_between(before: Attempts, after: Attempts) -> int:
    """Attempts of any kind."""
    return sum(after.values()) - sum(before.values())


def n_failed(before: Attempts, after: Attempts, provider: str) -> int:
    """Failures at one seller; being full, or giving way to a hedge, is none."""
    return sum(
        n - before.get((who, failure), 0)
        for (who, failure), n in after.items()
        if who == provider and failure not in _NO_FAILURES
    )


def n_of(before: Attempts, after: Attempts, failure: str) -> int:
    """Attempts of all sellers that ended so."""
    return sum(n - before.get(key, 0) for key, n in after.items() if key[1] == failure)


class Opening(Struct, frozen=True, kw_only=True):
    """A circuit seen open: when, and after how many failures."""

    at_s: float
    n_failed: int


async def opening(stand: Stand, provider: str, before: Attempts) -> Opening:
    """The next opening of a seller's circuit. For ever where it does not come."""
    while True:
        if await stand.health(provider) != "closed":
            at_s, attempts = time.monotonic(), await stand.attempts()
            return Opening(at_s=at_s, n_failed=n_failed(before, attempts, provider))
        await asyncio.sleep(_EVERY_S)


async def closing_s(stand: Stand, provider: str) -> float:
    """The moment from which a seller's circuit is seen closed. For ever where it stays open."""
    while True:
        if await stand.health(provider) == "closed":
            return time.monotonic()
        await asyncio.sleep(_EVERY_S)
