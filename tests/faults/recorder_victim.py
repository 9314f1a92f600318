"""A recorder's chain in a process of its own, killed at a chosen step of a chosen batch.

The step is one of the recorder's: `read` (a batch is gathered, nothing sent), `insert` (under way),
`inserted` (acknowledged, not yet read back), `views` (rollups under way), `after` (all done). The
target is the recorder itself or the engine under it. A killed recorder's insert may still be
running in the engine when its successor starts.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from analytics.chain import Chain, ChainStats
from analytics.errors import StoreUnavailable
from analytics.lives import life_of
from analytics.store import Params, Store, StoreSettings, Value
from feeds.codec import Record
from feeds.topics import BY_NAME
from tests.fakes import facts

STEPS = ("read", "insert", "inserted", "views", "after")
_MAKE: dict[str, Callable[[int], Record]] = {
    "market.attempts": facts.attempt,
    "market.decisions": facts.decision,
}
_GIVE_UP_S = 60


class Kill(Struct, frozen=True):
    """When to kill whom: `delay_ms` after a request of that step was begun."""

    step: str
    nth_batch: int
    delay_ms: float
    pid: int


class Task(Struct, frozen=True):
    """What to append where. Batches' sizes are drawn from `seed`, so each victim cuts otherwise."""

    store: StoreSettings
    log: str
    topic: str
    n_records: int
    seed: int
    kill: Kill | None


class _Armed(Store):
    """A store that kills at the chosen step."""

    kill: Kill | None = None
    n_batches = 0

    def reached(self, step: str) -> bool:
        kill = self.kill
        return kill is not None and kill.step == step and kill.nth_batch == self.n_batches

    def shoot(self) -> None:
        assert self.kill is not None
        pid = self.kill.pid or os.getpid()
        self.kill = None
        os.kill(pid, signal.SIGKILL)

    async def insert_json(
        self, table: str, columns: Sequence[str], body: bytes, settings: Mapping[str, Value]
    ) -> None:
        if self.reached("read"):
            self.shoot()
        if self.reached("insert"):
            self._shoot_later()
        await super().insert_json(table, columns, body, settings)
        if self.reached("inserted"):
            self.shoot()

    async def command(
        self, sql: str, params: Params | None = None, settings: Mapping[str, Value] | None = None
    ) -> None:
        if "{feed:Identifier}" in sql and self.reached("views"):
            self._shoot_later()
        await super().command(sql, params, settings)

    def _shoot_later(self) -> None:
        assert self.kill is not None
        asyncio.get_running_loop().call_later(self.kill.delay_ms / 1e3, self.shoot)


def run(task: Task) -> None:
    """Append all records of the task, or die trying."""
    asyncio.run(_run(task))


async def _run(task: Task) -> None:
    deadline = time.monotonic() + _GIVE_UP_S
    rng = random.Random(task.seed)
    store: _Armed | None = None
    chain: Chain | None = None
    while True:
        try:
            if store is None:
                store = await _Armed.open(task.store)
                store.kill = task.kill
            if chain is None:
                life = await life_of(store, task.log)
                topic = BY_NAME[task.topic]
                fresh = Chain(
                    store, topic, task.log, life, 0, today=facts.today, stats=ChainStats()
                )
                await fresh.resume()
                chain = fresh
            await _append_all(task, store, chain, rng)
            await store.close()
            return
        except StoreUnavailable:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)


async def _append_all(task: Task, store: _Armed, chain: Chain, rng: random.Random) -> None:
    make = _MAKE[task.topic]
    while chain.next_offset < task.n_records:
        first = chain.next_offset
        end = min(first + rng.randint(1, 120), task.n_records)
        records = [make(i) for i in range(first, end)]
        batch = facts.batch(BY_NAME[task.topic], records, first, log=task.log)
        store.n_batches += 1
        while chain.next_offset < end:
            try:
                await chain.append(batch)
            except StoreUnavailable:
                await asyncio.sleep(0.05)  # the pipeline sends the same batch again
        if store.reached("after"):
            store.shoot()
