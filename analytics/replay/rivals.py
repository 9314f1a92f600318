"""Routers to compare with that keep a memory of their own: round robin and LiteLLM's strategies.

LiteLLM 1.x routes within one group of deployments; here the group is the whole market. Each of
its strategies is restated by what it does to a request, not by its code: `simple-shuffle` draws
alike, `usage-based` takes the deployment with the fewest tokens this minute, `latency-based` the
lowest mean latency of those tried (untried ones first), `cost-based` the lowest list price of a
token in plus a token out.
"""

from __future__ import annotations

from typing import ClassVar, Protocol, runtime_checkable

import numpy as np

from analytics.replay.files import Floats
from bidding.draws import normals
from bidding.params import Params
from bidding.request import BidRequest
from bidding.slate import Slate
from bidding.units import NUSD_PER_USD

MEMORY = 10
"""Latencies LiteLLM keeps per deployment."""

FAILED_S = 1000.0
"""What LiteLLM books as the latency of a timeout."""


@runtime_checkable
class Remembers(Protocol):
    """A policy that is told what each of its requests came to."""

    def settled(self, row: int, ttft_s: float, n_tokens: float, at_s: float) -> None:
        """The offer at `row` served `n_tokens` after `ttft_s` (infinite: it failed)."""
        ...


class RoundRobin:
    """Offers in turn."""

    name: ClassVar[str] = "round-robin"
    draws: ClassVar[bool] = False
    explores: ClassVar[bool] = False

    def __init__(self, n_offers: int) -> None:
        self._n_offers = n_offers
        self._next = -1

    def score(
        self, slate: Slate, request: BidRequest, cost_nusd: Floats, params: Params, seed: int
    ) -> Floats:
        self._next = (self._next + 1) % self._n_offers
        scores: Floats = ((slate.rows - self._next) % self._n_offers).astype(np.float64)
        return scores


class SimpleShuffle:
    """LiteLLM's default: any deployment, all alike."""

    name: ClassVar[str] = "litellm-simple-shuffle"
    draws: ClassVar[bool] = True
    explores: ClassVar[bool] = False

    def score(
        self, slate: Slate, request: BidRequest, cost_nusd: Floats, params: Params, seed: int
    ) -> Floats:
        return normals(seed ^ 0x5F5F, len(slate.rows))


class UsageBased:
    """Fewest tokens in the running minute."""

    name: ClassVar[str] = "litellm-usage-based"
    draws: ClassVar[bool] = True
    explores: ClassVar[bool] = False

    def __init__(self, n_offers: int) -> None:
        self._tokens = np.zeros(n_offers)
        self._minute = 0

    def score(
        self, slate: Slate, request: BidRequest, cost_nusd: Floats, params: Params, seed: int
    ) -> Floats:
        noise: Floats = 1e-6 * normals(seed, len(slate.rows))
        return self._tokens[slate.rows] + noise

    def settled(self, row: int, ttft_s: float, n_tokens: float, at_s: float) -> None:
        minute = int(at_s // 60)
        if minute != self._minute:
            self._tokens[:] = 0.0
            self._minute = minute
        self._tokens[row] += n_tokens


class LatencyBased:
    """Lowest mean latency of the last few calls; what was never tried comes first."""

    name: ClassVar[str] = "litellm-latency-based"
    draws: ClassVar[bool] = True
    explores: ClassVar[bool] = False

    def __init__(self, n_offers: int) -> None:
        self._last: list[list[float]] = [[] for _ in range(n_offers)]
        self._mean = np.zeros(n_offers)

    def score(
        self, slate: Slate, request: BidRequest, cost_nusd: Floats, params: Params, seed: int
    ) -> Floats:
        noise: Floats = 1e-9 * normals(seed, len(slate.rows))
        return self._mean[slate.rows] + noise

    def settled(self, row: int, ttft_s: float, n_tokens: float, at_s: float) -> None:
        last = self._last[row]
        last.append(min(ttft_s, FAILED_S))
        del last[:-MEMORY]
        self._mean[row] = sum(last) / len(last)


class CostBased:
    """Lowest list price of a token in plus a token out."""

    name: ClassVar[str] = "litellm-cost-based"
    draws: ClassVar[bool] = False
    explores: ClassVar[bool] = False

    def __init__(self, input_nusd: Floats, output_nusd: Floats, request_nusd: Floats) -> None:
        self._price = input_nusd + output_nusd + request_nusd / NUSD_PER_USD

    def score(
        self, slate: Slate, request: BidRequest, cost_nusd: Floats, params: Params, seed: int
    ) -> Floats:
        return self._price[slate.rows]
