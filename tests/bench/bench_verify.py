"""What checking answers buys: share right and dollars, with and without, on the paper market.

Problems whose answers can be checked (math and text extraction), the market's own sellers, prices
and right-answer rates. A webhook on this machine says whether an answer is right; no class has a
history, so the auction knows of models only what their catalogue says.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from aiohttp import web

from broker.paper.tasks import TaskItem, check, generate
from broker.verify.webhook import VerifySettings
from tests.fakes.gateway_rig import Rig, rig

N_ITEMS = 300
_AT_ONCE = 20
_ITEMS = [generate(("math", "extract")[n % 2], n) for n in range(N_ITEMS)]
_PROVIDERS = ("openai", "groq", "together", "mistral", "google")


def figures() -> dict[str, float]:
    """Share of right answers and dollars per 1,000 requests of each way to buy."""
    return asyncio.run(_figures())


async def _figures() -> dict[str, float]:
    found: dict[str, float] = {}
    app = web.Application()
    app.router.add_post("/", _checks)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
    allowed = VerifySettings(webhooks=(origin,), private_hosts=("127.0.0.1",))
    ways: dict[str, dict[str, Any]] = {
        "cheapest": {"value_usd": 0.0},
        "cheapest_checked_2": {"value_usd": 0.0, "verify": _verify(origin, 2)},
        "cheapest_checked_3": {"value_usd": 0.0, "verify": _verify(origin, 3)},
        "cheapest_checked_5": {"value_usd": 0.0, "verify": _verify(origin, 5)},
        "dear": {"value_usd": 1.0},
    }
    try:
        with tempfile.TemporaryDirectory() as folder:
            async with rig(
                Path(folder),
                providers=_PROVIDERS,
                models=None,
                time_scale=0.0005,
                settings={"verify": allowed},
            ) as market:
                for name, sla in ways.items():
                    share, usd = await _buy(market, sla)
                    found[f"verify_{name}_right_share"] = round(share, 4)
                    found[f"verify_{name}_usd_per_1k"] = round(usd, 5)
    finally:
        await runner.cleanup()
    return found


def _verify(origin: str, most_answers: int) -> dict[str, Any]:
    return {"webhook": f"{origin}/", "most_answers": most_answers}


async def _checks(request: web.Request) -> web.Response:
    told = await request.json()
    item = _ITEMS[int(told["metadata"]["item"])]
    return web.json_response({"ok": check(item, told["answer"]["choices"][0]["text"])})


async def _buy(market: Rig, sla: dict[str, Any]) -> tuple[float, float]:
    key = market.gateway.key()
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(n: int, item: TaskItem) -> tuple[bool, float]:
        async with slots:
            reply = await market.ask(
                key,
                item.prompt,
                model=f"market:{item.task}",
                metadata={"item": str(n)},
                sla={"strict": True, **sla},
            )
        assert reply.status == 200, reply.body
        text = reply.body["choices"][0]["message"]["content"]
        return check(item, text), float(reply.headers["x-broker-cost-usd"])

    bought = await asyncio.gather(*(one(n, item) for n, item in enumerate(_ITEMS)))
    return sum(good for good, _ in bought) / N_ITEMS, 1000 * sum(usd for _, usd in bought) / N_ITEMS
