"""What is measured of a storm, and what has to hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from broker.demo.storm.breaks import Break

MOST_FAILURES: Final = 5
"""Failures until a circuit stands open; calls that were out already fail besides."""
CLOSES_WITHIN_S: Final = 2.0
MOST_PROBES_LOST: Final = 3
MOST_ATTEMPTS: Final = 1.1
LEAVES_WITHIN_MS: Final = 100.0
MOST_HEDGED: Final = 0.05
BUDGET_FLOOR: Final = 3
"""Retries that need no requests in their window (`DispatchSettings.retry_floor`)."""


class BreakFigures(Struct, kw_only=True):
    """One break of the cheapest seller. `bought_before` is its share of requests before that.

    `failures` are attempts failed when the circuit was seen open, `out` the calls out at the
    onset, which fail whatever we do. `probes_lost` are requests begun while it was open, in the
    break or after it, that were sent there in vain; `n_probes` tries beside the requests (counted
    in `attempts`); `back_s` runs from the recovery to the first answer bought there again.
    """

    name: str
    requests: int = 0
    failed: int = 0
    mid_stream: int = 0
    p99_ms: float = 0.0
    deadline_ms: float = 0.0
    attempts: int = 0
    hedges_lost: int = 0
    bought_before: float = 0.0
    failures: int | None = None
    out: int = 0
    opened_s: float | None = None
    probes_lost: int = 0
    n_probes: int = 0
    closed_s: float | None = None
    back_s: float | None = None
    why: list[str] = []

    @property
    def attempts_per_request(self) -> float:
        return self.attempts / max(self.requests, 1)


def broken_bounds(f: BreakFigures, b: Break) -> list[str]:
    """What does not hold of one break, in words."""
    found = []
    if f.failed:
        found.append(f"{f.failed} requests failed: {f.why[:3]}")
    if f.mid_stream and not b.mid_stream:
        found.append(f"{f.mid_stream} streams broke off, which this break need not cause")
    if f.p99_ms > f.deadline_ms:
        found.append(f"p99 {f.p99_ms:.0f} ms is past the deadline of {f.deadline_ms:.0f} ms")
    if f.bought_before < 0.5:
        found.append(f"only {f.bought_before:.0%} was bought of the seller before it broke")
    if b.shows == "failures":
        if f.failures is None:
            found.append("the circuit did not open")
        elif f.failures > MOST_FAILURES + f.out:
            found.append(f"the circuit opened after {f.failures} failures, {f.out} of them out")
        if f.closed_s is None or f.closed_s > CLOSES_WITHIN_S:
            found.append(f"closed {f.closed_s} s after the recovery")
        if f.probes_lost > MOST_PROBES_LOST:
            found.append(f"{f.probes_lost} requests lost time as probes")
    if f.back_s is None:
        found.append("nothing was bought of it again")
    return found


class StormFigures(Struct, kw_only=True):
    """A whole storm. `whole` says that every bound held; `broken` names those that did not."""

    breaks: list[BreakFigures] = []
    requests: int = 0
    failed: int = 0
    mid_stream: int = 0
    attempts_per_request: float = 0.0
    hedges_lost_share: float = 0.0
    p99_ms: float = 0.0
    all_down_requests: int = 0
    all_down_attempts: int = 0
    all_down_untyped: list[str] = []
    hang_ups: int = 0
    hang_up_worst_ms: float = 0.0
    broken: list[str] = []
    whole: bool = False


def summed(figures: StormFigures, p99_ms: float) -> StormFigures:
    """The sums over all breaks written into `figures`, in place; returns it."""
    breaks = figures.breaks
    figures.requests = sum(f.requests for f in breaks)
    figures.failed = sum(f.failed for f in breaks)
    figures.mid_stream = sum(f.mid_stream for f in breaks)
    n = max(figures.requests, 1)
    figures.attempts_per_request = round(sum(f.attempts for f in breaks) / n, 4)
    figures.hedges_lost_share = round(sum(f.hedges_lost for f in breaks) / n, 4)
    figures.p99_ms = round(p99_ms, 1)
    if figures.attempts_per_request > MOST_ATTEMPTS:
        figures.broken.append(f"{figures.attempts_per_request} attempts a request over the storm")
    if figures.hedges_lost_share > MOST_HEDGED:
        figures.broken.append(f"{figures.hedges_lost_share:.1%} of requests were hedged in vain")
    most = figures.all_down_requests * MOST_ATTEMPTS + BUDGET_FLOOR
    if figures.all_down_attempts > most:
        figures.broken.append(
            f"{figures.all_down_attempts} attempts for {figures.all_down_requests} requests while "
            f"every seller was down"
        )
    if figures.all_down_untyped:
        figures.broken.append(f"failures without a type: {figures.all_down_untyped}")
    if figures.hang_up_worst_ms > LEAVES_WITHIN_MS:
        figures.broken.append(
            f"a seller was left {figures.hang_up_worst_ms:.0f} ms after the app hung up"
        )
    figures.whole = not figures.broken
    return figures


def p99(times_ms: Sequence[float]) -> float:
    """The 99th percentile, of the sample itself: no interpolation flatters it."""
    ordered = sorted(times_ms)
    return ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))] if ordered else 0.0
