"""Trials of params at the gateway: under which params a request is bought, and what others would.

A request of a canary is bought under the canary's params; everybody else's under those in force.
What other params would have bought is computed when the request is over, on the very view it was
decided on, so no answer waits for it: for a shadow the trial's params, for a request of a canary
those in force (a paired comparison, which is worth many requests). Either may take no more than a
set share of the process's time; beyond that it is left out and counted. Each has a share of its
own, so that a shadow of all requests does not blind what watches a canary.
"""

from __future__ import annotations

from typing import Final

import msgspec

from bidding.auction import decide
from bidding.params import Params
from bidding.request import BidRequest
from bidding.trial import Trial
from bidding.view import MarketView
from broker.live_market import LiveMarket
from broker.metrics import Metrics
from feeds.clock import Clock
from feeds.flight import note_shadow
from feeds.records import DecisionRecord

_MOST_CREDIT_NS: Final = 20_000_000
"""What may be saved up: enough for some hundred auctions on a market never seen before."""


class Trials:
    """One a gateway.

    Parameters
    ----------
    time_share : most of the process's time that computing for a shadow may take, and for a canary
    """

    def __init__(
        self, market: LiveMarket, clock: Clock, metrics: Metrics, *, time_share: float = 0.05
    ) -> None:
        self._market = market
        self._clock = clock
        self._metrics = metrics
        now_ns = clock.monotonic_ns()
        self._for_shadow = _Allowance(time_share, now_ns)
        self._for_canary = _Allowance(time_share, now_ns)

    def assigned(self, asked: BidRequest, key: str) -> tuple[Params, BidRequest]:
        """Under which params the request of this key is bought, and the request with its arm."""
        canary = self._market.canary
        if canary is None or not canary.takes(key, asked.tenant, self._clock.now_us()):
            return self._market.params, asked
        return canary.params, msgspec.structs.replace(asked, arm=canary.arm)

    def compare(
        self, record: DecisionRecord, view: MarketView, asked: BidRequest, key: str
    ) -> None:
        """Write into `record` what other params would have bought, where that is wanted.

        Parameters
        ----------
        view, asked : what the decision read
        """
        shadow = self._market.shadow
        if asked.arm:
            params, arm, allowance = self._market.params, "", self._for_canary
        elif shadow is not None and self._wanted(shadow, asked, key):
            params, arm, allowance = shadow.params, shadow.arm, self._for_shadow
        else:
            return
        if record.params_version == params.version:
            return  # the canary has ended meanwhile, by being put in force
        begun_ns = self._clock.monotonic_ns()
        if not allowance.some_left(begun_ns):
            self._metrics.shadow_decisions.labels("left_out").inc()
            return
        other = msgspec.structs.replace(asked, arm=arm)
        decision = decide(view, other, params, record.seed)
        note_shadow(record, params.version, decision.winner)
        took_ns = self._clock.monotonic_ns() - begun_ns
        allowance.left_ns -= took_ns
        word = "same" if record.shadow_winner == record.winner else "other"
        self._metrics.shadow_decisions.labels(word).inc()
        self._metrics.shadow_seconds.observe(took_ns * 1e-9)

    def _wanted(self, shadow: Trial, asked: BidRequest, key: str) -> bool:
        return shadow.takes(key, asked.tenant, self._clock.now_us())


class _Allowance:
    """A share of the process's time: earned as time goes by, saved up only so far."""

    __slots__ = ("_at_ns", "_share", "left_ns")

    def __init__(self, share: float, now_ns: int) -> None:
        self._share = share
        self._at_ns = now_ns
        self.left_ns = float(_MOST_CREDIT_NS)

    def some_left(self, now_ns: int) -> bool:
        earned_ns = (now_ns - self._at_ns) * self._share
        self._at_ns = now_ns
        self.left_ns = min(self.left_ns + earned_ns, _MOST_CREDIT_NS)
        return self.left_ns > 0.0
