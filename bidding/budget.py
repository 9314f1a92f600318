"""The dual price of money: κ, so that a period's budget buys as much quality as it can.

A dollar counts as 1 + κ dollars against what an answer is worth (`BidRequest.money_price`). κ
rises while requests cost more than what is left of the budget affords each of those still to
come, and falls while they cost less. The steps are in log(1 + κ), so κ is never negative and can
be exactly 0: money that is not short has no price. They lengthen towards the period's end, as
fewer requests are left to put a mistake right.

How many requests are still to come is learnt (`ArrivalProfile`): shares of past periods by time
of day, decayed, times what this period's pace says of its volume. Memory is constant.

References
----------
Balseiro, Gur: Learning in repeated auctions with budgets, Management Science 2019.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from msgspec import Struct

from bidding.request import MAX_MONEY_PRICE

N_BINS: Final = 96
MAX_LOG_PRICE: Final = math.log(MAX_MONEY_PRICE)


class BudgetParams(Struct, frozen=True, kw_only=True):
    """Settings of the controller; docs/decisions/0014 says how the defaults were picked.

    Attributes
    ----------
    aim_share : share of the budget that is aimed at; less than one, as overspending is worse
    settle_share : share of the requests still to come over which a mistake is put right
    least_requests : never put right over fewer requests than this
    max_error : bound of the logarithm of what is spent over what is affordable
    day_decay : weight of a past period against the one after it
    volume_share : how much of a usual period must be seen for its pace to count as much as
        the usual volume
    """

    aim_share: float = 0.99
    settle_share: float = 0.02
    least_requests: float = 60.0
    max_error: float = 1.5
    day_decay: float = 0.8
    volume_share: float = 0.05


DEFAULTS: Final = BudgetParams()


class ArrivalProfile:
    """When a period's requests come: decayed counts in `N_BINS` equal parts of the period."""

    def __init__(self, params: BudgetParams = DEFAULTS) -> None:
        self._params = params
        self._counts = np.zeros(N_BINS)
        self._weight = 0.0
        self._today = np.zeros(N_BINS)
        self._n_today = 0.0
        self._before = [0.0] * (N_BINS + 1)

    def arrived(self, at_share: float, n: float = 1.0) -> None:
        """Count requests at this share of the period; what makes no sense is passed over."""
        if math.isfinite(n) and n > 0.0 and 0.0 <= at_share <= 1.0:
            self._today[min(int(at_share * N_BINS), N_BINS - 1)] += n
            self._n_today += n

    def end_period(self) -> None:
        """The period is over: learn from it and start the next. An empty one teaches nothing."""
        if self._n_today > 0.0:
            self._counts = self._counts * self._params.day_decay + self._today
            self._weight = self._weight * self._params.day_decay + 1.0
            usual = self._counts / self._weight
            self._before = [0.0, *np.cumsum(usual).tolist()]
        self._today[:] = 0.0
        self._n_today = 0.0

    def to_come(self, at_share: float) -> float:
        """Expected requests from this share of the period to its end; finite and >= 0.

        Without any past period arrivals count as even.
        """
        at = min(max(at_share, 0.0), 1.0) if math.isfinite(at_share) else 0.0
        n = self._n_today
        usual = self._before[-1]
        if usual <= 0.0:
            return (n + 1.0) * (1.0 - at) / (at + 1.0 / N_BINS)
        place = at * N_BINS
        part = min(int(place), N_BINS - 1)
        inside = self._before[part + 1] - self._before[part]
        expected = self._before[part] + (place - part) * inside
        prior = max(self._params.volume_share * usual, 1.0)
        return max(usual - expected, 0.0) * (n + prior) / (expected + prior)


def next_log_price(
    log_price: float,
    *,
    budget_nusd: float,
    spent_nusd: float,
    n_to_come: float,
    nusd_per_request: float,
    n_requests: float = 1.0,
    params: BudgetParams = DEFAULTS,
) -> float:
    """log(1 + κ) after `n_requests` more requests; in 0 … log(1e6), whatever is fed.

    Parameters
    ----------
    n_to_come : requests expected until the period's end
    nusd_per_request : what recent requests cost, each

    Notes
    -----
    Never falls when `spent_nusd` rises. Input that is not finite leaves the price as it was.
    """
    held = min(max(log_price, 0.0), MAX_LOG_PRICE) if math.isfinite(log_price) else 0.0
    fed = (budget_nusd, n_to_come, nusd_per_request, n_requests)
    if not all(map(math.isfinite, fed)) or math.isnan(spent_nusd):
        return held
    if nusd_per_request <= 0.0 or n_requests <= 0.0:
        return held
    left = params.aim_share * budget_nusd - spent_nusd
    ahead = max(n_to_come, 1.0)
    affordable = left / ahead
    if affordable <= 0.0:
        error = params.max_error
    else:
        # Logarithms apart: the quotient of extreme values could overflow or vanish.
        error = math.log(nusd_per_request) - math.log(affordable) if affordable < math.inf else -1e9
        error = min(max(error, -params.max_error), params.max_error)
    over = max(params.settle_share * ahead, params.least_requests)
    moved = held + error * min(n_requests / over, 1.0)
    return min(max(moved, 0.0), MAX_LOG_PRICE)


class BudgetPrice:
    """κ of one budget: told of every request, it says what money is worth to the next."""

    def __init__(self, params: BudgetParams = DEFAULTS, log_price: float = 0.0) -> None:
        self._params = params
        self._recent_nusd = 0.0
        self._recent_weight = 0.0
        self.log_price = log_price

    @property
    def money_price(self) -> float:
        """κ, 0 … 1e6."""
        return min(math.expm1(self.log_price), MAX_MONEY_PRICE)

    def spent(
        self,
        cost_nusd: float,
        *,
        budget_nusd: float,
        spent_nusd: float,
        n_to_come: float,
        n_requests: float = 1.0,
    ) -> None:
        """Note what `n_requests` cost together, and step the price.

        A negative or not finite cost counts for nothing.
        """
        if math.isfinite(cost_nusd) and cost_nusd >= 0.0 and 0.0 < n_requests < math.inf:
            span = self._params.settle_share * n_to_come if math.isfinite(n_to_come) else 0.0
            keep = math.exp(-3.0 * n_requests / max(span, self._params.least_requests))
            self._recent_nusd = keep * self._recent_nusd + (1.0 - keep) * cost_nusd / n_requests
            self._recent_weight = keep * self._recent_weight + 1.0 - keep
        if self._recent_weight > 0.0:
            self.log_price = next_log_price(
                self.log_price,
                budget_nusd=budget_nusd,
                spent_nusd=spent_nusd,
                n_to_come=n_to_come,
                nusd_per_request=self._recent_nusd / self._recent_weight,
                n_requests=n_requests,
                params=self._params,
            )
