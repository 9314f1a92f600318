"""`make canary`: canaries on the paper market under a simulated clock, through the real auction,
the real estimators and the real guard. A bad change has to be rolled back by itself within a
minute at 100 requests a second, having touched no more than its share; a harmless one (the params
in force once more) must not be, in twenty of twenty runs.

Every market is another seed: other prompts, other right answers, other delays. Canaries begin once
its prices of quality and punctuality have settled. Time is simulated, so a slow machine takes
longer to tell and tells the same.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Final

import msgspec
from msgspec import Struct

from bidding.guard import Guard, Worse
from bidding.params import Params
from bidding.params_change import with_changes
from bidding.request import BidRequest
from bidding.trial import Trial
from broker.guard_intake import seen_of
from broker.rehearsal.gateway import Assigned, Flown, RehearsedGateway
from broker.rehearsal.market import Ask, PaperTruth
from broker.rehearsal.whatif_truth import CURIOUS

RATE: Final = 100.0
WITHIN_S: Final = 60.0
SHARE: Final = 0.1
N_MARKETS: Final = 10
N_HARMLESS_OF_MARKET: Final = 2
_N_BEFORE: Final = 3_000
_N_SETTLING: Final = 20_000
_LOOK_EVERY: Final = 100
_LUCK_SD: Final = 4.0
BAD: Final[dict[str, dict[str, float]]] = {
    "quality margin dropped by 10 points": {"pacing.quality_margin": -0.095},
    "exploration of 50 %": {"exploration.burn_in_share": 0.5, "exploration.burn_in_tries": 500.0},
}
WITHIN_BOUNDS: Final[dict[str, dict[str, float]]] = {
    "exploration of 50 % among safe bids": {"exploration.share": 0.5}
}
"""Sounds bad and is not: only bids that keep the promises are drawn, and dear ones are not. What it
does is told; nothing is asked of it.
"""


class Run(Struct, frozen=True, kw_only=True):
    """One canary: after how many seconds it was rolled back and why, and whom it touched.

    `explored_share` is of its requests, bought though another bid was better; `true_good` and
    `true_on_time` are the chances of what it bought, without luck, and `control_*` of the rest.
    """

    name: str
    market: int
    lots: int
    rolled_back_s: float | None
    why: Worse | None
    n_touched: int
    n_requests: int
    explored_share: float
    true_good: float
    control_good: float
    true_on_time: float
    control_on_time: float

    @property
    def within_share(self) -> bool:
        """Whether it touched no more than its share, but for the luck of the draw."""
        spread = math.sqrt(SHARE * (1.0 - SHARE) * self.n_requests)
        return self.n_touched <= SHARE * self.n_requests + _LUCK_SD * spread


class Settled(Struct):
    """A market that knows its sellers, from which every canary of a seed starts."""

    gateway: RehearsedGateway
    truth: PaperTruth
    n_served: int


def settled(seed: int, n_before: int = _N_BEFORE, n_settling: int = _N_SETTLING) -> Settled:
    """A market after so many requests, the first of them bought out of curiosity."""
    truth = PaperTruth(seed, rate=RATE)
    params = Params()
    gateway = RehearsedGateway(truth, with_changes(params, CURIOUS, version=0))
    gateway.serve(truth.asks(0, n_before))
    gateway.set_params(params)
    gateway.serve(truth.asks(n_before, n_settling))
    return Settled(gateway, truth, n_before + n_settling)


def tried(market: Settled, name: str, params: Params, seed: int, lots: int, for_s: float) -> Run:
    """A canary of `params`; other `lots` put other requests into it."""
    now = market.gateway.params
    gateway = market.gateway.copied()
    trial = Trial(kind="canary", params=params, share=SHARE)
    gateway.set_params(now, trial)
    guard = Guard()
    arms: tuple[list[Flown], list[Flown]] = ([], [])
    breach: Worse | None = None

    def assign(ask: Ask, request: BidRequest) -> Assigned:
        if not trial.takes(f"{lots}:{ask.n}", request.tenant, ask.at_us):
            return Assigned(now)
        return Assigned(params, trial.arm, now)

    for n, ask in enumerate(market.truth.asks(market.n_served, round(RATE * for_s)), start=1):
        flown = gateway.one(ask, assign)
        arms[flown.record.arm == trial.arm].append(flown)
        _watched(guard, flown, trial)
        if n % _LOOK_EVERY == 0:
            breach = guard.breach()
            if breach is not None:
                break
    control, canary = arms
    return Run(
        name=name,
        market=seed,
        lots=lots,
        rolled_back_s=None if breach is None else (len(control) + len(canary)) / RATE,
        why=breach,
        n_touched=len(canary),
        n_requests=len(control) + len(canary),
        explored_share=_mean([_explored(flown) for flown in canary]),
        true_good=_mean([flown.good for flown in canary]),
        control_good=_mean([flown.good for flown in control]),
        true_on_time=_mean([flown.on_time for flown in canary]),
        control_on_time=_mean([flown.on_time for flown in control]),
    )


def of_market(seed: int, n_harmless: int, harmless_s: float) -> list[Run]:
    """All canaries of one market."""
    market = settled(seed)
    now = market.gateway.params
    runs = [
        tried(market, name, with_changes(now, changes, version=1), seed, seed, WITHIN_S)
        for name, changes in (BAD | WITHIN_BOUNDS).items()
    ]
    again = msgspec.structs.replace(now, version=1)
    return runs + [
        tried(market, "harmless", again, seed, 1_000 * k + seed, harmless_s)
        for k in range(n_harmless)
    ]


def figures(
    seed: int, n_markets: int, n_harmless: int, harmless_s: float, n_processes: int
) -> dict[str, Any]:
    """Everything, as one object."""
    begun_s = time.monotonic()
    seeds = range(seed, seed + n_markets)
    with ProcessPoolExecutor(max_workers=n_processes) as pool:
        found = pool.map(of_market, seeds, [n_harmless] * n_markets, [harmless_s] * n_markets)
        runs = [run for of_one in found for run in of_one]
    told = {name: _told([r for r in runs if r.name == name]) for name in (*BAD, *WITHIN_BOUNDS)}
    harmless = [r for r in runs if r.name == "harmless"]
    n_kept = sum(r.rolled_back_s is None for r in harmless)
    bad = [r for r in runs if r.name in BAD]
    held = all(r.within_share for r in (*bad, *harmless))
    return {
        **told,
        "harmless_runs": len(harmless),
        "harmless_kept": n_kept,
        "harmless_s": harmless_s,
        "share": SHARE,
        "within_share": held,
        "seconds": round(time.monotonic() - begun_s, 1),
        "whole": all(r.rolled_back_s is not None for r in bad) and n_kept == len(harmless) and held,
        "runs": [msgspec.to_builtins(r) for r in runs],
    }


def _watched(guard: Guard, flown: Flown, trial: Trial) -> None:
    """Shown to the guard, as `broker.canary_watch` does."""
    seen = seen_of(flown.record, trial)
    if seen is None:
        return
    guard.take(seen)
    if flown.moment.quality is not None:
        guard.score(
            in_canary=seen.in_canary,
            quality=flown.moment.quality,
            target=flown.record.target_quality,
            sla_class=seen.sla_class,
        )


def _explored(flown: Flown) -> bool:
    ranked = flown.record.ranked
    return bool(ranked) and ranked[0].score_nusd > min(bid.score_nusd for bid in ranked)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(len(values), 1)


def _told(runs: list[Run]) -> dict[str, Any]:
    """One change over all markets."""
    after = sorted(r.rolled_back_s for r in runs if r.rolled_back_s is not None)
    return {
        "markets": len(runs),
        "rolled_back": len(after),
        "after_s": after,
        "most_touched": max((r.n_touched for r in runs), default=0),
        "explored_share": round(_mean([r.explored_share for r in runs]), 3),
        "good_lost": round(_mean([r.control_good - r.true_good for r in runs]), 4),
        "on_time_lost": round(_mean([r.control_on_time - r.true_on_time for r in runs]), 4),
    }


def main() -> int:
    """Print the figures; 0 when the guard keeps its promises."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the first market")
    parser.add_argument("--markets", type=int, default=N_MARKETS)
    parser.add_argument("--harmless", type=int, default=N_HARMLESS_OF_MARKET, help="a market")
    parser.add_argument("--harmless-s", type=float, default=WITHIN_S, help="how long they run")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    given = parser.parse_args()
    found = figures(given.seed, given.markets, given.harmless, given.harmless_s, given.processes)
    if not given.json:
        for run in found.pop("runs"):
            sys.stdout.write(f"{msgspec.json.encode(run).decode()}\n")
    text = msgspec.json.encode(found).decode()
    sys.stdout.write(text + "\n" if given.json else f"{msgspec.json.format(text, indent=2)}\n")
    return 0 if found["whole"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
