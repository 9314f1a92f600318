"""How long an auction takes: a whole Decision with ranked bids, on a market that moves.

A gateway making 1,000 decisions a second on a view renewed every 100 ms makes 100 per view, so
every hundredth decision here reads a new one. As in the gateway (`broker/live_market.py`) a new
view is made warm for the kinds of request asked for lately: that is work beside the requests, so
it is a figure of its own (`view_warm_*`), as is the same market without warming (`*_cold_*`).
Figures named `plain` are those of the array path, where the extra `[kernel]` is not installed.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bidding.auction import decide
from bidding.kernel import Kernel, compiled
from bidding.params import Params
from bidding.request import BidRequest
from bidding.warming import Warmer
from tests.bench.market import Market, requests

DECISIONS_PER_VIEW = 100
N_VIEWS = 60
N_REPEATS = 5


class Run(NamedTuple):
    """What things took, µs: each decision, each view, and the warming of each view."""

    decision: np.ndarray
    view: np.ndarray
    warm: np.ndarray


def run(
    n_offers: int, asked: Sequence[BidRequest], seed: int, kernel: Kernel | None, *, warm: bool
) -> Run:
    """`N_VIEWS` views of `DECISIONS_PER_VIEW` decisions; the first tenth is warm-up."""
    market = Market(n_offers, seed)
    market.book.kernel = kernel
    params = Params()
    warmer = Warmer()
    took = np.empty((N_VIEWS, DECISIONS_PER_VIEW))
    making, warming = np.empty(N_VIEWS), np.empty(N_VIEWS)
    clock = time.perf_counter_ns
    i = 0
    for n in range(N_VIEWS):
        market.tick()
        begun = clock()
        view = market.book.view(market.at_us)
        making[n] = clock() - begun
        begun = clock()
        if warm:
            warmer.warm(view, params)
        warming[n] = clock() - begun
        for k in range(DECISIONS_PER_VIEW):
            request = asked[i % len(asked)]
            begun = clock()
            decide(view, request, params, seed * 1_000_003 + i)
            took[n, k] = clock() - begun
            i += 1
        warmer.note(view, view.at_us)
    first = N_VIEWS // 10
    return Run(took[first:].ravel() * 1e-3, making[first:] * 1e-3, warming[first:] * 1e-3)


def _runs(
    n_offers: int, asked: Sequence[BidRequest], kernel: Kernel | None, *, warm: bool = True
) -> list[Run]:
    gc.collect()
    return [run(n_offers, asked, seed, kernel, warm=warm) for seed in range(N_REPEATS)]


def _figures(name: str, runs: Sequence[Run]) -> dict[str, float]:
    """Median over the repeats of each percentile, so that one noisy moment does not decide.

    `*_p99_best_us` is the least of the repeats' p99: what is left when the machine is quiet.
    """
    p50 = [float(np.percentile(r.decision, 50)) for r in runs]
    p99 = [float(np.percentile(r.decision, 99)) for r in runs]
    return {
        f"{name}_p50_us": float(np.median(p50)),
        f"{name}_p99_us": float(np.median(p99)),
        f"{name}_p99_best_us": min(p99),
    }


def _held(n_offers: int, asked: Sequence[BidRequest]) -> tuple[float, float, int]:
    """Bytes held by a book with a view of it, and by that view's slates; how many slates."""
    params = Params()
    gc.collect()
    tracemalloc.start()
    try:
        market = Market(n_offers)
        market.tick()
        view = market.book.view(market.at_us)
        gc.collect()
        bare = tracemalloc.get_traced_memory()[0]
        for request in asked:
            decide(view, request, params, 1)
        gc.collect()
        return bare, tracemalloc.get_traced_memory()[0] - bare, len(view.memo.slates)
    finally:
        tracemalloc.stop()


def memory() -> dict[str, float]:
    """Bytes an offer costs: in the book with one view of it, and more for each kind of request.

    Differences between a market of 1,000 offers and one of 100, so that what does not depend on
    offers is left out.
    """
    asked = requests(400)
    few, many = _held(100, asked), _held(1_000, asked)
    return {
        "bytes_per_offer": (many[0] - few[0]) / 900,
        "bytes_per_offer_and_kind": (many[1] / many[2] - few[1] / few[2]) / 900,
    }


def figures() -> dict[str, float]:
    """Microseconds a decision, at 100 and 1,000 offers, with prompt features and without."""
    plain = requests(4_000)
    featured = requests(4_000, with_features=True)
    begun = time.perf_counter()
    kernel = compiled()
    load_s = time.perf_counter() - begun
    few, many = _runs(100, plain, kernel), _runs(1_000, plain, kernel)
    return {
        **_figures("decision_100", few),
        **_figures("decision_1000", many),
        **_figures("decision_100_features", _runs(100, featured, kernel)),
        **_figures("decision_1000_features", _runs(1_000, featured, kernel)),
        **_figures("decision_100_cold", _runs(100, plain, kernel, warm=False)),
        **_figures("decision_100_plain", _runs(100, plain, None)),
        **_figures("decision_1000_plain", _runs(1_000, plain, None)),
        **_figures("decision_100_features_plain", _runs(100, featured, None)),
        "view_us": float(np.median([np.median(r.view) for r in few])),
        "view_warm_us": float(np.median([np.median(r.warm) for r in few])),
        "view_warm_1000_us": float(np.median([np.median(r.warm) for r in many])),
        **memory(),
        "kernel_load_s": load_s if kernel is not None else 0.0,
    }


if __name__ == "__main__":
    print(figures())
