"""What a request costs the gateway: CPU time of its process, and what it adds to the way.

The whole market is up (log, store, estimators, recorder, 131 offers over HTTP), and requests go
through the real gateway process as apps send them. The clients and the paper market share this
machine's cores with it, so requests a second would measure those; the CPU time of the gateway's
process alone, over the requests it served, says what one core can do, and is little moved by
what else runs. `gateway_added_*` is what its own clock says: from a request's last byte read to the
seller being called, and what it did after the answer.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

import aiohttp
import psutil

from tests.fakes.up_rig import Market, market_up, polled

N_REQUESTS = 1_500
N_WARM = 300
N_AT_ONCE = 16
_BODY = {
    "model": "market:math",
    "messages": [
        {"role": "system", "content": "Answer with the number alone. " * 20},
        {"role": "user", "content": "What is 6 * 7? " * 90},
    ],
    "sla": {"quality": 0.9},
    "max_tokens": 16,
}


async def _ask(market: Market, n_requests: int, *, stream: bool) -> None:
    url = f"{market.url}/v1/chat/completions"
    headers = {"Authorization": f"Bearer {market.up.keys['app']}"}
    body = _BODY | ({"stream": True} if stream else {})
    left = iter(range(n_requests))

    async def one_after_another(http: aiohttp.ClientSession) -> None:
        for _ in left:
            async with http.post(url, json=body) as response:
                await response.read()
                assert response.status == 200, await response.text()

    async with aiohttp.ClientSession(headers=headers) as http:
        await asyncio.gather(*(one_after_another(http) for _ in range(N_AT_ONCE)))


async def _cpu_us(market: Market, *, stream: bool) -> tuple[float, float]:
    """CPU time of the gateway's process per request, µs, and requests served a second."""
    await _ask(market, N_WARM, stream=stream)
    process = psutil.Process(market.up.services["gateway"].pid)
    before, begun = process.cpu_times(), time.perf_counter()
    await _ask(market, N_REQUESTS, stream=stream)
    took = time.perf_counter() - begun
    after = process.cpu_times()
    used = after.user + after.system - before.user - before.system
    return 1e6 * used / N_REQUESTS, N_REQUESTS / took


async def figures() -> dict[str, float]:
    """`gateway_*`: per request of 2 KB, answered whole and streamed."""
    with tempfile.TemporaryDirectory() as folder:
        async with market_up(Path(folder), time_scale=0.01) as market:
            whole_us, whole_per_s = await _cpu_us(market, stream=False)
            streamed_us, streamed_per_s = await _cpu_us(market, stream=True)
            n_sent = 2 * (N_REQUESTS + N_WARM)

            async def stored() -> bool:
                ((n,),) = await market.rows("SELECT count() FROM market.decisions")
                return bool(n >= n_sent)

            await polled(stored, "every decision stored", 60.0)
            ((p50_us, p99_us),) = await market.rows(
                "SELECT quantileExact(0.5)(overhead_us), quantileExact(0.99)(overhead_us)"
                " FROM market.decisions"
            )
    return {
        "gateway_cpu_us_per_request": whole_us,
        "gateway_cpu_us_per_stream": streamed_us,
        "gateway_requests_per_core_s": 1e6 / whole_us,
        "gateway_requests_seen_per_s": whole_per_s,
        "gateway_streams_seen_per_s": streamed_per_s,
        "gateway_added_p50_us": float(p50_us),
        "gateway_added_p99_us": float(p99_us),
    }
