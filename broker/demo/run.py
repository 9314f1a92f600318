"""The demo, in order: traffic, a slow-down at a third, a death at two thirds, the sums.

Without a limit it runs until interrupted, with the two faults coming and going.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from msgspec import Struct
from rich.console import Console
from rich.live import Live

from analytics.store import Store
from broker.demo.classes import CLASSES
from broker.demo.faults import heal, kill, most_bought, recovery_s, slow_down
from broker.demo.screen import Counts, OfferLine, screen
from broker.demo.tally import Bought, totals, yardsticks
from broker.demo.traffic import Traffic
from broker.paper.behaviour import Behaviour
from broker.paper.market_data import load
from broker.up import Up

_SETTLE_S = 20.0
_SLOWER = 10.0
_RATE = 24.0
_ROUND_S = 90.0
_KEPT = 50_000
"""Requests remembered where there is no limit: about half an hour of them."""


class DemoSettings(Struct, frozen=True, kw_only=True):
    """`seconds` of traffic (None: until interrupted) at `rate` requests a second."""

    data_dir: Path
    seconds: float | None = None
    rate: float = _RATE
    port: int = 0
    seed: int = 0
    live: bool = True


class Demo:
    """One run of the demo on a market that is up."""

    def __init__(self, settings: DemoSettings, up: Up) -> None:
        self._settings = settings
        self._up = up
        data = load()
        self._behaviour = Behaviour(data, 0)
        self._requests: list[Bought] = []
        self._events: list[str] = []
        self._fault_s: dict[str, float] = {}
        self._traffic = Traffic(
            up.url,
            up.keys["app"],
            self._behaviour,
            yardsticks(up.catalogue, self._behaviour, CLASSES),
            self._requests.append,
            rate=settings.rate,
            seed=settings.seed,
        )

    def stop(self) -> None:
        """End the traffic."""
        self._traffic.stop()

    async def run(self, console: Console) -> dict[str, Any]:
        """Run it; the figures as one flat object."""
        begun_s = time.monotonic()
        traffic = asyncio.create_task(self._traffic.run())
        faults = asyncio.create_task(self._faults(begun_s))
        shown = asyncio.create_task(self._show(console)) if self._settings.live else None
        if self._settings.seconds is not None:
            await asyncio.sleep(self._settings.seconds)
            self._traffic.stop()
        await traffic
        for task in (faults, shown):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        return await self._figures()

    async def _faults(self, begun_s: float) -> None:
        """The two faults; again and again, each healed before the next, where there is no limit."""
        length_s = self._settings.seconds or _ROUND_S
        round_s = begun_s
        while True:
            await _until(round_s + length_s / 3)
            slowed = most_bought(self._requests, time.monotonic())
            if slowed is not None:
                self._fault_s["slow"] = time.monotonic()
                await slow_down(self._control_url, slowed, _SLOWER)
                self._note(f"{slowed}, the most bought offer, is slowed tenfold")
            await _until(round_s + 2 * length_s / 3)
            spared = "" if slowed is None else slowed.partition("/")[0]
            killed = most_bought(self._requests, time.monotonic(), other_than=spared)
            if killed is not None:
                self._fault_s["death"] = time.monotonic()
                await kill(self._control_url, killed)
                self._note(f"{killed.partition('/')[0]}, the most bought provider, is dead")
            if self._settings.seconds is not None:
                return
            round_s += length_s
            await _until(round_s)
            for offer in filter(None, (slowed, killed)):
                await heal(self._control_url, offer)
            self._note("both are well again")
            del self._requests[:-_KEPT]

    @property
    def _control_url(self) -> str:
        assert self._up.paper is not None
        return self._up.paper.control_url

    def _note(self, event: str) -> None:
        self._events.append(f"{time.strftime('%H:%M:%S')}  {event}")

    async def _show(self, console: Console) -> None:
        async with (
            aiohttp.ClientSession() as session,
            await Store.open(self._up.analyst_store()) as store,
        ):
            with Live(console=console, refresh_per_second=4, screen=False) as live:
                while True:
                    offers = await self._offers(session)
                    counts = await self._counts(session, store)
                    live.update(screen(offers, self._requests, counts, self._events))
                    await asyncio.sleep(0.5)

    async def _offers(self, session: aiohttp.ClientSession) -> list[OfferLine]:
        headers = {"Authorization": f"Bearer {self._up.keys['app']}"}
        async with session.get(f"{self._up.url}/v1/market", headers=headers) as response:
            body = await response.read()
        return msgspec.convert(msgspec.json.decode(body)["data"], list[OfferLine])

    async def _counts(self, session: aiohttp.ClientSession, store: Store) -> Counts:
        answer = await store.query(
            "SELECT (SELECT count() FROM market.attempts), (SELECT count() FROM market.decisions)"
        )
        attempts, decisions = answer.rows[0]
        return Counts(
            attempts_in_kafka=await self._produced(session),
            attempts_in_clickhouse=attempts,
            decisions_in_clickhouse=decisions,
        )

    async def _produced(self, session: aiohttp.ClientSession) -> int:
        """Attempts that the gateway says it made."""
        async with session.get(f"{self._up.url}/metrics") as response:
            text = await response.text()
        lines = (x for x in text.splitlines() if x.startswith("broker_attempts_total{"))
        return sum(int(float(line.rsplit(" ", 1)[1])) for line in lines)

    async def _figures(self) -> dict[str, Any]:
        async with (
            aiohttp.ClientSession() as session,
            await Store.open(self._up.analyst_store()) as store,
        ):
            produced = await self._produced(session)
            recorded = await self._settled(store, produced)
            await self._bill(store)
        sums = totals(self._requests)
        quality = totals([b for b in self._requests if b.sla_class == "quality"])
        by_class = {
            c.name: msgspec.to_builtins(
                totals([b for b in self._requests if b.sla_class == c.name])
            )
            for c in CLASSES
        }
        recoveries = {
            name: recovery_s(self._requests, at_s) for name, at_s in self._fault_s.items()
        }
        catalogue = self._up.catalogue
        return {
            **msgspec.to_builtins(sums),
            **recorded,
            "attempts_produced": produced,
            "on_time_promised": next(c.percentile for c in CLASSES if c.percentile is not None),
            "quality_promised": next(c.quality for c in CLASSES if c.name == "quality"),
            "quality_good_share": quality.good_share,
            "shock_recovery_s": recoveries.get("slow", math.inf),
            "death_recovery_s": recoveries.get("death", math.inf),
            "offers": len(catalogue.offers),
            "providers": len(catalogue.providers),
            "seconds_to_ready": self._up.seconds_to_ready,
            "events": self._events,
            "errors": sorted({b.error for b in self._requests if b.error})[:10],
            "classes": by_class,
        }

    async def _settled(self, store: Store, produced: int) -> dict[str, int]:
        """Wait until all that was produced is stored, or waited for long enough; then count."""
        deadline_s = time.monotonic() + _SETTLE_S
        while True:
            answer = await store.query("SELECT count(), uniqExact(attempt_id) FROM market.attempts")
            stored, distinct = answer.rows[0]
            decided = (await store.query("SELECT count() FROM market.decisions")).rows[0][0]
            done = distinct >= produced and decided >= len(self._requests)
            if done or time.monotonic() > deadline_s:
                return {
                    "decisions_recorded": decided,
                    "attempts_recorded": stored,
                    "lost": max(produced - distinct, 0),
                    "duplicated": stored - distinct,
                }
            await asyncio.sleep(0.2)

    async def _bill(self, store: Store) -> None:
        """Replace expected costs by what was settled."""
        answer = await store.query("SELECT decision_id, cost_usd FROM market.decisions")
        owed = dict(answer.rows)
        for bought in self._requests:
            bought.usd = owed.get(bought.decision_id, bought.usd)


async def _until(at_s: float) -> None:
    """Sleep until `at_s` on the monotonic clock."""
    await asyncio.sleep(max(0.0, at_s - time.monotonic()))


def broken_promises(figures: dict[str, Any]) -> list[str]:
    """What the figures should show and do not; empty when all of it holds."""
    checks = {
        "a request failed": figures["failed"] == 0,
        "attempts were lost": figures["lost"] == 0,
        "attempts were stored twice": figures["duplicated"] == 0,
        "spend is above 0.4 of always-best": figures["usd"] <= 0.4 * figures["usd_always_best"],
        "the quality class is more than 2 points below its promise": (
            figures["quality_good_share"] >= figures["quality_promised"] - 0.02
        ),
        "recovery from the slow-down took over 3 s": figures["shock_recovery_s"] <= 3.0,
        "recovery from the death took over 3 s": figures["death_recovery_s"] <= 3.0,
        "ready took over 15 s": figures["seconds_to_ready"] <= 15.0,
    }
    return [broken for broken, holds in checks.items() if not holds]
