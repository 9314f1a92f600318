"""What finding a session costs a request: remembered here, and asked of the shared state."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

import numpy as np

from broker.prefixes import prefixes_of
from broker.sessions import Sessions
from broker.shared_state import SharedState, StateSettings
from broker.state_redis import RedisState
from broker.state_sqlite import SqliteState
from broker.wire.neutral import Message, Text
from feeds.clock import SystemClock
from feeds.records import DecisionRecord
from tests.fakes import facts
from tests.fakes.redis_server import has_redis, redis_server

_TURN = "The train leaves at 9:40 and covers 180 km in 2.5 hours. " * 35
_N_TURNS = 24
_ROUNDS = 400


def figures() -> dict[str, float]:
    """Medians, µs: a conversation of 24 turns of 2 KB, found here and at the shared state (SQLite,
    and a Redis on this machine where there is one).
    """
    return asyncio.run(_figures())


async def _figures() -> dict[str, float]:
    messages = [
        Message("assistant" if i % 2 else "user", (Text(f"{i} {_TURN}"),))
        for i in range(_N_TURNS + 1)
    ]
    short = [Message("user", (Text(_TURN),))]
    with tempfile.TemporaryDirectory() as folder:
        shared = SqliteState(Path(folder) / "state.sqlite")
        await shared.start()
        sessions = Sessions(shared, {}, SystemClock())
        sessions.served(await sessions.step_of(messages[:-2], key_id="k", name=None), _served())
        await sessions.close()
        found = {
            "session_first_p50_us": await _median(shared, short, sessions),
            "session_here_p50_us": await _median(shared, messages, sessions),
            "session_shared_p50_us": await _median(shared, messages, None),
            "session_hash_50kb_p50_us": _median_of([_timed_hash(messages) for _ in range(_ROUNDS)]),
        }
        await shared.close()
        if has_redis():
            async with redis_server(Path(folder)) as url:
                redis = RedisState(StateSettings(kind="redis", url=url))
                await redis.start()
                known = Sessions(redis, {}, SystemClock())
                known.served(await known.step_of(messages[:-2], key_id="k", name=None), _served())
                await known.close()
                found["session_redis_p50_us"] = await _median(redis, messages, None)
                await redis.close()
    return found


async def _median(shared: SharedState, messages: list[Message], sessions: Sessions | None) -> float:
    took = []
    for _ in range(_ROUNDS):
        knows = sessions or Sessions(shared, {}, SystemClock())
        begun_ns = time.perf_counter_ns()
        step = await knows.step_of(messages, key_id="k", name=None)
        took.append(time.perf_counter_ns() - begun_ns)
        assert (step.number == 2) == (len(messages) > 1)
    return _median_of(took)


def _timed_hash(messages: list[Message]) -> int:
    begun_ns = time.perf_counter_ns()
    prefixes_of(messages, "k")
    return time.perf_counter_ns() - begun_ns


def _median_of(took_ns: list[int]) -> float:
    return round(float(np.median(took_ns)) * 1e-3, 2)


def _served() -> DecisionRecord:
    return facts.decision(0)
