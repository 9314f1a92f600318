"""Spot asks at one worker: how much of their capacity is left, and what becomes of them.

Capacity is kept in the state that all workers share, with the means by which budgets are: tokens
are set aside before each call, runners-up's and hedges' as well, and what was used is put in their
place after it, so an ask is never sold twice over by two workers. A runner-up whose ask has no room
left is bought at its list price. What is set aside is the prompt and the longest answer that the
app allows (256 tokens where it says none): only what a call uses beyond that can overshoot. Which
asks are spent is looked up twice a second, and at once where a call finds nothing left; the view
that follows has the list price again.

What becomes of an ask is counted and written down once a second: how often it won and at what
clearing price, how often it lost, why, and by how much.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Final

import numpy as np
from msgspec import Struct

from bidding.columns import Bools
from bidding.decision import Bid, Decision
from bidding.gates import reason_of
from bidding.params import Params
from bidding.request import BidRequest
from bidding.slate import slate_for
from bidding.view import MarketView
from broker.shared_state import Cap, SharedState, StateUnavailable, Wanted
from feeds.clock import Clock
from feeds.market_records import AskRecord, NoticeRecord
from feeds.records import AttemptRecord

logger = logging.getLogger(__name__)

POLL_S: Final = 0.5
NOTICE_S: Final = 1.0
WON: Final = "won"
OUTBID: Final = "outbid"
_HELD_US: Final = 900 * 10**6


class _Count(Struct):
    """What befell an ask for one reason since the last notice."""

    n: int = 0
    tokens: int = 0
    clearing_nusd: float = 0.0
    n_clearing: int = 0
    short_nusd: float = 0.0
    n_short: int = 0


class _Held(Struct):
    """Tokens of an ask set aside for a call of a decision; `begun` once the call went out."""

    id: str
    offer: str
    n_tokens: int
    begun: bool = False


class SpotAsks:
    """Asks heard of, by row of the book. One thread."""

    def __init__(
        self,
        n_offers: int,
        state: SharedState,
        clock: Clock,
        put: Callable[[NoticeRecord], None],
        refresh: Callable[[], None],
    ) -> None:
        self._state = state
        self._clock = clock
        self._put = put
        self._refresh = refresh
        self._asks: dict[int, AskRecord] = {}
        self._spent = np.zeros(n_offers, dtype=bool)
        self._held: dict[str, list[_Held]] = {}
        self._counts: dict[tuple[int, str], _Count] = {}
        self._settling: set[asyncio.Task[None]] = set()

    def heard(self, row: int, record: AskRecord) -> None:
        """An ask came off the log; the newest of an offer counts."""
        self._asks[row] = record
        self._spent[row] = False

    def in_force(self, row: int) -> AskRecord | None:
        """The ask that makes the price of an offer now, if one does."""
        ask = self._asks.get(row)
        now_us = self._clock.now_us()
        if ask is None or self._spent[row] or not ask.from_us <= now_us < ask.until_us:
            return None
        return ask

    def spent(self) -> Bools | None:
        """Offers whose ask has no capacity left; None where nobody asks anything."""
        return self._spent.copy() if self._asks else None

    async def claim(self, decision_id: str, winner: Bid, n_tokens: int) -> bool:
        """Set tokens of the winner's ask aside; False when there is not enough left of it, so
        that the auction must be held again without it.
        """
        ask = self.in_force(winner.row)
        if ask is None or ask.capacity_tokens is None:
            return True
        if await self._hold(decision_id, ask, n_tokens) is not None:
            return True
        self._spent[winner.row] = True
        self._refresh()
        return False

    async def secure(self, decision_id: str, row: int, n_tokens: int) -> bool:
        """Set tokens aside for a call that is about to go out to an offer that bid by its ask:
        what `claim` set aside counts for the first one. False where there is not enough left, so
        that the list price is due.
        """
        ask = self._asks.get(row)
        if ask is None or ask.capacity_tokens is None:
            return True
        for held in self._held.get(decision_id, ()):
            if held.offer == ask.offer and not held.begun:
                held.begun = True
                return True
        held_now = await self._hold(decision_id, ask, n_tokens)
        if held_now is None:
            return False
        held_now.begun = True
        return True

    async def _hold(self, decision_id: str, ask: AskRecord, n_tokens: int) -> _Held | None:
        """Set tokens aside; None where there are not enough, or nobody knows."""
        known = self._held.get(decision_id, [])
        wanted = self._wanted(f"{decision_id}@{ask.ask_id}#{len(known)}", ask, n_tokens)
        try:
            reserved = await self._state.reserve(wanted)
        except StateUnavailable as error:
            logger.warning("capacity of %s not known, its list price holds: %s", ask.offer, error)
            return None
        if not reserved.nusd:
            return None
        held = _Held(wanted.id, ask.offer, n_tokens)
        self._held.setdefault(decision_id, []).append(held)
        return held

    def settle(self, decision_id: str, attempts: list[AttemptRecord]) -> None:
        """Put the tokens that were used in the place of those set aside."""
        holds = self._held.pop(decision_id, [])
        left = {held.offer: _used(attempts, held.offer) for held in holds}
        last = {held.offer: held for held in holds}
        for held in holds:
            used = left[held.offer]
            if held is not last[held.offer]:
                used = min(used, held.n_tokens)
            left[held.offer] -= used
            self._soon(self._settle(held.id, used))

    def _soon(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    def _wanted(self, reservation: str, ask: AskRecord, n_tokens: int) -> Wanted:
        now_us = self._clock.now_us()
        return Wanted(
            id=reservation,
            caps=(Cap(ask.ask_id, ask.capacity_tokens or 0),),
            worst_nusd=n_tokens,
            likely_nusd=n_tokens,
            worst_share=1.0,
            now_us=now_us,
            expires_us=now_us + _HELD_US,
        )

    async def _settle(self, reservation: str, used: int) -> None:
        try:
            await self._state.settle(reservation, used)
        except StateUnavailable as error:
            logger.warning("tokens set aside count as used: %s", error)

    def note(self, decision: Decision, asked: BidRequest, view: MarketView, params: Params) -> None:
        """Count what a decision meant for every ask that was in force."""
        if not self._asks or not decision.ranked:
            return
        winner = decision.ranked[0]
        places = {bid.row: bid for bid in decision.ranked}
        codes = slate_for(view, asked, params).codes
        for row in self._asks:
            if self.in_force(row) is None:
                continue
            reason = OUTBID
            if row == winner.row:
                reason = WON
            elif row not in places and codes[row]:
                reason = reason_of(int(codes[row])).value
            count = self._counts.setdefault((row, reason), _Count())
            count.n += 1
            clearing = decision.clearing_price_nusd if reason == WON else winner.cost_nusd
            if clearing is not None:
                count.clearing_nusd += clearing
                count.n_clearing += 1
            bid = places.get(row)
            if reason == WON:
                count.tokens += asked.input_tokens
            elif bid is not None:
                count.short_nusd += max(bid.score_nusd - winner.score_nusd, 0.0)
                count.n_short += 1

    def tell(self) -> None:
        """Write down what was counted since the last time."""
        now_us = self._clock.now_us()
        counts, self._counts = self._counts, {}
        for (row, reason), count in counts.items():
            ask = self._asks[row]
            self._put(
                NoticeRecord(
                    ask_id=ask.ask_id,
                    offer=ask.offer,
                    seller=ask.seller,
                    at_us=now_us,
                    result="won" if reason == WON else "lost",
                    reason=reason,
                    n=count.n,
                    clearing_price_nusd=(
                        count.clearing_nusd / count.n_clearing if count.n_clearing else None
                    ),
                    short_nusd=count.short_nusd / count.n_short if count.n_short else None,
                )
            )

    async def run(self) -> None:
        """Keep what is spent and what is told fresh, until cancelled."""
        while True:
            await asyncio.sleep(POLL_S)
            await self._look()
            self.tell()

    async def _look(self) -> None:
        rows = [r for r, a in self._asks.items() if a.capacity_tokens is not None]
        if not rows:
            return
        try:
            levels = await self._state.spent([self._asks[row].ask_id for row in rows])
        except StateUnavailable as error:
            logger.warning("capacities of asks not known: %s", error)
            return
        changed = False
        for row, (spent, reserved) in zip(rows, levels, strict=True):
            capacity = self._asks[row].capacity_tokens or 0
            is_spent = spent + reserved >= capacity
            changed |= is_spent != bool(self._spent[row])
            self._spent[row] = is_spent
        if changed:
            self._refresh()

    async def close(self) -> None:
        """Tell what is left to tell, and wait for what is being settled."""
        self.tell()
        if self._settling:
            await asyncio.gather(*self._settling)


def _used(attempts: Sequence[AttemptRecord], offer: str) -> int:
    """Tokens in and out that were billed by an offer."""
    return sum(a.input_tokens + a.output_tokens for a in attempts if a.offer == offer)
