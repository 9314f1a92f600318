"""What money is worth under a budget: κ of `bidding.budget`, fed with what it spends.

One a process. Several share a budget: each sees its own requests and, once a second, what all
have spent; it paces the part of the budget that its part of the spending stands for. A process
that starts in the middle of a period knows the pace since then, and teaches nothing of when
requests come until it has seen a period from its beginning. Nothing is kept over a restart.
One key's many budgets never crowd out another's.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Final

from bidding.budget import ArrivalProfile, BudgetPrice
from broker.shared_state import Cap

N_WHOLE: Final = 0.05
"""A period seen from before this share of it counts as seen whole."""
_MAX_KEYS: Final = 100_000
_MAX_OF_KEY: Final = 256


class _Paced:
    """One budget of one key."""

    def __init__(self) -> None:
        self.profile = ArrivalProfile()
        self.price = BudgetPrice()
        self.period = ""
        self.began_share = 0.0
        self.n = 0
        self.own_nusd = 0.0
        self.all_nusd = 0.0
        self.own_since_nusd = 0.0
        self.before_nusd: float | None = None
        """What was spent in the period before this process had begun; None: not known yet."""

    def turn(self, period: str, at_share: float) -> None:
        """Begin a period, if it is a new one."""
        if period == self.period:
            return
        if self.period and self.began_share <= N_WHOLE:
            self.profile.end_period()
        elif self.period:
            self.profile = ArrivalProfile()
        self.began_share = at_share if not self.period else 0.0
        self.period = period
        self.n = 0
        self.own_nusd = self.all_nusd = self.own_since_nusd = 0.0
        self.before_nusd = 0.0 if self.began_share <= N_WHOLE else None

    def to_come(self, at_share: float) -> float:
        """Requests expected of this process until the period ends."""
        if self.began_share <= N_WHOLE:
            return self.profile.to_come(at_share)
        seen = at_share - self.began_share
        return (self.n + 1.0) * (1.0 - at_share) / (seen + 1.0 / 96.0)


class BudgetPacing:
    """κ of the budgets of every key that has any."""

    def __init__(self) -> None:
        self._keys: dict[str, dict[str, _Paced]] = {}

    def money_price(self, key_id: str, caps: tuple[Cap, ...]) -> float:
        """κ for a request of the key with these budgets: the dearest money of them."""
        known = self._keys.get(key_id)
        if known is None:
            return 0.0
        paced = [known.get(_name(cap.period)) for cap in caps]
        return max((p.price.money_price for p in paced if p is not None), default=0.0)

    def spent(self, key_id: str, caps: tuple[Cap, ...], cost_nusd: float, now_us: int) -> None:
        """A request has ended and cost so much."""
        for cap in caps:
            paced = self._paced_by(key_id, cap, now_us)
            at_share = share_of(cap.period, now_us)
            paced.n += 1
            paced.profile.arrived(at_share)
            paced.own_nusd += cost_nusd
            paced.own_since_nusd += cost_nusd
            all_nusd = max(paced.all_nusd + paced.own_since_nusd, paced.own_nusd)
            since_nusd = max(all_nusd - (paced.before_nusd or 0.0), paced.own_nusd)
            part = paced.own_nusd / since_nusd if since_nusd > 0.0 else 1.0
            paced.price.spent(
                cost_nusd,
                budget_nusd=paced.own_nusd + (cap.cap_nusd - all_nusd) * part,
                spent_nusd=paced.own_nusd,
                n_to_come=paced.to_come(at_share),
            )

    def told(self, key_id: str, all_nusd: Mapping[str, int], now_us: int) -> None:
        """What all processes have spent, by period."""
        for period, nusd in all_nusd.items():
            paced = self._paced_by(key_id, Cap(period, 0), now_us)
            paced.all_nusd = float(nusd)
            if paced.before_nusd is None:
                paced.before_nusd = max(paced.all_nusd - paced.own_nusd, 0.0)
            paced.own_since_nusd = 0.0

    def _paced_by(self, key_id: str, cap: Cap, now_us: int) -> _Paced:
        known = self._keys.get(key_id)
        if known is None:
            if len(self._keys) >= _MAX_KEYS:
                self._keys.pop(next(iter(self._keys)))
            known = self._keys[key_id] = {}
        name = _name(cap.period)
        paced = known.get(name)
        if paced is None:
            if len(known) >= _MAX_OF_KEY:
                known.pop(next(iter(known)))
            paced = known[name] = _Paced()
        paced.turn(cap.period, share_of(cap.period, now_us))
        return paced


def share_of(period: str, now_us: int) -> float:
    """How much of a period, named as `broker.budgets.caps_of` does, is over at `now_us`.

    Examples
    --------
    >>> share_of("k|day 1970-01-01", 43_200_000_000), share_of("k|month 1970-02", 2_678_400_000_000)
    (0.5, 0.0)
    """
    kind, _, begins = period.rpartition("|")[2].partition(" ")
    text = f"{begins}-01" if kind == "month" else begins
    begin = dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)
    length = dt.timedelta(hours=1) if kind == "hour" else dt.timedelta(days=1)
    if kind == "month":
        length = (begin + dt.timedelta(days=32)).replace(day=1) - begin
    passed_s = now_us * 1e-6 - begin.timestamp()
    return min(max(passed_s / length.total_seconds(), 0.0), 1.0)


def _name(period: str) -> str:
    """A budget's name over its periods."""
    return period.rpartition(" ")[0]
