"""The baselines all others have to beat: cheapest, best, fastest, random."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from bidding.columns import Floats
from bidding.draws import normals
from bidding.params import Params
from bidding.request import BidRequest
from bidding.slate import Slate


class Cheapest:
    """Least expected cost."""

    name: ClassVar[str] = "cheapest"
    draws: ClassVar[bool] = False
    explores: ClassVar[bool] = False

    def score(
        self, slate: Slate, request: BidRequest, cost_nusd: Floats, params: Params, seed: int
    ) -> Floats:
        return cost_nusd


class Best:
    """Highest P(good); among equals the cheapest."""

    name: ClassVar[str] = "best"
    draws: ClassVar[bool] = False
    explores: ClassVar[bool] = False

    def score(
        self, slate: Slate, request: BidRequest, cost_nusd: Floats, params: Params, seed: int
    ) -> Floats:
        dearest = float(np.max(cost_nusd, initial=1.0))
        return -slate.p_good * 1e9 + cost_nusd / max(dearest, 1.0)


class Fastest:
    """Highest P(on time); among equals the cheapest."""

    name: ClassVar[str] = "fastest"
    draws: ClassVar[bool] = False
    explores: ClassVar[bool] = False

    def score(
        self, slate: Slate, request: BidRequest, cost_nusd: Floats, params: Params, seed: int
    ) -> Floats:
        dearest = float(np.max(cost_nusd, initial=1.0))
        return -slate.p_on_time * 1e9 + cost_nusd / max(dearest, 1.0)


class Random:
    """Any eligible offer, all alike."""

    name: ClassVar[str] = "random"
    draws: ClassVar[bool] = True
    explores: ClassVar[bool] = False

    def score(
        self, slate: Slate, request: BidRequest, cost_nusd: Floats, params: Params, seed: int
    ) -> Floats:
        return normals(seed, len(slate.rows))
