"""`make whatif-truth`: reports on changes of params, held against what the changes then do.

Several paper markets are run until they know their sellers; a window of traffic is recorded.
For each change the report is made from the recording alone; then the change is put in force
from the window's start, with learning going on, and the same requests are served: the truth.
Two sets: twenty changes as operators make them, of which the doubly robust intervals have to
cover the truth; and twenty that in truth break a promise, each of which has to be called.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Final

import msgspec
from msgspec import Struct

from analytics.whatif import Drives, Known
from analytics.whatif_report import BREACH, WhatIf, report
from bidding.params import Params
from bidding.params_change import with_changes
from broker.rehearsal.gateway import Flown, RehearsedGateway
from broker.rehearsal.market import PaperTruth

N_CHANGES: Final = 20
N_LEAST_COVERED: Final = 18
_N_MARKETS: Final = 10
_N_BEFORE: Final = 3000
_N_SETTLING: Final = 1000
_N_WINDOW: Final = 1200
_OUTCOMES: Final = ("good", "on_time", "cost_usd")

CURIOUS: Final = {
    "exploration.share": 0.3,
    "exploration.burn_in_share": 0.4,
    "exploration.burn_in_tries": 60.0,
    "exploration.max_loss_usd": 1.0,
    "exploration.max_spend_share": 1.0,
    "exploration.safety_sd": 0.0,
}
"""With which a market gets to know its sellers within minutes rather than weeks."""

HARSH: Final[tuple[dict[str, float], ...]] = (
    {"pacing.quality_margin": -0.15},
    {"pacing.punctuality_reserve_usd": 1e-6},
    {"pacing.quality_reserve_usd": 3e-5},
    {"pacing.quality_margin": -0.1},
    {"pacing.punctuality_reserve_usd": 3e-6},
    {"choice.optimism_sd": 3.0},
    {"pacing.quality_reserve_usd": 1e-4},
    {"pacing.quality_margin": -0.2},
)


class Trial(Struct, frozen=True, kw_only=True):
    """A change's report against the truth."""

    changes: dict[str, float]
    covered: dict[str, bool]
    said: dict[str, tuple[float, float, float]]
    truth: dict[str, float]
    claimed: dict[str, bool]
    broken: list[str]
    called: bool


_USUAL: Final[tuple[tuple[str, float, float], ...]] = (
    ("pacing.quality_margin", -0.05, 0.03),
    ("choice.optimism_sd", 0.3, 1.7),
    ("pacing.quality_step", 0.01, 0.08),
    ("exploration.share", 0.0, 0.3),
    ("pacing.quality_reserve_usd", 0.0005, 0.02),
    ("choice.latency_optimism_sd", 0.0, 2.0),
    ("pacing.punctuality_step", 0.01, 0.15),
    ("choice.failover_price_usd", 0.0, 0.002),
    ("pacing.label_step", 0.0, 0.02),
    ("exploration.burn_in_share", 0.0, 0.1),
)


def usual_changes(seed: int) -> list[dict[str, float]]:
    """Changes as operators make them: each number in turn, every other time with one more."""
    rng = random.Random(seed)
    found: list[dict[str, float]] = []
    for k in range(N_CHANGES):
        moved = [_USUAL[k % len(_USUAL)]]
        if k % 2:
            moved.append(rng.choice([u for u in _USUAL if u != moved[0]]))
        found.append({path: round(rng.uniform(low, high), 5) for path, low, high in moved})
    return found


class Market:
    """A paper market that knows its sellers, and a recorded window of its traffic."""

    def __init__(self, seed: int, n_window: int = _N_WINDOW, n_before: int = _N_BEFORE) -> None:
        self.params = Params()
        self.truth = PaperTruth(seed)
        gateway = RehearsedGateway(self.truth, with_changes(self.params, CURIOUS, version=0))
        gateway.serve(self.truth.asks(0, n_before))
        gateway.set_params(self.params)
        gateway.serve(self.truth.asks(n_before, _N_SETTLING))
        self.first, self.n = n_before + _N_SETTLING, n_window
        self._before = gateway.copied()
        self.recorded = gateway.serve(self.truth.asks(self.first, self.n))
        self._known: list[Known] = []

    def said(self, changes: dict[str, float]) -> WhatIf:
        """The report on a change, from the recording alone."""
        then = with_changes(self.params, changes, version=1)
        drives = Drives(self.params, then)
        known: Sequence[Known | None] = self._known or [None] * len(self.recorded)
        pairs = zip(self.recorded, known, strict=True)
        self._known = [drives.take(flown.moment, found) for flown, found in pairs]
        return report(drives)

    def served(self, changes: dict[str, float]) -> list[Flown]:
        """The same requests with the change in force."""
        gateway = self._before.copied()
        gateway.set_params(with_changes(self.params, changes, version=1))
        return gateway.serve(self.truth.asks(self.first, self.n))

    def trial(self, changes: dict[str, float]) -> Trial:
        """The report on a change, and what the change does."""
        said, served = self.said(changes), self.served(changes)
        truth = delivered(served)
        outlooks = {name: getattr(said, name) for name in _OUTCOMES}
        intervals = {name: o.then.doubly_robust for name, o in outlooks.items()}
        return Trial(
            changes=changes,
            covered={k: i.low <= truth[k] <= i.high for k, i in intervals.items()},
            said={k: (i.value, i.low, i.high) for k, i in intervals.items()},
            truth=truth,
            claimed={k: o.then.claimed for k, o in outlooks.items()},
            broken=broken(self.recorded, served),
            called=said.called,
        )


def delivered(flown: Sequence[Flown]) -> dict[str, float]:
    """Shares good and on time, without luck, and dollars a request."""
    timed = [f.on_time for f in flown if f.record.target_on_time is not None]
    return {
        "good": sum(f.good for f in flown) / len(flown),
        "on_time": sum(timed) / max(len(timed), 1),
        "cost_usd": sum(f.cost_usd for f in flown) / len(flown),
    }


def broken(before: Sequence[Flown], after: Sequence[Flown]) -> list[str]:
    """Promises that the change breaks in truth."""
    found: list[str] = []
    for name in sorted({f.record.sla_class for f in before}):
        was = [f for f in before if f.record.sla_class == name]
        now = [f for f in after if f.record.sla_class == name]
        old, new = delivered(was), delivered(now)
        targets = (
            ("good", was[0].record.target_quality),
            ("on_time", was[0].record.target_on_time),
        )
        for what, target in targets:
            if target is not None and new[what] < min(target, old[what]) - BREACH:
                found.append(f"{name} {what}")
    return found


def judged(seed: int, changes: Sequence[dict[str, float]]) -> tuple[list[Trial], list[Trial]]:
    """Usual changes on a market of this seed, and harsh ones until two break a promise."""
    market = Market(seed)
    usual = [market.trial(change) for change in changes]
    harsh: list[Trial] = []
    for k in range(len(HARSH)):
        made = market.trial(HARSH[(2 * seed + k) % len(HARSH)])
        if made.broken:
            harsh.append(made)
        if len(harsh) == 2:
            break
    return usual, harsh


def figures(seed: int, n_processes: int) -> dict[str, Any]:
    """Everything, as one object."""
    begun_s = time.monotonic()
    seeds = range(seed, seed + _N_MARKETS)
    changes = usual_changes(seed)
    shared = [changes[k::_N_MARKETS] for k in range(_N_MARKETS)]
    with ProcessPoolExecutor(max_workers=n_processes) as pool:
        made = list(pool.map(judged, seeds, shared))
    usual = [trial for trials, _ in made for trial in trials]
    harsh = [trial for _, trials in made for trial in trials]
    covered = {k: sum(t.covered[k] for t in usual) for k in _OUTCOMES}
    n_called = sum(t.called for t in harsh)
    return {
        "changes": len(usual),
        "covered": covered,
        "claimed": {k: sum(t.claimed[k] for t in usual) for k in _OUTCOMES},
        "half_width": {
            k: sum((t.said[k][2] - t.said[k][1]) / 2 for t in usual) / len(usual) for k in _OUTCOMES
        },
        "breaking_changes": len(harsh),
        "breaking_called": n_called,
        "usual_broken": sum(bool(t.broken) for t in usual),
        "usual_broken_called": sum(bool(t.broken) and t.called for t in usual),
        "false_alarms": sum(t.called and not t.broken for t in usual),
        "seconds": round(time.monotonic() - begun_s, 1),
        "whole": min(covered.values()) >= N_LEAST_COVERED and n_called == len(harsh) == N_CHANGES,
        "trials": [msgspec.to_builtins(t) for t in (*usual, *harsh)],
    }


def main() -> int:
    """Print the figures; 0 when the promises of the report are kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    given = parser.parse_args()
    found = figures(given.seed, given.processes)
    if not given.json:
        for trial in found.pop("trials"):
            sys.stdout.write(f"{msgspec.json.encode(trial).decode()}\n")
    text = msgspec.json.encode(found).decode()
    sys.stdout.write(text + "\n" if given.json else f"{msgspec.json.format(text, indent=2)}\n")
    return 0 if found["whole"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
