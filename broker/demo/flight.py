"""`make flight`: thousands of decisions on a market that moves, a gateway killed, all made again.

Prices and params change several times a second, quotes with every attempt; half-way one gateway
worker is killed outright. Then every decision is looked up in the store, explained, and made
again. What the killed worker acknowledged in its last moments may not have reached the log (the
spool's window, docs/decisions/0003); such decisions are set aside, counted, and replaced by more.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec

from analytics.explain import decisions
from analytics.store import Store
from bidding.market import PriceList
from bidding.params import Params
from broker.autopsy import autopsy
from broker.explaining import Tally, explain_all
from broker.recent import Flight
from broker.up import Up
from feeds.clock import SystemClock
from feeds.control_records import ParamsRecord
from feeds.live_params import GLOBAL_SCOPE
from feeds.market_records import PriceRecord
from feeds.producer import LogProducer
from feeds.topics import PARAMS, PRICES

_WINDOW_S: Final = 0.25
_AT_ONCE: Final = 24
_STORED_WITHIN_S: Final = 90.0
_MOVES_EVERY_S: Final = 0.2
_GOES_ON: Final = 0.4
_LONG: Final = 0.3
_NAMED: Final = 0.1
_LONGEST_TALK: Final = 24
_CACHING: Final = ["gpt-4o-mini", "gpt-4o", "gemini-1.5-flash", "gemini-2.0-flash"]
"""Models that prompts can lie warm at."""


class _Flown:
    """Ids of acknowledged decisions, and when each was acknowledged."""

    def __init__(self) -> None:
        self.at_s: dict[str, float] = {}
        self.n_failed = 0
        self.n_moves = 0
        self.killed_at_s = 0.0

        self.talks: list[list[dict[str, str]]] = []

    def set_aside(self) -> list[str]:
        """Those acknowledged just before the kill, by whichever worker."""
        first, last = self.killed_at_s - _WINDOW_S, self.killed_at_s + _WINDOW_S
        return [i for i, at_s in self.at_s.items() if first <= at_s <= last]


async def fly(n: int, seed: int) -> dict[str, Any]:
    """Fly `n` decisions; the figures."""
    with tempfile.TemporaryDirectory(prefix="flight-") as folder:
        async with Up(Path(folder), workers=2, time_scale=0.02) as up:
            flown = _Flown()
            begun_s = time.monotonic()
            moving = asyncio.create_task(_move(up, flown, random.Random(seed)))
            try:
                await _drive(up, flown, n, random.Random(seed + 1))
            finally:
                moving.cancel()
                await asyncio.gather(moving, return_exceptions=True)
            took_s = time.monotonic() - begun_s
            aside = flown.set_aside()
            ids = [i for i in flown.at_s if i not in set(aside)][:n]
            async with await Store.open(up.settings.store) as store:
                tally = await _settled(store, ids)
                n_explained, sessions = await _explained(store, ids)
                n_aside_found = len(await decisions(store, aside))
                stored = {record.decision_id for record in await decisions(store, ids)}
            return {
                **msgspec.to_builtins(tally),
                "explained": n_explained,
                "missing_s_after_kill": [
                    round(flown.at_s[i] - flown.killed_at_s, 3) for i in ids if i not in stored
                ],
                "set_aside": len(aside),
                "set_aside_found": n_aside_found,
                "requests_failed": flown.n_failed,
                "price_and_params_changes": flown.n_moves,
                **sessions,
                "decisions_per_s": round(len(flown.at_s) / took_s, 1),
                "whole": tally.whole and n_explained == tally.decisions,
            }


async def _move(up: Up, flown: _Flown, rng: random.Random) -> None:
    """Reprice an offer and change the params, again and again."""
    clock = SystemClock()
    offers = up.catalogue.offers
    version = 0
    async with LogProducer(up.settings.kafka) as producer:
        while True:
            await asyncio.sleep(_MOVES_EVERY_S)
            now_us = clock.now_us()
            for offer in rng.sample(offers, 3):
                prices = _scaled(offer.prices, rng.uniform(0.5, 2.0))
                record = PriceRecord(offer=offer.id, at_us=now_us, prices=prices, source="flight")
                await producer.publish(PRICES, [record])
            version += 1
            change = {
                "choice": {"optimism_sd": rng.uniform(0.0, 2.0)},
                "exploration": {"share": rng.uniform(0.0, 0.3)},
            }
            params = Params().patched(change, version=version)
            text = msgspec.json.encode(params).decode()
            await producer.publish(
                PARAMS,
                [
                    ParamsRecord(
                        scope=GLOBAL_SCOPE,
                        version=version,
                        at_us=now_us,
                        by="flight",
                        why="a moving market",
                        params=text,
                    )
                ],
            )
            flown.n_moves += 4


def _scaled(prices: PriceList, times: float) -> PriceList:
    return msgspec.structs.replace(
        prices,
        input_nusd_per_mtok=round(prices.input_nusd_per_mtok * times),
        output_nusd_per_mtok=round(prices.output_nusd_per_mtok * times),
    )


async def _drive(up: Up, flown: _Flown, n: int, rng: random.Random) -> None:
    """Ask until `n` decisions are acknowledged beside those set aside; kill a worker half-way."""
    headers = {"Authorization": f"Bearer {up.keys['app']}"}
    timeout = aiohttp.ClientTimeout(total=60)
    # A connection each, so that every worker gets its part.
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector) as http:

        async def one_after_another() -> None:
            while len(flown.at_s) - len(flown.set_aside()) < n:
                await _ask(up.url, http, flown, rng)
                if not flown.killed_at_s and len(flown.at_s) >= n // 2:
                    flown.killed_at_s = time.monotonic()
                    _kill_a_worker(up)

        await asyncio.gather(*(one_after_another() for _ in range(_AT_ONCE)))


async def _ask(url: str, http: aiohttp.ClientSession, flown: _Flown, rng: random.Random) -> None:
    task = rng.choice(["math", "extract", "code", "classify"])
    sla: dict[str, Any] = {"quality": rng.choice([0.7, 0.8, 0.9, 0.95])}
    if rng.random() < 0.6:
        sla["ttft_ms"] = rng.choice([300, 1000, 3000])
    if rng.random() < 0.1:
        sla["compliance"] = {"no_training": True}
    question = f"What is {rng.randrange(1000)} * {rng.randrange(1000)}?" + " " * rng.randrange(99)
    body: dict[str, Any] = {"model": f"market:{task}", "sla": sla}
    talk: list[dict[str, str]] = []
    if flown.talks and rng.random() < _GOES_ON:
        talk = flown.talks.pop(rng.randrange(len(flown.talks)))
    elif rng.random() < _LONG:
        talk = [{"role": "system", "content": "You do a mill's books. " * rng.randrange(200, 800)}]
    if rng.random() < _NAMED:
        sla["session"] = f"flight-{rng.randrange(50)}"
    body["messages"] = [*talk, {"role": "user", "content": question}]
    if talk and talk[0]["role"] == "system":
        body["models"] = _CACHING
    only = rng.random() < 0.5
    path = "/v1/auctions" if only else "/v1/chat/completions"
    try:
        async with http.post(f"{url}{path}", json=body) as response:
            if response.status != 200:
                flown.n_failed += 1
                await response.read()
                return
            answer = await response.json()
            made = answer["decision_id"] if only else response.headers["x-broker-decision"]
    except (aiohttp.ClientError, TimeoutError):
        flown.n_failed += 1
        return
    flown.at_s[made] = time.monotonic()
    if not only and len(talk) < _LONGEST_TALK:
        flown.talks.append([*body["messages"], answer["choices"][0]["message"]])


def _kill_a_worker(up: Up) -> None:
    """Kill one gateway worker as a crash would; its parent starts another."""
    parent = up.services["gateway"].pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(children[0]), signal.SIGKILL)


async def _settled(store: Store, ids: list[str]) -> Tally:
    """The tally, once all is stored or nothing more can be waited for."""
    deadline_s = time.monotonic() + _STORED_WITHIN_S
    while True:
        n_stored = len(await decisions(store, ids))
        late = time.monotonic() > deadline_s
        if n_stored == len(ids) or late:
            tally = await explain_all(store, ids)
            if tally.found == len(ids) or late:
                return tally
        await asyncio.sleep(1.0)


async def _explained(store: Store, ids: list[str]) -> tuple[int, dict[str, int]]:
    """How many of the decisions have an autopsy that says why; what became of their sessions."""
    found = await decisions(store, ids)
    told = [autopsy(Flight(record)) for record in found]
    steps = [one["session"] for one in told if one["session"] and one["session"]["incumbent"]]
    return sum(bool(one["why"]) for one in told), {
        "session_steps": len(steps),
        "session_steps_warm": sum(step["cached_tokens"] > 0 for step in steps),
        "handoffs": sum(step["handoff"] is not None for step in steps),
    }


def main() -> int:
    """Fly; 0 when every decision was found and came out the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decisions", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    given = parser.parse_args()
    figures = asyncio.run(fly(given.decisions, given.seed))
    text = msgspec.json.encode(figures).decode()
    sys.stdout.write(text + "\n" if given.json else f"{msgspec.json.format(text, indent=2)}\n")
    return 0 if figures["whole"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
