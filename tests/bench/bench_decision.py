"""How long an auction takes: a whole Decision with ranked bids, on a market that moves.

A gateway making 1,000 decisions a second on a view renewed every 100 ms makes 100 per view, so
every hundredth decision here reads a new one. Slates are kept by view: what a new view costs its
first requests is in these figures.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence

import numpy as np

from bidding.auction import decide
from bidding.params import Params
from bidding.request import BidRequest
from tests.bench.market import Market, requests

DECISIONS_PER_VIEW = 100
N_VIEWS = 60
N_REPEATS = 5


def latencies_us(n_offers: int, asked: Sequence[BidRequest], seed: int) -> np.ndarray:
    """What each decision took, µs, over `N_VIEWS` views; the first tenth is warm-up."""
    market = Market(n_offers, seed)
    params = Params()
    took = np.empty(N_VIEWS * DECISIONS_PER_VIEW)
    clock = time.perf_counter_ns
    i = 0
    for _ in range(N_VIEWS):
        market.tick()
        view = market.book.view(1)
        for _ in range(DECISIONS_PER_VIEW):
            request = asked[i % len(asked)]
            begun = clock()
            decide(view, request, params, seed * 1_000_003 + i)
            took[i] = clock() - begun
            i += 1
    return took[len(took) // 10 :] * 1e-3


def _figures(name: str, n_offers: int, asked: Sequence[BidRequest]) -> dict[str, float]:
    """Median over the repeats of each percentile, so that one noisy moment does not decide."""
    gc.collect()
    runs = [latencies_us(n_offers, asked, seed) for seed in range(N_REPEATS)]
    return {
        f"{name}_p50_us": float(np.median([np.percentile(r, 50) for r in runs])),
        f"{name}_p99_us": float(np.median([np.percentile(r, 99) for r in runs])),
    }


def figures() -> dict[str, float]:
    """Microseconds a decision, at 100 and 1,000 offers, with prompt features and without."""
    plain = requests(4_000)
    featured = requests(4_000, with_features=True)
    return {
        **_figures("decision_100", 100, plain),
        **_figures("decision_1000", 1_000, plain),
        **_figures("decision_100_features", 100, featured),
    }


if __name__ == "__main__":
    print(figures())
