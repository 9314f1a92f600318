"""A storm from its first break to its last: traffic, break, recovery, sums."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import aiohttp
from msgspec import Struct

from broker.demo.storm.breaks import Break
from broker.demo.storm.figures import BreakFigures, StormFigures, broken_bounds, p99, summed
from broker.demo.storm.hanging_up import hang_ups
from broker.demo.storm.stand import Stand, Trio
from broker.demo.storm.traffic import Seen, Traffic, share_at
from broker.demo.storm.watch import closing_s, n_between, n_of, opening
from broker.paper.faults import Fault, FaultSpec

T = TypeVar("T")
_SETTLES_S = 30.0
_STEP_S = 0.25
_KNOWN_N = 10.0
"""Calls behind the quote of a seller that is to break: the storm hits a market in service."""
_TYPED = ("503 ", "504 ")


class StormSettings(Struct, frozen=True, kw_only=True):
    """How long each break lasts, how long its recovery is watched, and at what traffic.

    With `settled` the next break follows as soon as the circuit is closed again.
    """

    rate: float = 30.0
    deadline_ms: float = 2_000.0
    break_s: float = 4.0
    recover_s: float = 3.0
    calm_s: float = 1.0
    all_down_s: float = 3.0
    n_hang_ups: int = 12
    settled: bool = False


async def storm(
    stand: Stand,
    breaks: Sequence[tuple[Break, Trio]],
    spare: Trio,
    settings: StormSettings,
    tell: Callable[[str], None] = lambda _: None,
) -> StormFigures:
    """Break the cheapest seller in each way in turn; then, with a `spare` trio, apps hang up, and
    all three sellers break at once; the figures.
    """
    figures = StormFigures()
    seen: list[Seen] = []
    for each, trio in breaks:
        one, requests = await _one_break(stand.among(trio), each, settings)
        seen += requests
        wrong = broken_bounds(one, each)
        figures.breaks.append(one)
        figures.broken += [f"{each.name}: {words}" for words in wrong]
        tell(
            f"{each.name}: {one.requests} requests, {one.failed} failed, {one.mid_stream} broke "
            f"off, p99 {one.p99_ms:.0f} ms, {one.attempts_per_request:.3f} attempts each, open "
            f"after {one.failures} failures ({one.out} out), {one.probes_lost} probes lost, "
            f"closed after {one.closed_s} s, bought again after {one.back_s} s"
            + "".join(f"\n  BROKEN: {words}" for words in wrong)
        )
    await _hang_ups(stand.among(spare), settings, figures)
    await _all_down(stand.among(spare), settings, figures)
    return summed(figures, p99([s.took_ms for s in seen]))


async def _one_break(
    stand: Stand, each: Break, settings: StormSettings
) -> tuple[BreakFigures, list[Seen]]:
    provider = stand.cheapest
    offer = stand.offer(provider)
    figures = BreakFigures(name=each.name, deadline_ms=settings.deadline_ms)
    traffic = Traffic(stand, rate=settings.rate, deadline_ms=settings.deadline_ms)
    asking = asyncio.create_task(traffic.run())
    try:
        figures.bought_before = await _calm(stand, traffic, provider, settings)
        before = await stand.attempts()
        probes_before = await stand.n_probes(provider)
        figures.out = traffic.n_open
        broken_s = time.monotonic()
        await stand.set_faults(provider, [each.fault])
        opened = await _within(settings.break_s, opening(stand, provider, before))
        await asyncio.sleep(max(broken_s + settings.break_s - time.monotonic(), 0.0))
        await stand.set_faults(provider, [])
        well_s = time.monotonic()
        closed_s = await _within(settings.recover_s, closing_s(stand, provider))
        if not settings.settled:
            await asyncio.sleep(max(well_s + settings.recover_s - time.monotonic(), 0.0))
        end_s = time.monotonic()
    finally:
        traffic.stop()
        await asking
        await stand.set_faults(provider, [])
    after = await stand.attempts()
    requests = [s for s in traffic.seen if s.started_s + s.took_ms * 1e-3 >= broken_s]
    figures.requests = len(requests)
    figures.failed = sum(s.ended == "failed" for s in requests)
    figures.mid_stream = sum(s.ended == "mid_stream" for s in requests)
    figures.why = sorted({s.why for s in requests if s.ended == "failed"})
    figures.p99_ms = round(p99([s.took_ms for s in requests]), 1)
    figures.attempts = n_between(before, after)
    figures.hedges_lost = n_of(before, after, "hedge_lost")
    if opened is not None:
        figures.failures = opened.n_failed
        figures.opened_s = round(opened.at_s - broken_s, 3)
        until_s = end_s if closed_s is None else closed_s
        while_open = [s.decision for s in requests if opened.at_s < s.started_s < until_s]
        figures.probes_lost = await stand.n_lost_at([d for d in while_open if d], provider)
    figures.n_probes = await stand.n_probes(provider) - probes_before
    if closed_s is not None:
        figures.closed_s = round(closed_s - well_s, 3)
    answered = [s.started_s + s.took_ms * 1e-3 for s in traffic.seen if s.offer == offer]
    back = [at_s for at_s in answered if well_s <= at_s < end_s + 1.0]
    figures.back_s = round(min(back) - well_s, 3) if back else None
    return figures, requests


async def _calm(stand: Stand, traffic: Traffic, provider: str, settings: StormSettings) -> float:
    """Wait until the cheapest is bought as it should be; its share of the last requests."""
    give_up_s = time.monotonic() + _SETTLES_S
    share = 0.0
    while time.monotonic() < give_up_s:
        await asyncio.sleep(max(settings.calm_s, _STEP_S))
        now_s = time.monotonic()
        share = share_at(traffic.since(now_s - 2 * settings.calm_s, now_s), stand.offer(provider))
        offers = await stand.market()
        healthy = all(o["health"] == "closed" for o in offers.values())
        known = offers[provider]["ttft_n"] >= _KNOWN_N
        if share >= 0.8 and healthy and known:
            break
    return round(share, 3)


async def _within(seconds: float, coming: Awaitable[T]) -> T | None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            return await coming
    return None


async def _all_down(stand: Stand, settings: StormSettings, figures: StormFigures) -> None:
    """Every seller answers 500: the outage must not be amplified, and every error is typed."""
    before = await stand.attempts()
    traffic = Traffic(stand, rate=settings.rate, deadline_ms=settings.deadline_ms)
    for provider in stand.providers:
        await stand.set_faults(provider, [FaultSpec(kind=Fault.ERROR, status=500)])
    asking = asyncio.create_task(traffic.run())
    try:
        await asyncio.sleep(settings.all_down_s)
    finally:
        traffic.stop()
        await asking
        for provider in stand.providers:
            await stand.set_faults(provider, [])
    figures.all_down_requests = len(traffic.seen)
    figures.all_down_attempts = n_between(before, await stand.attempts())
    untyped = [s.why for s in traffic.seen if not s.why.startswith(_TYPED)]
    figures.all_down_untyped = untyped[:5] + sorted(set(untyped))[:5]


async def _hang_ups(stand: Stand, settings: StormSettings, figures: StormFigures) -> None:
    """Sellers too slow to have answered when their apps hang up."""
    for provider in stand.providers:
        await stand.set_faults(provider, [FaultSpec(kind=Fault.SLOW, factor=100.0)])
    try:
        left = await hang_ups(stand, settings.n_hang_ups)
    finally:
        for provider in stand.providers:
            await stand.set_faults(provider, [])
    figures.hang_ups = len(left)
    figures.hang_up_worst_ms = round(max(left, default=float("inf")), 1)


async def storm_at(
    url: str,
    key: str,
    control_url: str,
    breaks: Sequence[tuple[Break, Trio]],
    spare: Trio,
    settings: StormSettings,
    tell: Callable[[str], None] = lambda _: None,
) -> StormFigures:
    """`storm` with a client of its own."""
    model, providers = spare
    timeout = aiohttp.ClientTimeout(total=60.0)
    async with aiohttp.ClientSession(
        timeout=timeout, connector=aiohttp.TCPConnector(limit=0)
    ) as http:
        stand = Stand(
            http, url=url, key=key, control_url=control_url, model=model, providers=providers
        )
        return await storm(stand, breaks, spare, settings, tell)
