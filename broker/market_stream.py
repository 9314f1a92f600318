"""Live quotes for people: the market as server-sent events, first whole, then what changed.

`GET /v1/market/stream` sends one `snapshot`, then a `change` as often as the interval allows:
the offers and classes that differ from what this watcher was sent last. The market's body is made
once per interval however many watch. A watcher who reads slowly delays only itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final

import msgspec

from broker.errors import Shed

_PASSING: Final = ("quote_age_s",)
_encoder = msgspec.json.Encoder()

Body = dict[str, Any]


class MarketStream:
    """What watchers share.

    Parameters
    ----------
    body : the market now, as `GET /v1/market` answers it
    now_s : monotonic seconds
    interval_s : least time between two events to one watcher
    max_watchers : more are turned away
    """

    def __init__(
        self,
        body: Callable[[], Body],
        now_s: Callable[[], float],
        *,
        interval_s: float = 0.5,
        max_watchers: int = 200,
    ) -> None:
        self._body = body
        self._now_s = now_s
        self._interval_s = interval_s
        self._max_watchers = max_watchers
        self._made_s = float("-inf")
        self._current: Body = {}
        self.n_watchers = 0

    async def watch(self) -> AsyncGenerator[bytes, None]:
        """Events for one watcher, until it is closed.

        Raises
        ------
        Shed
            As many watch as may.
        """
        if self.n_watchers >= self._max_watchers:
            raise Shed(f"{self.n_watchers} watch the market already", retry_after_s=10.0)
        self.n_watchers += 1
        try:
            sent = self._now()
            yield _event("snapshot", sent)
            while True:
                await asyncio.sleep(self._interval_s)
                now = self._now()
                yield _event("change", changes(sent, now))
                sent = now
        finally:
            self.n_watchers -= 1

    def _now(self) -> Body:
        if self._now_s() - self._made_s >= self._interval_s:
            body = self._body()
            body["data"] = [
                {name: value for name, value in offer.items() if name not in _PASSING}
                for offer in body["data"]
            ]
            self._current = body
            self._made_s = self._now_s()
        return self._current


def changes(before: Body, now: Body) -> Body:
    """`now` without the offers and classes that are as they were `before`."""
    return {
        **now,
        "data": _differing(before["data"], now["data"], "offer"),
        "classes": _differing(before["classes"], now["classes"], "sla_class"),
    }


def _differing(before: list[Body], now: list[Body], key: str) -> list[Body]:
    known = {row[key]: row for row in before}
    return [row for row in now if known.get(row[key]) != row]


def _event(kind: str, body: Body) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), _encoder.encode(body))
