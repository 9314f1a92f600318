"""Requests at a steady pace, every other one a stream, and what the app saw of each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Literal

import aiohttp
import msgspec
from msgspec import Struct

from broker.demo.storm.stand import Stand

_DOCUMENT = "A longer text, so that what tells these sellers apart is their price. " * 200
Ending = Literal["ok", "mid_stream", "failed"]


class Seen(Struct, kw_only=True):
    """One request as its app saw it.

    `ended` is "mid_stream" where part of an answer was followed by an error event in the
    surface's own shape; anything else that is not a whole answer is "failed", `why` says how.
    """

    started_s: float
    stream: bool
    took_ms: float = 0.0
    ended: Ending = "failed"
    why: str = ""
    offer: str = ""
    decision: str = ""


class Traffic:
    """Asks `rate` times a second until stopped; `seen` fills as requests end."""

    def __init__(self, stand: Stand, *, rate: float, deadline_ms: float) -> None:
        self.seen: list[Seen] = []
        self.n_started = 0
        self._stand = stand
        self._every_s = 1.0 / rate
        self._deadline_ms = deadline_ms
        self._stopping = asyncio.Event()
        self._open: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Ask until `stop`, then wait for what is under way."""
        begun_s = time.monotonic()
        while not self._stopping.is_set():
            due_s = begun_s + self.n_started * self._every_s
            await asyncio.sleep(max(due_s - time.monotonic(), 0.0))
            task = asyncio.create_task(self._ask(self.n_started, stream=self.n_started % 2 == 1))
            self._open.add(task)
            task.add_done_callback(self._open.discard)
            self.n_started += 1
        while self._open:
            await asyncio.wait(self._open)

    @property
    def n_open(self) -> int:
        """Requests under way now."""
        return len(self._open)

    def stop(self) -> None:
        """Start no more requests."""
        self._stopping.set()

    def since(self, begun_s: float, end_s: float) -> list[Seen]:
        """The requests begun in a span of time that have ended."""
        return [s for s in self.seen if begun_s <= s.started_s < end_s]

    async def settled(self) -> None:
        """Wait until everything that is under way now has ended."""
        if self._open:
            await asyncio.wait(set(self._open))

    async def _ask(self, n: int, *, stream: bool) -> None:
        seen = Seen(started_s=time.monotonic(), stream=stream)
        try:
            await self._answer(seen, body_of(self._stand, n, self._deadline_ms, stream=stream))
        except (aiohttp.ClientError, TimeoutError) as error:
            seen.why = type(error).__name__
        seen.took_ms = (time.monotonic() - seen.started_s) * 1e3
        self.seen.append(seen)

    async def _answer(self, seen: Seen, body: dict[str, Any]) -> None:
        stand = self._stand
        url = f"{stand.url}/v1/chat/completions"
        async with stand.http.post(url, json=body, headers=stand.headers) as response:
            seen.decision = response.headers.get("x-broker-decision", "")
            raw = await response.read()
            seen.offer = response.headers.get("x-broker-offer", "")
            if response.status != 200:
                told = msgspec.json.decode(raw)["error"]
                seen.why = f"{response.status} {told['code'] or told['type']}: {told['message']}"
            elif seen.stream:
                _judge_stream(seen, raw)
            elif msgspec.json.decode(raw)["choices"][0]["message"]["content"]:
                seen.ended = "ok"


def body_of(stand: Stand, n: int, deadline_ms: float, *, stream: bool) -> dict[str, Any]:
    """Request `n`: any of the stand's sellers, within the deadline."""
    return {
        "model": stand.model,
        "messages": [{"role": "user", "content": f"{_DOCUMENT}What is {n} * 7?"}],
        "stream": stream,
        "max_tokens": 200,
        "sla": {
            "latency_ms": deadline_ms,
            "percentile": 0.95,
            "compliance": {"allow": list(stand.providers)},
        },
    }


def _judge_stream(seen: Seen, raw: bytes) -> None:
    """A stream is whole with its finish reason and [DONE]; broken honestly with an error event."""
    lines = [line[6:] for line in raw.split(b"\n") if line.startswith(b"data: ")]
    events = [msgspec.json.decode(line) for line in lines if line != b"[DONE]"]
    wrote = any(c["delta"].get("content") for e in events for c in e.get("choices", ()))
    finished = any(c.get("finish_reason") for e in events for c in e.get("choices", ()))
    error = next((e["error"] for e in events if "error" in e), None)
    if error is not None:
        typed = bool(wrote and error.get("type") and error.get("message"))
        seen.ended = "mid_stream" if typed else "failed"
        seen.why = f"{error.get('code') or error.get('type')}: {error.get('message')}"
    elif wrote and finished and lines[-1] == b"[DONE]":
        seen.ended = "ok"
    else:
        seen.why = f"stream of {len(lines)} events without an end"


def share_at(seen: Sequence[Seen], offer: str) -> float:
    """The share of these requests that `offer` answered."""
    return sum(s.offer == offer for s in seen) / len(seen) if seen else 0.0
