"""Prices of quality and punctuality: least cost + harm − λ·P(good) − μ·P(on time).

Optimistic (UCB) in what is uncertain about a model's quality, so that a newcomer is tried where
it may be worth it. This is the broker's own policy; `bidding.pacing` sets λ and μ. Where the
buyer's budget is short, all but the cost counts 1 / (1 + κ): a score stays in dollars to pay.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from bidding.columns import Floats
from bidding.draws import normals
from bidding.params import Params
from bidding.request import BidRequest
from bidding.slate import Slate


class Priced:
    """The primal–dual policy with UCB optimism; draws nothing."""

    name: ClassVar[str] = "broker"
    draws: ClassVar[bool] = False
    explores: ClassVar[bool] = True

    def score(
        self, slate: Slate, request: BidRequest, cost_nusd: Floats, params: Params, seed: int
    ) -> Floats:
        scale = request.worth_scale
        return cost_nusd - (slate.worth_nusd if scale == 1.0 else slate.worth_nusd * scale)


class PricedThompson:
    """The same with half-sd Thompson draws of P(good) in place of the bonus."""

    name: ClassVar[str] = "broker-thompson"
    draws: ClassVar[bool] = True
    explores: ClassVar[bool] = False

    def score(
        self, slate: Slate, request: BidRequest, cost_nusd: Floats, params: Params, seed: int
    ) -> Floats:
        noise = 0.5 * slate.p_good_sd * normals(seed, len(slate.rows))
        sampled = np.clip(slate.p_good + noise, 0.0, 1.0)
        worth = (
            slate.quality_price_nusd * sampled
            + slate.punctuality_price_nusd * slate.p_on_time
            - slate.harm_nusd
        )
        return cost_nusd - worth * request.worth_scale
