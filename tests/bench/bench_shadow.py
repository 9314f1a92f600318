"""What trying params beside those in force costs: decisions with and without a shadow.

A whole decision as the gateway makes it: under which params, the auction, its record; and with a
trial the other auction and the note of what it would have bought. The three take turns block by
block on the same views and requests, so that a busy machine slows all of them alike: the ratios
are what to read. The other auction is held once the answer has gone out, so `*_ratio` is of work,
not of what an app waits for: that is `shadow_assign_us`, alone on the request's path. Nothing is
left out here for lack of time; in the gateway `gateway.shadow_time_share` bounds it.
"""

from __future__ import annotations

import gc
import time
from typing import Final

import numpy as np

from bidding.auction import decide
from bidding.kernel import compiled
from bidding.params import Params
from bidding.params_change import with_changes
from bidding.request import BidRequest
from bidding.trial import Trial
from bidding.view import MarketView
from bidding.warming import Warmer
from broker.live_market import LiveMarket
from broker.metrics import Metrics
from broker.trials import Trials
from feeds.clock import SystemClock
from feeds.flight import decision_record
from feeds.kafka import KafkaSettings
from tests.bench.market import Market, requests

N_VIEWS: Final = 60
N_BLOCK: Final = 100
"""Decisions a view, as in `bench_decision`."""
_NO_BOUND: Final = 1e9


class Gateway:
    """What of a gateway decides and compares, with this trial or none."""

    def __init__(self, made: Market, trial: Trial | None) -> None:
        clock = SystemClock()
        market = LiveMarket(made.catalogue, KafkaSettings(), clock, Metrics())
        if trial is not None:
            market.in_force.trials[trial.kind] = trial
        self._trials = Trials(market, clock, Metrics(), time_share=_NO_BOUND)
        self.compared = 0

    def serve(self, view: MarketView, asked: BidRequest, seed: int) -> None:
        """Decide one request, write it down, compare."""
        key = f"dec_{seed}"
        params, asked = self._trials.assigned(asked, key)
        decision = decide(view, asked, params, seed)
        record = decision_record(decision, asked, decision_id=key, at_us=seed)
        self._trials.compare(record, view, asked, key)
        self.compared += record.shadow_winner is not None

    def assign(self, asked: BidRequest, seed: int) -> None:
        """Only say under which params."""
        self._trials.assigned(asked, f"dec_{seed}")


def figures() -> dict[str, float]:
    """Microseconds a decision at 100 offers, least of the blocks' means, and ratios of medians."""
    made = Market(100)
    made.book.kernel = compiled()
    tried = with_changes(Params(), {"choice.optimism_sd": 0.7}, version=1)
    gateways = {
        "none": Gateway(made, None),
        "shadow": Gateway(made, Trial(kind="shadow", params=tried, share=1.0)),
        "canary": Gateway(made, Trial(kind="canary", params=tried, share=1.0)),
    }
    asked = requests(4_000)
    warmer = Warmer()
    took: dict[str, list[float]] = {name: [] for name in gateways}
    assigning: list[float] = []
    clock = time.perf_counter_ns
    gc.collect()
    for n in range(N_VIEWS):
        made.tick()
        view = made.book.view(made.at_us)
        warmer.warm(view, Params())
        block = [asked[(n * N_BLOCK + k) % len(asked)] for k in range(N_BLOCK)]
        for name, gateway in gateways.items():
            begun = clock()
            for k, one in enumerate(block):
                gateway.serve(view, one, n * N_BLOCK + k)
            took[name].append((clock() - begun) * 1e-3 / N_BLOCK)
        begun = clock()
        for k, one in enumerate(block):
            gateways["canary"].assign(one, k)
        assigning.append((clock() - begun) * 1e-3 / N_BLOCK)
        warmer.note(view, view.at_us)
    first = N_VIEWS // 10
    plain = np.array(took["none"][first:])
    found = {
        "shadow_none_us": float(plain.min()),
        "shadow_assign_us": float(min(assigning[first:])),
    }
    for name in ("shadow", "canary"):
        with_it = np.array(took[name][first:])
        found[f"{name}_us"] = float(with_it.min())
        found[f"{name}_ratio"] = float(np.median(with_it / plain))
        found[f"{name}_compared_share"] = gateways[name].compared / (N_VIEWS * N_BLOCK)
    return found


if __name__ == "__main__":
    print(figures())
