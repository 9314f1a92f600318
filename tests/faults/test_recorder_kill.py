"""`kill -9` of recorder or engine at every step: nothing lost, nothing twice.

Each seed kills several victims in a row on one chain, then lets one finish, and compares the raw
rows with what was on the log and every rollup with the raw rows. In the suite a few seeds run;
all of them by

    python -m tests.faults.test_recorder_kill --seeds 200
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import random
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from analytics.store import Store
from broker.embedded.store import ChdbServer
from tests.fakes.desk import emptied, migrated
from tests.fakes.rollups import assert_rollups_equal_raw
from tests.faults.recorder_victim import STEPS, Kill, Task, run

N_SEEDS = 12
N_RECORDS = 400
N_KILLS = 3

_victims = multiprocessing.get_context("forkserver")
_victims.set_forkserver_preload(["tests.faults.recorder_victim"])


async def one_seed(server: ChdbServer, store: Store, seed: int) -> None:
    """Kill `N_KILLS` times as the seed says, finish, compare. Raises `AssertionError`."""
    rng = random.Random(seed)
    topic = ("market.attempts", "market.decisions")[seed % 2]
    log = f"log-{seed}"
    for k in range(N_KILLS + 1):
        kill = None
        if k < N_KILLS:
            kill = Kill(
                step=STEPS[(seed // 2 + k) % len(STEPS)] if k == 0 else rng.choice(STEPS),
                nth_batch=rng.randint(1, 3),
                delay_ms=rng.uniform(0, 25),
                pid=server.pid if rng.random() < 0.3 else 0,
            )
        task = Task(store.settings, log, topic, N_RECORDS, rng.getrandbits(30), kill)
        code = await _victim(task)
        allowed = {0} if kill is None else {0, -signal.SIGKILL}
        assert code in allowed, f"seed {seed}: victim {k} ended with {code}"
    table = topic.split(".")[1]
    answer = await store.query(
        "SELECT count(), uniqExact(_offset), min(_offset), max(_offset)"
        " FROM {raw:Identifier}.{table:Identifier} WHERE _log = {log:String}",
        {"table": table, "log": log},
    )
    assert answer.rows == [(N_RECORDS, N_RECORDS, 0, N_RECORDS - 1)], f"seed {seed}"
    await assert_rollups_equal_raw(store)


async def _victim(task: Task) -> int:
    process = _victims.Process(target=run, args=(task,))
    process.start()
    deadline = time.monotonic() + 90
    while process.is_alive():
        assert time.monotonic() < deadline, f"{task.log}: not done after 90 s"
        await asyncio.sleep(0.01)
    code = process.exitcode
    process.close()
    assert code is not None
    return code


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ChdbServer]:
    async with ChdbServer(tmp_path_factory.mktemp("killed")) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def store(server: ChdbServer) -> AsyncIterator[Store]:
    async with migrated(server) as store:
        yield store


@pytest.mark.slow
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("seed", range(N_SEEDS))
async def test_kills_lose_nothing_and_count_nothing_twice(
    server: ChdbServer, store: Store, seed: int
) -> None:
    await one_seed(server, store, seed)


async def _many(n_seeds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with ChdbServer(Path(folder)) as server, migrated(server) as store:
            failed = []
            for seed in range(n_seeds):
                try:
                    await one_seed(server, store, seed)
                except AssertionError as error:
                    failed.append(seed)
                    print(f"seed {seed}: {error}", flush=True)
                if seed % 20 == 19:
                    await emptied(store)
                    print(f"{seed + 1} seeds, {len(failed)} failed", flush=True)
            print(f"engine restarts: {server.n_restarts}")
    if failed:
        raise SystemExit(f"failed seeds: {failed}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=200)
    asyncio.run(_many(parser.parse_args().seeds))
