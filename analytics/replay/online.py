"""Online replay: every policy learns from its own bandit feedback while it serves.

Seeds are streams; every policy meets the same ones. Hindsight is computed per stream from what
the offers would have delivered on it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from analytics.replay.episode import Episode, Trace
from analytics.replay.hindsight import Frontier, oracle
from analytics.replay.measures import (
    USD_PER_1K,
    Interval,
    Phase,
    delivered,
    figures,
    interval,
    phases_of,
)
from analytics.replay.recovery import recovery
from analytics.replay.report import PolicyReport
from analytics.replay.roster import chosen, roster
from analytics.replay.settings import ReplaySettings
from analytics.replay.shocks import ShockPlan, plan_shock
from analytics.replay.stream import Stream, make_stream
from analytics.replay.world import World
from bidding.kernel import compiled

Progress = Callable[[str, float | None], None]
"""Told what is being done, and the share of the whole that is behind (None: unknown)."""
Features = list[tuple[float, ...]]

WORTH_COMPILING = 50_000
"""Requests of a policy from which on compiling the kernel takes less time than it saves."""


def online(
    world: World, features: Features | None, settings: ReplaySettings, progress: Progress
) -> list[PolicyReport]:
    """Reports of all policies asked for, in the roster's order, then the yardsticks."""
    playing, yardsticks = chosen(settings.policies, world)
    makers = roster(world)
    per_seed: dict[str, list[dict[str, float]]] = {name: [] for name in [*playing, *yardsticks]}
    traces: dict[str, list[Trace]] = {name: [] for name in playing}
    plan = no_shock(world, settings)
    kernel = compiled() if settings.seeds * settings.requests >= WORTH_COMPILING else None
    for seed in range(settings.seeds):
        stream = make_stream(world, seed, settings.requests, settings.feedback)
        plan = shock_of(world, stream, settings)
        phases = phases_of(world, stream, plan, settings.ttft_s)
        for k, name in enumerate(playing):
            done = (seed + k / len(playing)) / settings.seeds
            progress(f"seed {seed + 1} of {settings.seeds}: {name}", done)
            trace = Episode(world, stream, makers[name](), settings, plan, features, kernel).run()
            per_seed[name].append(figures(trace, phases, settings.target, settings.ttft_s))
            if settings.shock is not None:
                traces[name].append(trace)
        for name in yardsticks:
            per_seed[name].append(_yardstick(name, world, stream, plan, phases, settings))
    reports = []
    for name, rows in per_seed.items():
        summary = {k: interval([row[k] for row in rows]) for k in rows[0]}
        if traces.get(name) and settings.target is not None:
            after = recovery(traces[name], plan, settings.target)
            summary["recovery_requests"] = Interval(
                mean=after.requests, low=after.low, high=after.high
            )
            summary["worst_short"] = Interval(
                mean=after.worst_short, low=after.worst_short, high=after.worst_short
            )
        reports.append(PolicyReport(policy=name, figures=summary))
    return reports


def no_shock(world: World, settings: ReplaySettings) -> ShockPlan:
    """A plan under which nothing happens."""
    nothing = Frontier(np.zeros(1), np.zeros(1), np.zeros(1, dtype=np.int64))
    return plan_shock(None, world, nothing, 0.0, settings.requests)


def shock_of(world: World, stream: Stream, settings: ReplaySettings) -> ShockPlan:
    """The shock asked for, its victim found by hindsight on the quiet market."""
    calm = no_shock(world, settings)
    if settings.shock is None:
        return calm
    (whole,) = phases_of(world, stream, calm, settings.ttft_s)
    at = int(settings.requests * settings.shock_at)
    return plan_shock(settings.shock, world, whole.frontier, settings.target or 1.0, at)


def _yardstick(
    name: str,
    world: World,
    stream: Stream,
    plan: ShockPlan,
    phases: list[Phase],
    settings: ReplaySettings,
) -> dict[str, float]:
    """Quality and cost of hindsight at the target (its best where there is no target)."""
    target = 1.0 if settings.target is None else settings.target
    n = len(stream)
    good = cost = 0.0
    for phase in phases:
        share = (phase.end - phase.start) / n
        frontier = phase.frontier
        if name == "oracle":
            table, prices = delivered(world, stream, plan, settings.ttft_s, phase.start, phase.end)
            frontier = oracle(table, prices)
        if name == "best-fixed-offer":
            quality, price = _best_offer(frontier, target)
        else:
            quality = min(target, float(frontier.quality[-1]))
            quality = max(quality, float(frontier.quality[0]))
            price = frontier.cost_at(quality)
        good += share * quality
        cost += share * price
    return {
        "usd_per_1k": cost * USD_PER_1K,
        "quality" if settings.ttft_s is None else "good_and_on_time": good,
        "usd_vs_hull": cost
        / max(
            sum(
                p.frontier.cost_at(min(good, float(p.frontier.quality[-1]))) * (p.end - p.start) / n
                for p in phases
            ),
            1e-12,
        ),
    }


def _best_offer(frontier: Frontier, target: float) -> tuple[float, float]:
    """The cheapest single offer that reaches the target, else the best one."""
    reaching = np.flatnonzero(frontier.quality >= target)
    at = int(reaching[0]) if len(reaching) else len(frontier.quality) - 1
    return float(frontier.quality[at]), float(frontier.cost[at])
