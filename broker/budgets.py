"""A key's money, and what its apps state as their own: set aside before the call, put right
after it.

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

from bidding.errors import BadRequest
from bidding.request import Budget
from bidding.units import NUSD_PER_USD
from broker.errors import BudgetSpent, StatedBudgetSpent
from broker.shared_state import Cap, SharedState, StateUnavailable, Wanted
from feeds.clock import Clock
from feeds.control_records import KeyPolicy
from feeds.records import BudgetRecord

logger = logging.getLogger(__name__)

WORST_SHARE: Final = 0.01
_BUSY_RETRY_S: Final = 1.0
_GRACE_US: Final = 60_000_000
_SETTLE_PAUSES_S: Final = (0.1, 0.5, 2.0, 10.0)
MOST_STATED: Final = 1_000
"""Budgets of their own that a key's apps may spend from in one process at a time."""
_MAX_KEYS: Final = 100_000


class Reservation(Struct):
    """Money set aside; `held` when it covers the likely length only. `left_nusd` is what is left
    beside it of the tightest budget.
    """

    id: str
    nusd: int
    left_nusd: int
    held: bool
    tightest: Cap


def caps_of(
    key_id: str, policy: KeyPolicy, now_us: int, stated: Budget | None = None
) -> tuple[Cap, ...]:
    """The budgets in force now: the key's own, and the one that a request of it states.

    Examples
    --------
    >>> [cap.period for cap in caps_of("k", KeyPolicy(budget_day_usd=0.5), 0)]
    ['k|day 1970-01-01']
    >>> caps_of("k", KeyPolicy(), 0, Budget(usd=0.5, period="hour", name="nightly"))
    (Cap(period='k|nightly|hour 1970-01-01T00', cap_nusd=500000000, ends_us=3600000000),)
    """
    if stated is None and policy.budget_day_usd is None and policy.budget_month_usd is None:
        return ()
    sizes = [
        (_period(key_id, "day", now_us), policy.budget_day_usd),
        (_period(key_id, "month", now_us), policy.budget_month_usd),
    ]
    if stated is not None:
        sizes.append((_period(f"{key_id}|{stated.name}", stated.period, now_us), stated.usd))
    return tuple(
        Cap(name, round(usd * NUSD_PER_USD), now_us + round(until_next_s(name, now_us) * 1e6))
        for name, usd in sizes
        if usd is not None
    )


def in_words(period: str) -> str:
    """A budget as people call it.

    Examples
    --------
    >>> in_words("k|day 1970-01-01"), in_words("k|nightly|hour 1970-01-01T00")
    ("this key's budget of the day", "sla.budget 'nightly' of the hour")
    """
    _, *name, _ = period.split("|")
    whose = f"sla.budget {name[0]!r}" if name else "this key's budget"
    return f"{whose} of the {_kind(period)}"


def budget_record(
    cap: Cap, left_nusd: int, set_aside_nusd: int = 0, most_tokens: int | None = None
) -> BudgetRecord:
    """A budget as a decision's record keeps it."""
    _, *name, period = cap.period.split("|")
    return BudgetRecord(
        name="".join(name),
        period=period,
        cap_nusd=cap.cap_nusd,
        left_nusd=left_nusd,
        set_aside_nusd=set_aside_nusd,
        most_tokens=most_tokens,
    )


def until_next_s(period: str, now_us: int) -> float:
    """Seconds until the period after `period` begins."""
    now = _day(now_us)
    if _kind(period) == "hour":
        ends = now.replace(minute=0, second=0, microsecond=0) + dt.timedelta(hours=1)
    elif _kind(period) == "day":
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
        self._stated: dict[str, dict[str, int]] = {}

    def know(self, key_id: str, stated: Budget) -> None:
        """Note that a request of the key states a budget.

        Raises
        ------
        BadRequest
            It would be one too many: each is kept in the shared state until its period is over.
        """
        now_us = self._clock.now_us()
        (cap,) = caps_of(key_id, KeyPolicy(), now_us, stated)
        if len(self._stated) >= _MAX_KEYS:
            self._stated.clear()
        known = self._stated.setdefault(key_id, {})
        if cap.period not in known and len(known) >= MOST_STATED:
            known = {name: ends_us for name, ends_us in known.items() if ends_us > now_us}
            self._stated[key_id] = known
            if len(known) >= MOST_STATED:
                raise BadRequest(
                    f"apps of this key spend from {MOST_STATED} budgets of their own already",
                    path="sla.budget.name",
                    remedy="let requests share a budget by its name, or wait for periods to end",
                )
        known[cap.period] = cap.ends_us

    async def spent_nusd(self, caps: tuple[Cap, ...]) -> dict[str, int]:
        """What is spent or set aside in each period of `caps`. Raises `StateUnavailable`."""
        levels = await self._state.spent([cap.period for cap in caps])
        return {c.period: sum(level) for c, level in zip(caps, levels, strict=True)}

    async def reserve(
        self,
        key_id: str,
        policy: KeyPolicy,
        *,
        worst_nusd: float,
        likely_nusd: float,
        ends_us: int,
        stated: Budget | None = None,
    ) -> Reservation | None:
        """Set money aside for a call that ends by `ends_us`; None where there is no budget.

        Raises
        ------
        BudgetSpent
            What is left does not even pay for an answer of likely length.
        StateUnavailable
        """
        now_us = self._clock.now_us()
        caps = caps_of(key_id, policy, now_us, stated)
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
        tightest = next(cap for cap in caps if cap.period == got.tightest)
        if got.nusd:
            held = got.nusd < wanted.worst_nusd
            return Reservation(wanted.id, got.nusd, got.left_nusd, held, tightest)
        comes_back = got.left_nusd + got.tied_nusd >= likely
        wait_s = _BUSY_RETRY_S if comes_back else until_next_s(got.tightest, now_us)
        left_usd = max(got.left_nusd, 0) / NUSD_PER_USD
        spent = StatedBudgetSpent if _is_stated(got.tightest) else BudgetSpent
        raise spent(
            f"{in_words(got.tightest)} has ${left_usd:.6f} left and this request may cost "
            f"${likely / NUSD_PER_USD:.6f}",
            retry_after_s=wait_s,
            budget=tightest,
            left_nusd=max(got.left_nusd, 0),
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


def _is_stated(period: str) -> bool:
    return period.count("|") == 2


def _period(whose: str, kind: str, now_us: int) -> str:
    form = {"hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d", "month": "%Y-%m"}[kind]
    return f"{whose}|{kind} {_day(now_us):{form}}"


def _kind(period: str) -> str:
    return period.rpartition("|")[2].partition(" ")[0]


def _day(now_us: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(now_us * 1e-6, dt.UTC)
