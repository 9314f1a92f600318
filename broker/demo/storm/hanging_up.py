"""Apps that hang up in the middle of an answer: how soon the seller's call is over."""

from __future__ import annotations

import asyncio
import time

from broker.demo.storm.stand import Stand
from broker.demo.storm.traffic import body_of

_PATIENCE_S = 0.2
_ENDS_WITHIN_S = 5.0
_LONG_MS = 60_000.0


async def hang_ups(stand: Stand, n: int) -> list[float]:
    """Milliseconds from each hang-up until the seller had booked its call as over.

    One app after another, so that each call is known; seller and apps share this machine's wall
    clock. A call that is answered before the app hangs up counts for nothing.
    """
    left: list[float] = []
    for i in range(n):
        known = {p: await _last_call(stand, p) for p in stand.providers}
        hung_up_at = await _hang_up(stand, i)
        ended_at = await _ended_at(stand, known)
        if ended_at is not None:
            left.append(max(ended_at - hung_up_at, 0.0) * 1e3)
    return left


async def _hang_up(stand: Stand, i: int) -> float:
    body = body_of(stand, i, _LONG_MS, stream=i % 2 == 1)
    url = f"{stand.url}/v1/chat/completions"
    asking = asyncio.create_task(_read(stand, url, body))
    await asyncio.sleep(_PATIENCE_S)
    at = time.time()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    return at


async def _read(stand: Stand, url: str, body: dict[str, object]) -> None:
    async with stand.http.post(url, json=body, headers=stand.headers) as response:
        await response.read()


async def _last_call(stand: Stand, provider: str) -> int:
    calls = await stand.calls(provider)
    return int(calls[-1]["n"]) if calls else -1


async def _ended_at(stand: Stand, known: dict[str, int]) -> float | None:
    """Wall-clock end of the calls since `known`; None where the app had its answer already."""
    give_up_s = time.monotonic() + _ENDS_WITHIN_S
    while True:
        calls = [c for p, n in known.items() for c in await stand.calls(p, n)]
        if all(c["ended"] != "open" for c in calls):
            if not calls or any(c["ended"] != "aborted" for c in calls):
                return None
            return max(float(c["at"]) + float(c["took_ms"]) * 1e-3 for c in calls)
        if time.monotonic() > give_up_s:
            return time.time()
        await asyncio.sleep(0.02)
