"""A key's money: set aside before the call, put right after it.

What is set aside covers the call, so that no number of requests at once spends more than the
budget. A request that might cost more than a hundredth of what is left is held to the length that
99 of 100 answers keep to, and asked for no longer an answer than that: otherwise a few requests
that *might* be long would lock up a budget that hundreds of short ones fit into.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import secrets
from typing import Final

from msgspec import Struct

from bidding.units import NUSD_PER_USD
from broker.errors import BudgetSpent
from broker.shared_state import Cap, SharedState, StateUnavailable, Wanted
from feeds.clock import Clock
from feeds.control_records import KeyPolicy

logger = logging.getLogger(__name__)

WORST_SHARE: Final = 0.01
_BUSY_RETRY_S: Final = 1.0
_GRACE_US: Final = 60_000_000
_SETTLE_PAUSES_S: Final = (0.1, 0.5, 2.0, 10.0)


class Reservation(Struct):
    """Money set aside; `held` when it covers the likely length only."""

    id: str
    nusd: int
    left_nusd: int
    held: bool


def caps_of(key_id: str, policy: KeyPolicy, now_us: int) -> tuple[Cap, ...]:
    """The key's budgets in force now.

    Examples
    --------
    >>> caps_of("k", KeyPolicy(budget_day_usd=0.5), 0)
    (Cap(period='k|day 1970-01-01', cap_nusd=500000000),)
    """
    day = _day(now_us)
    sizes = (
        (f"{key_id}|day {day:%Y-%m-%d}", policy.budget_day_usd),
        (f"{key_id}|month {day:%Y-%m}", policy.budget_month_usd),
    )
    return tuple(Cap(name, round(usd * NUSD_PER_USD)) for name, usd in sizes if usd is not None)


def until_next_s(period: str, now_us: int) -> float:
    """Seconds until the period after `period` begins."""
    now = _day(now_us)
    if _kind(period) == "day":
        ends = now.replace(hour=0, minute=0, second=0, microsecond=0) + dt.timedelta(days=1)
    else:
        first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        ends = (first + dt.timedelta(days=32)).replace(day=1)
    return (ends - now).total_seconds()


class Budgets:
    """Reserves and settles; one a process, over the state all processes share."""

    def __init__(self, state: SharedState, clock: Clock) -> None:
        self._state = state
        self._clock = clock
        self._settling: set[asyncio.Task[None]] = set()

    async def left_nusd(self, key_id: str, policy: KeyPolicy) -> int | None:
        """What the key may still spend beside what is set aside; None without a budget."""
        caps = caps_of(key_id, policy, self._clock.now_us())
        if not caps:
            return None
        levels = await self._state.spent([cap.period for cap in caps])
        return min(
            cap.cap_nusd - spent - reserved
            for cap, (spent, reserved) in zip(caps, levels, strict=True)
        )

    async def spent_nusd(self, caps: tuple[Cap, ...]) -> dict[str, int]:
        """What is spent or set aside in each period of `caps`. Raises `StateUnavailable`."""
        levels = await self._state.spent([cap.period for cap in caps])
        return {c.period: sum(level) for c, level in zip(caps, levels, strict=True)}

    async def reserve(
        self, key_id: str, policy: KeyPolicy, *, worst_nusd: float, likely_nusd: float, ends_us: int
    ) -> Reservation | None:
        """Set money aside for a call that ends by `ends_us`; None where the key has no budget.

        Raises
        ------
        BudgetSpent
            What is left does not even pay for an answer of likely length.
        StateUnavailable
        """
        now_us = self._clock.now_us()
        caps = caps_of(key_id, policy, now_us)
        if not caps:
            return None
        likely = max(round(likely_nusd), 1)
        wanted = Wanted(
            id=secrets.token_hex(12),
            caps=caps,
            worst_nusd=max(round(worst_nusd), likely),
            likely_nusd=likely,
            worst_share=WORST_SHARE,
            now_us=now_us,
            expires_us=ends_us + _GRACE_US,
        )
        try:
            got = await self._state.reserve(wanted)
        except BaseException:
            # It may have been set aside all the same; nothing will be spent under it.
            self.settle_soon(wanted.id, 0)
            raise
        if got.nusd:
            return Reservation(wanted.id, got.nusd, got.left_nusd, got.nusd < wanted.worst_nusd)
        comes_back = got.left_nusd + got.tied_nusd >= likely
        wait_s = _BUSY_RETRY_S if comes_back else until_next_s(got.tightest, now_us)
        left_usd = max(got.left_nusd, 0) / NUSD_PER_USD
        raise BudgetSpent(
            f"this key's budget of the {_kind(got.tightest)} has ${left_usd:.6f} left and this "
            f"request may cost ${likely / NUSD_PER_USD:.6f}",
            retry_after_s=wait_s,
        )

    def settle_soon(self, reservation: str, spent_nusd: int) -> None:
        """Note what was in fact spent under a reservation; nobody waits for it."""
        task = asyncio.get_running_loop().create_task(self._settle(reservation, spent_nusd))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def close(self) -> None:
        """Wait for what is being settled."""
        await asyncio.gather(*self._settling, return_exceptions=True)

    async def _settle(self, reservation: str, spent_nusd: int) -> None:
        for pause_s in _SETTLE_PAUSES_S:
            try:
                await self._state.settle(reservation, spent_nusd)
                return
            except StateUnavailable as error:
                logger.warning("spend not noted yet: %s", error)
                await asyncio.sleep(pause_s)
        logger.error("spend of %d nusd could not be noted: the whole reserve counts", spent_nusd)


def _kind(period: str) -> str:
    return period.rpartition("|")[2].partition(" ")[0]


def _day(now_us: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(now_us * 1e-6, dt.UTC)
