"""Traffic through the real `openai` client: ask, check the answer, report the outcome."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping

import aiohttp
import openai

from broker.demo.classes import CLASSES, DemoClass
from broker.demo.tally import Bought, Yardstick, measure
from broker.paper.behaviour import Behaviour
from broker.paper.tasks import TASKS, TaskItem, check, generate


class Traffic:
    """An open-loop stream of requests at `rate` a second, until `stop`.

    Parameters
    ----------
    base_url, api_key : of the broker
    on_bought : told of every request once it is settled
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        behaviour: Behaviour,
        yardsticks: dict[str, Yardstick],
        on_bought: Callable[[Bought], None],
        *,
        rate: float,
        seed: int = 0,
    ) -> None:
        self._client = openai.AsyncOpenAI(
            base_url=f"{base_url}/v1", api_key=api_key, max_retries=0, timeout=60.0
        )
        self._outcomes_url = f"{base_url}/v1/outcomes"
        self._headers = {"Authorization": f"Bearer {api_key}"}
        self._behaviour = behaviour
        self._yardsticks = yardsticks
        self._on_bought = on_bought
        self._rate = rate
        self._random = random.Random(seed)
        self._stopping = asyncio.Event()
        self._open: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        """Start no more requests."""
        self._stopping.set()

    async def run(self) -> None:
        """Send requests until stopped, then wait for those under way."""
        async with aiohttp.ClientSession(headers=self._headers) as session:
            begun_s = time.monotonic()
            n = 0
            while not self._stopping.is_set():
                due_s = begun_s + n / self._rate
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
                demo_class = self._random.choices(CLASSES, [c.weight for c in CLASSES])[0]
                item = generate(TASKS[n % len(TASKS)], n)
                task = asyncio.create_task(self._one(session, demo_class, item))
                self._open.add(task)
                task.add_done_callback(self._open.discard)
                n += 1
            while self._open:
                await asyncio.wait(self._open)
        await self._client.close()

    async def _one(
        self, session: aiohttp.ClientSession, demo_class: DemoClass, item: TaskItem
    ) -> None:
        bought = Bought(
            sla_class=demo_class.name,
            task=item.task,
            started_s=time.monotonic(),
            took_s=0.0,
            ok=False,
        )
        try:
            if demo_class.stream:
                await self._stream(demo_class, item, bought)
            else:
                await self._ask(demo_class, item, bought)
        except openai.OpenAIError as error:
            bought.error = f"{type(error).__name__}: {error}"
            bought.on_time = False if demo_class.percentile is not None else None
        bought.took_s = time.monotonic() - bought.started_s
        measure(bought, item, self._yardsticks[demo_class.name], self._behaviour)
        self._on_bought(bought)
        if bought.ok:
            await self._report(session, bought)

    async def _ask(self, demo_class: DemoClass, item: TaskItem, bought: Bought) -> None:
        raw = await self._client.chat.completions.with_raw_response.create(
            model=f"market:{item.task}",
            messages=[{"role": "user", "content": item.prompt}],
            extra_body={"sla": demo_class.sla},
        )
        answer = raw.parse()
        bought.good = check(item, answer.choices[0].message.content or "")
        _settle(bought, raw.headers)

    async def _stream(self, demo_class: DemoClass, item: TaskItem, bought: Bought) -> None:
        raw = await self._client.chat.completions.with_raw_response.create(
            model=f"market:{item.task}",
            messages=[{"role": "user", "content": item.prompt}],
            stream=True,
            extra_body={"sla": demo_class.sla},
        )
        pieces: list[str] = []
        first_s: float | None = None
        async for chunk in raw.parse():
            if chunk.choices and chunk.choices[0].delta.content:
                first_s = first_s or time.monotonic()
                pieces.append(chunk.choices[0].delta.content)
        bought.good = check(item, "".join(pieces))
        if demo_class.percentile is not None and first_s is not None:
            bought.on_time = first_s - bought.started_s <= demo_class.sla["ttft_ms"] / 1e3
        _settle(bought, raw.headers)

    async def _report(self, session: aiohttp.ClientSession, bought: Bought) -> None:
        outcome = {
            "decision_id": bought.decision_id,
            "quality": 1.0 if bought.good else 0.0,
            "source": "verifier",
        }
        async with session.post(self._outcomes_url, json=outcome) as response:
            await response.read()


def _settle(bought: Bought, headers: Mapping[str, str]) -> None:
    """Take over what the broker's headers say; a stream's cost is the one expected."""
    bought.ok = True
    bought.decision_id = headers["x-broker-decision"]
    bought.offer = headers["x-broker-offer"]
    bought.usd = float(headers["x-broker-cost-usd"])
    bought.n_attempts = int(headers["x-broker-attempts"])
