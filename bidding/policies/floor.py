"""Cheapest offer whose quality meets the floor, else the best: by Thompson, UCB or ε-greedy.

The rule most routers use, kept to compare with: on hard prompts nobody qualifies, and it buys
the dearest model just where that helps least (docs/decisions/0012).

References
----------
Chapelle, Li (2011), An empirical evaluation of Thompson sampling, NeurIPS.
Auer, Cesa-Bianchi, Fischer (2002), Finite-time analysis of the multiarmed bandit problem.
"""

from __future__ import annotations

from typing import ClassVar, Final

import numpy as np

from bidding.columns import Floats
from bidding.draws import normals, uniform
from bidding.params import Params
from bidding.request import BidRequest
from bidding.slate import Slate

_BELOW_FLOOR_NUSD: Final = 1e15
EPSILON: Final = 0.05


def cheapest_above(floor: float, quality: Floats, cost_nusd: Floats) -> Floats:
    """Scores: cost where `quality` meets `floor`; behind all of those, the highest quality.

    Examples
    --------
    >>> cheapest_above(0.9, np.array([0.95, 0.92, 0.5]), np.array([9.0, 5.0, 1.0])).argmin()
    np.int64(1)
    """
    return np.where(quality >= floor, cost_nusd, _BELOW_FLOOR_NUSD * (2.0 - quality))


class ThompsonFloor:
    """P(good) is sampled from its posterior."""

    name: ClassVar[str] = "thompson-with-floor"
    draws: ClassVar[bool] = True
    explores: ClassVar[bool] = False

    def score(
        self, slate: Slate, request: BidRequest, cost_nusd: Floats, params: Params, seed: int
    ) -> Floats:
        sampled = slate.p_good + slate.p_good_sd * normals(seed, len(slate.rows))
        return cheapest_above(request.sla.quality or 0.0, sampled, cost_nusd)


class UcbFloor:
    """P(good) gets the benefit of the doubt."""

    name: ClassVar[str] = "ucb-with-floor"
    draws: ClassVar[bool] = False
    explores: ClassVar[bool] = False

    def score(
        self, slate: Slate, request: BidRequest, cost_nusd: Floats, params: Params, seed: int
    ) -> Floats:
        upper = np.minimum(slate.p_good + params.choice.optimism_sd * slate.p_good_sd, 1.0)
        return cheapest_above(request.sla.quality or 0.0, upper, cost_nusd)


class EpsilonFloor:
    """P(good) as believed; one request in twenty goes to any offer."""

    name: ClassVar[str] = "epsilon-greedy"
    draws: ClassVar[bool] = True
    explores: ClassVar[bool] = False

    def score(
        self, slate: Slate, request: BidRequest, cost_nusd: Floats, params: Params, seed: int
    ) -> Floats:
        if uniform(seed, 2) < EPSILON:
            return normals(seed, len(slate.rows))
        return cheapest_above(request.sla.quality or 0.0, slate.p_good, cost_nusd)
