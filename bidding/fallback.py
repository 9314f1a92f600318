"""After a failed attempt: the next runner-up, the same offer again, or stop.

The best-ranked offer that is not full, not asking to be left alone, and in good standing: its
last attempt did not fail. An offer in bad standing is tried only as far as a budget goes of a
tenth of an attempt a request, over a sliding window, and while a call to it is out others are asked
first: one call finds out whether it is well again, not every one that comes meanwhile. So
fallback to a healthy seller is never starved, however many requests fail over at once, while
with every seller down attempts fall to 1.1 a request (a budget that counted every retry alike
would refuse the very fallbacks that help at the onset of an outage). How long to wait for each
is `bidding.waiting`'s to say.

References
----------
gRPC A6, client retries; Finagle, retry budgets.
"""

from __future__ import annotations

import enum
from collections.abc import Container, Sequence
from typing import NamedTuple

from bidding.decision import Bid
from bidding.outcome import FailureClass, lesson, tries_next_offer
from bidding.waiting import Aim, Forecast, WaitRules


class Candidate(NamedTuple):
    """A ranked offer as it stands now. `busy_ms` is how long it asked to be left alone,
    `n_out` how many calls to it are out, `score_nusd` its bid as things stand (`late_score_nusd`):
    lower is asked first, equal ones in the ranking's order.
    """

    offer: str
    good_standing: bool = True
    full: bool = False
    busy_ms: float = 0.0
    n_out: int = 0
    score_nusd: float = 0.0


def late_score_nusd(
    bid: Bid, forecast: Forecast | None, aim: Aim, punctuality_price_nusd: float
) -> float:
    """A bid's score once time has gone by: its chance of being on time is what is left of it.

    The auction scored every offer as if asked at once. Asked later, a slow one loses more of its
    chance than a quick one, and at the class's price of punctuality that may turn the ranking.
    An offer of which nothing is known, or a request without a target, keeps its score.
    """
    by_ms = None if forecast is None else aim.first_token_by_ms(forecast)
    if forecast is None or by_ms is None:
        return bid.score_nusd
    lost = max(bid.p_on_time - forecast.p_first_within(by_ms), 0.0)
    return bid.score_nusd + punctuality_price_nusd * lost


class StopReason(enum.StrEnum):
    """Why no further attempt is made."""

    FINAL = "final"
    SPENT = "spent"
    DEADLINE = "deadline"
    BUDGET = "budget"
    BUSY = "busy"


class Try(NamedTuple):
    """Ask the candidate at `place` of the ranking, after `delay_ms`."""

    place: int
    delay_ms: float = 0.0


class Stop(NamedTuple):
    """Give up; `retry_after_ms` is when trying again may help."""

    reason: StopReason
    retry_after_ms: float = 1000.0


def next_step(
    candidates: Sequence[Candidate],
    ended: Sequence[tuple[str, FailureClass]],
    *,
    remaining_ms: float,
    budget_allows: bool,
    same_offer_allows: bool,
    rules: WaitRules,
    jitter: float = 0.5,
    waiting: Container[str] = (),
) -> Try | Stop:
    """What to do now.

    Parameters
    ----------
    candidates : sequence of Candidate
        The decision's bids, best first; asked in the order of their scores as they stand now.
    ended : sequence of (offer, FailureClass)
        This request's attempts so far, in order; empty before the first.
    budget_allows : bool
        Whether the budget for offers in bad standing has something left.
    same_offer_allows : bool
        Whether the budget for asking the same offer again has.
    jitter : float in 0..1
        Drawn by the caller; scales the back-off before the same offer is asked again.
    waiting : container of str
        Offers being asked at this moment (hedging); not to be asked twice at once.

    Notes
    -----
    The first attempt needs no budget: whether the winner may be asked, the auction has decided.
    """
    if ended and not tries_next_offer(ended[-1][1]):
        return Stop(StopReason.FINAL)
    if remaining_ms < rules.min_useful_ms:
        return Stop(StopReason.DEADLINE)
    if len(ended) >= rules.max_attempts:
        return Stop(StopReason.SPENT)
    tried = {offer for offer, _ in ended}
    busy: list[float] = []
    over_budget = False
    doubtful: int | None = None
    for i in sorted(range(len(candidates)), key=lambda i: candidates[i].score_nusd):
        candidate = candidates[i]
        if candidate.offer in tried or candidate.offer in waiting:
            continue
        if candidate.full or candidate.busy_ms > 0.0:
            busy.append(max(candidate.busy_ms, 50.0))
        elif ended and not candidate.good_standing and not budget_allows:
            over_budget = True
        elif not candidate.good_standing and candidate.n_out:
            doubtful = i if doubtful is None else doubtful
        elif doubtful is not None and not candidate.good_standing:
            continue
        else:
            return Try(i)
    if doubtful is not None:
        return Try(doubtful)
    again = _again(candidates, ended, remaining_ms, rules, jitter)
    if again is not None and same_offer_allows and not waiting:
        return again
    if over_budget:
        return Stop(StopReason.BUDGET)
    if busy:
        return Stop(StopReason.BUSY, min(busy))
    return Stop(StopReason.SPENT)


def _again(
    candidates: Sequence[Candidate],
    ended: Sequence[tuple[str, FailureClass]],
    remaining_ms: float,
    rules: WaitRules,
    jitter: float,
) -> Try | None:
    """The same offer again, when there is no other: for what may pass, after a random pause."""
    if not ended:
        return None
    offer, failure = ended[-1]
    if failure not in _PASSING:
        return None
    n_here = sum(o == offer for o, _ in ended)
    for i, candidate in enumerate(candidates):
        if candidate.offer == offer and n_here < rules.max_same_offer and not candidate.full:
            delay = max(candidate.busy_ms, jitter * rules.backoff_ms * 2.0**n_here)
            if delay + rules.min_useful_ms < remaining_ms and delay < 5_000.0:
                return Try(i, delay)
    return None


_PASSING = {
    FailureClass.CONNECT,
    FailureClass.RATE_LIMITED,
    FailureClass.OVERLOADED,
    FailureClass.SERVER_ERROR,
    FailureClass.MALFORMED,
    FailureClass.TRUNCATED,
}


class Standings:
    """Whose last attempt failed. Asking to be left alone, or hanging up, says nothing."""

    __slots__ = ("_bad", "_bound")

    def __init__(self, bound: int = 100_000) -> None:
        self._bad: dict[str, None] = {}
        self._bound = bound

    def good(self, offer: str) -> bool:
        return offer not in self._bad

    def note(self, offer: str, failure: FailureClass) -> None:
        """An attempt at `offer` ended so."""
        taught = lesson(failure)
        if taught == "success":
            self._bad.pop(offer, None)
        elif taught != "nothing":
            self._bad[offer] = None
            if len(self._bad) > self._bound:
                self._bad.pop(next(iter(self._bad)))
