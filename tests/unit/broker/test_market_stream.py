"""The stream of quotes: first everything, then what differs; made once for all watchers."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import Any

import pytest

from broker.errors import Shed
from broker.market_stream import MarketStream, changes


def market(**ttft_ms: float) -> dict[str, Any]:
    offers = [{"offer": o, "ttft_ms": v, "quote_age_s": 0.1} for o, v in ttft_ms.items()]
    return {"view": 1, "data": offers, "classes": [{"sla_class": "c", "requests": 1}]}


def test_changes_are_what_differs_and_what_is_new() -> None:
    found = changes(market(a=1.0, b=2.0), market(a=1.0, b=3.0, c=4.0))
    assert [o["offer"] for o in found["data"]] == ["b", "c"]
    assert found["classes"] == []


async def test_a_watcher_gets_a_snapshot_then_changes_and_the_body_is_made_once() -> None:
    now = [0.0]
    made: list[float] = []

    def body() -> dict[str, Any]:
        made.append(now[0])
        return market(a=1.0, b=float(len(made)))

    stream = MarketStream(body, lambda: now[0], interval_s=0.001)
    async with aclosing(stream.watch()) as one, aclosing(stream.watch()) as two:
        first = [await anext(one), await anext(two)]
        assert first[0] == first[1]
        assert len(made) == 1
        now[0] = 1.0
        event = (await anext(one)).decode()
        assert event.startswith("event: change\n")
        sent = json.loads(event.split("data: ")[1])
        assert [o["offer"] for o in sent["data"]] == ["b"]
        assert "quote_age_s" not in sent["data"][0]
        assert stream.n_watchers == 2
    assert stream.n_watchers == 0


async def test_too_many_watchers_are_turned_away() -> None:
    stream = MarketStream(lambda: market(a=1.0), lambda: 0.0, max_watchers=1)
    async with aclosing(stream.watch()) as one:
        await anext(one)
        with pytest.raises(Shed):
            await anext(stream.watch())
    assert stream.n_watchers == 0
