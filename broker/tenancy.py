"""A key's limits around one request: let in, money set aside, and both put right at the end.

    hold = await tenancy.admit(caller, asked, budget)   # RateLimited
    order parts = await tenancy.reserve(hold, …)        # BudgetSpent
    hold.close(settled)                                 # whatever became of it

A key without limits passes through without asking anybody.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import Final, NamedTuple

from bidding.decision import Bid
from bidding.request import BidRequest, Budget
from bidding.view import MarketView
from broker.auth import Caller
from broker.budget_pacing import BudgetPacing
from broker.budgets import Budgets, Reservation, caps_of
from broker.rate_limits import RateLimits
from broker.shared_state import Cap, SharedState, StateUnavailable
from feeds.clock import Clock

_INPUT_MARGIN: Final = 1.3
_INPUT_SLACK: Final = 64
_TAIL_SD: Final = 2.33
_TAIL_SLACK: Final = 32
_DEARER: Final = 4.0
_HINT_US: Final = 1_000_000
_MAX_HINTS: Final = 100_000
Purse = tuple[str, Budget | None]
"""What requests spend from together: a key's budgets, and the one that they state."""


class Bound(NamedTuple):
    """What a request may cost: at worst, and with an answer of at most `n_tokens`.

    `kept` are the bids that the likely cost covers.
    """

    worst_nusd: float
    likely_nusd: float
    n_tokens: int
    kept: tuple[Bid, ...]


def cost_bound(
    view: MarketView, asked: BidRequest, ranked: tuple[Bid, ...], n_choices: int
) -> Bound:
    """What buying from `ranked` may cost: pure.

    The likely length is one that 99 of 100 answers of the task keep to. Runners-up that cost
    more than four times the winner are left out of the likely cost.
    """
    task = view.task(asked.task)
    n_input = asked.input_tokens * _INPUT_MARGIN + _INPUT_SLACK

    def cost(row: int, n_output: float) -> float:
        prices = view.prices
        return float(
            prices.request_nusd[row]
            + prices.input_nusd[row] * n_input
            + prices.output_nusd[row] * n_output * n_choices
        )

    def most(row: int) -> float:
        limit = float(view.offers.max_output_tokens[row])
        return limit if asked.max_output_tokens is None else min(limit, asked.max_output_tokens)

    def likely(row: int) -> float:
        log = float(task.out_log_tokens[row] + _TAIL_SD * task.out_log_sd[row])
        return min(math.exp(min(log, 16.0)) + _TAIL_SLACK, most(row))

    dearest = _DEARER * cost(ranked[0].row, likely(ranked[0].row))
    kept = tuple(bid for bid in ranked if cost(bid.row, likely(bid.row)) <= dearest)
    n_tokens = math.ceil(max(likely(bid.row) for bid in kept))
    return Bound(
        worst_nusd=max(cost(bid.row, most(bid.row)) for bid in ranked),
        likely_nusd=max(cost(bid.row, min(n_tokens, most(bid.row))) for bid in kept),
        n_tokens=n_tokens,
        kept=kept,
    )


class Hold:
    """What one request has taken of its key's limits until it is closed."""

    def __init__(
        self, tenancy: Tenancy, caller: Caller, n_tokens: int, stated: Budget | None = None
    ) -> None:
        self._tenancy = tenancy
        self._caller = caller
        self._stated = stated
        self._n_tokens = n_tokens
        self._reservations: list[Reservation] = []
        self._closed = False

    @property
    def has_budget(self) -> bool:
        """Whether money has to be set aside before a call."""
        policy = self._caller.policy
        return (
            self._stated is not None
            or policy.budget_day_usd is not None
            or policy.budget_month_usd is not None
        )

    @property
    def money_price(self) -> float:
        """κ: what a dollar is worth beyond a dollar, so that the request's budgets last."""
        if not self.has_budget:
            return 0.0
        return self._tenancy.money_price(self._caller, self._stated)

    @property
    def reserve_nusd(self) -> float:
        """The most the request may be expected to cost, as known a second ago; no bound where
        that is not known: then the reservation has the last word.
        """
        return self._tenancy.reserve_nusd((self._caller.key_id, self._stated))

    async def reserve(self, bound: Bound, ends_us: int) -> Reservation | None:
        """Set money aside. Raises `BudgetSpent`, `StateUnavailable`."""
        tenancy = self._tenancy
        reservation = await tenancy.budgets.reserve(
            self._caller.key_id,
            self._caller.policy,
            worst_nusd=bound.worst_nusd,
            likely_nusd=bound.likely_nusd,
            ends_us=ends_us,
            stated=self._stated,
        )
        if reservation is not None:
            self._reservations.append(reservation)
            tenancy.note_left((self._caller.key_id, self._stated), reservation.left_nusd)
        return reservation

    def close(self, spent_nusd: int, n_tokens: int) -> None:
        """Put what was spent and used in the place of what was taken; only the first call counts.

        With several reservations (an answer that failed its check was bought again) the first
        bears what was spent and the others nothing.
        """
        if self._closed:
            return
        self._closed = True
        tenancy, caller = self._tenancy, self._caller
        tenancy.limits.correct_soon(
            caller.key_id, caller.policy, n_taken=self._n_tokens, n_used=n_tokens
        )
        if self._reservations:
            tenancy.paid(caller, spent_nusd, self._stated)
        for reservation in self._reservations:
            tenancy.budgets.settle_soon(reservation.id, spent_nusd)
            spent_nusd = 0


class Tenancy:
    """Budgets and limits of all keys, as this process applies them."""

    def __init__(self, state: SharedState, clock: Clock) -> None:
        self.budgets = Budgets(state, clock)
        self.limits = RateLimits(state, clock)
        self._clock = clock
        self._left: dict[Purse, tuple[int, int]] = {}
        self._pacing = BudgetPacing()
        self._asked_at_us: dict[Purse, int] = {}
        self._asking: set[asyncio.Task[None]] = set()

    async def admit(self, caller: Caller, n_tokens: int, stated: Budget | None = None) -> Hold:
        """Let a request of about `n_tokens` tokens in, which states a budget of its own or not.

        Raises
        ------
        RateLimited
        BadRequest
            The key's apps state too many budgets.
        """
        policy = caller.policy
        if stated is not None:
            self.budgets.know(caller.key_id, stated)
        if policy.limit_rpm is not None or policy.limit_tpm is not None:
            await self.limits.admit(caller.key_id, policy, n_tokens)
        return Hold(self, caller, n_tokens, stated)

    def money_price(self, caller: Caller, stated: Budget | None) -> float:
        """κ of the budgets that a request of this key spends from."""
        caps = caps_of(caller.key_id, caller.policy, self._clock.now_us(), stated)
        return self._pacing.money_price(caller.key_id, caps)

    def paid(self, caller: Caller, spent_nusd: int, stated: Budget | None) -> None:
        """A request with a budget has ended. Now and then, ask what others have spent."""
        now_us = self._clock.now_us()
        caps = caps_of(caller.key_id, caller.policy, now_us, stated)
        self._pacing.spent(caller.key_id, caps, float(spent_nusd), now_us)
        purse = (caller.key_id, stated)
        if now_us - self._asked_at_us.get(purse, -_HINT_US) < _HINT_US:
            return
        if len(self._asked_at_us) > _MAX_HINTS:
            self._asked_at_us.clear()
        self._asked_at_us[purse] = now_us
        task = asyncio.get_running_loop().create_task(self._ask(caller.key_id, caps))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _ask(self, key_id: str, caps: tuple[Cap, ...]) -> None:
        with contextlib.suppress(StateUnavailable):
            spent = await self.budgets.spent_nusd(caps)
            self._pacing.told(key_id, spent, self._clock.now_us())

    def reserve_nusd(self, purse: Purse) -> float:
        """What a purse held a second ago at most; no bound where that is not known."""
        left_nusd, at_us = self._left.get(purse, (0, -_HINT_US))
        is_fresh = self._clock.now_us() - at_us < _HINT_US
        return float(left_nusd) if is_fresh and left_nusd > 0 else math.inf

    def note_left(self, purse: Purse, left_nusd: int) -> None:
        """What a purse holds now beside what is set aside."""
        if len(self._left) > _MAX_HINTS:
            self._left.clear()
        self._left[purse] = (left_nusd, self._clock.now_us())

    async def close(self) -> None:
        """Wait for what is being put right."""
        await asyncio.gather(*self._asking, return_exceptions=True)
        await self.budgets.close()
        await self.limits.close()
