"""`make canary`: canaries on the paper market under a simulated clock, through the real auction,
the real estimators and the real guard. A bad change has to be rolled back by itself within a
minute at 100 requests a second, having touched no more than its share; a harmless one (the params
in force once more) must not be, in twenty of twenty runs.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any, Final

import msgspec
from msgspec import Struct

from bidding.guard import Guard, Worse
from bidding.params import Params
from bidding.params_change import with_changes
from bidding.request import BidRequest
from bidding.trial import Trial
from broker.guard_intake import seen_of
from broker.rehearsal.gateway import Assigned, RehearsedGateway
from broker.rehearsal.market import Ask, PaperTruth
from broker.rehearsal.whatif_truth import CURIOUS

RATE: Final = 100.0
WITHIN_S: Final = 60.0
SHARE: Final = 0.1
N_HARMLESS: Final = 20
_N_BEFORE: Final = 3000
_N_SETTLING: Final = 2000
_LOOK_EVERY: Final = 100
BAD: Final[dict[str, dict[str, float]]] = {
    "quality margin dropped by 10 points": {"pacing.quality_margin": -0.095},
    "exploration of 50 %": {"exploration.share": 0.5},
}


class Run(Struct, frozen=True, kw_only=True):
    """One canary: after how many seconds it was rolled back and why, and whom it touched."""

    name: str
    seed: int
    rolled_back_s: float | None
    why: Worse | None
    touched_share: float
    last: list[Worse]


class Settled(Struct):
    """A market that knows its sellers, from which every canary of a seed starts."""

    gateway: RehearsedGateway
    truth: PaperTruth


def settled(seed: int, n_before: int = _N_BEFORE, n_settling: int = _N_SETTLING) -> Settled:
    """A market after some thousand requests."""
    truth = PaperTruth(seed, rate=RATE)
    params = Params()
    gateway = RehearsedGateway(truth, with_changes(params, CURIOUS, version=0))
    gateway.serve(truth.asks(0, n_before))
    gateway.set_params(params)
    gateway.serve(truth.asks(n_before, n_settling))
    return Settled(gateway, truth)


def tried(market: Settled, name: str, params: Params, seed: int, first: int) -> Run:
    """A canary of `params` on the traffic of a minute."""
    now = market.gateway.params
    gateway = market.gateway.copied()
    trial = Trial(kind="canary", params=params, share=SHARE)
    gateway.set_params(now, trial)
    guard = Guard()
    n_inside = 0

    def assign(ask: Ask, request: BidRequest) -> Assigned:
        if not trial.takes(f"{seed}:{ask.n}", request.tenant, ask.at_us):
            return Assigned(now)
        return Assigned(params, trial.arm, now)

    for n, ask in enumerate(market.truth.asks(first, round(RATE * WITHIN_S)), start=1):
        flown = gateway.one(ask, assign)
        record = flown.record
        n_inside += record.arm == trial.arm
        seen = seen_of(record, trial)
        if seen is not None:
            guard.take(seen)
            if flown.moment.quality is not None:
                guard.score(
                    in_canary=seen.in_canary,
                    quality=flown.moment.quality,
                    target=record.target_quality,
                )
        if n % _LOOK_EVERY == 0:
            breach = guard.breach()
            if breach is not None:
                return Run(
                    name=name,
                    seed=seed,
                    rolled_back_s=n / RATE,
                    why=breach,
                    touched_share=n_inside / n,
                    last=list(guard.compared()),
                )
    return Run(
        name=name,
        seed=seed,
        rolled_back_s=None,
        why=None,
        touched_share=n_inside / (RATE * WITHIN_S),
        last=list(guard.compared()),
    )


def figures(seed: int, n_harmless: int) -> dict[str, Any]:
    """Everything, as one object."""
    begun_s = time.monotonic()
    market = settled(seed)
    first = _N_BEFORE + _N_SETTLING
    now = market.gateway.params
    bad = [
        tried(market, name, with_changes(now, changes, version=1), seed, first)
        for name, changes in BAD.items()
    ]
    again = msgspec.structs.replace(now, version=1)
    harmless = [tried(market, "harmless", again, seed + k, first) for k in range(n_harmless)]
    n_kept = sum(run.rolled_back_s is None for run in harmless)
    most_touched = max(run.touched_share for run in (*bad, *harmless))
    return {
        "bad": msgspec.to_builtins(bad),
        "harmless_runs": n_harmless,
        "harmless_kept": n_kept,
        "harmless_rolled_back": [msgspec.to_builtins(r) for r in harmless if r.why is not None],
        "share": SHARE,
        "most_touched_share": most_touched,
        "seconds": round(time.monotonic() - begun_s, 1),
        "whole": all(r.rolled_back_s is not None for r in bad)
        and n_kept == n_harmless
        and most_touched <= 1.3 * SHARE,
    }


def main() -> int:
    """Print the figures; 0 when the guard keeps its promises."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--harmless", type=int, default=N_HARMLESS)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    given = parser.parse_args()
    found = figures(given.seed, given.harmless)
    text = msgspec.json.encode(found).decode()
    sys.stdout.write(text + "\n" if given.json else f"{msgspec.json.format(text, indent=2)}\n")
    return 0 if found["whole"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
