"""Quotas at sellers, from what they tell of them, as prices and gates.

A seller says with each answer how much of a window is left and when it starts anew. Between two
answers we count ourselves. While what is left will last until then at the pace at which we use
it, a request there costs nothing extra. Past that it does: whoever uses the quota now takes it
from a later request, so the price rises with the part of the demand to come that cannot be
served, and the requests leave first for which another offer is nearly as good. What is nearly
used up is kept for calls under way: the offer is not to be asked at all, before it says 429.

Pure: times are seconds on one clock, any clock. State of one process; the seller's word corrects
it with every answer, however many processes share the quota.

An answer's word is of when its call was *sent*: calls sent later are taken off it, those sent
before (however long their answers still run) are in it already; and a word about a window that has
started anew meanwhile, since it came late, says nothing.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from msgspec import Struct

_PACE_S: Final = 2.0
"""Over how long our own pace of use is measured."""
_KEPT_SHARE: Final = 0.05
"""Of a window, kept for what other processes have under way, and for answers that come late."""
_MOST_REMEMBERED: Final = 10_000
"""Calls remembered to take off an older word."""
_SAME_WINDOW_SHARE: Final = 0.5
"""Words whose resets differ by less than this share of the time left are of one window."""
_RISE: Final = 0.5
"""How far what is left may rise within a window: answers overtake each other, and an old one says
more is left than there is."""
_UNTOLD_RESET_S: Final = 1.0
"""Where no reset is told, an empty window is looked at again after so long."""


class Told(Struct, frozen=True, kw_only=True):
    """What a seller tells of one window: how much there is, is left, and seconds to its reset."""

    limit: float | None = None
    left: float | None = None
    reset_s: float | None = None


class Window:
    """One quota of one offer: requests, or tokens."""

    __slots__ = ("_left", "_limit", "_pace", "_paced_at_s", "_reset_at_s", "_uses", "known")

    def __init__(self) -> None:
        self.known = False
        self._left = math.inf
        self._limit = math.inf
        self._reset_at_s = 0.0
        self._pace = 0.0
        self._paced_at_s = 0.0
        self._uses: deque[tuple[float, float]] = deque(maxlen=_MOST_REMEMBERED)

    def told(self, told: Told, sent_at_s: float, now_s: float) -> None:
        """Take in what the answer to a call that was sent at `sent_at_s` says."""
        if told.left is None:
            return
        reset_at_s = sent_at_s + (_UNTOLD_RESET_S if told.reset_s is None else told.reset_s)
        if self.known and now_s < self._reset_at_s:
            late_s = self._reset_at_s - reset_at_s
            if late_s > _SAME_WINDOW_SHARE * (self._reset_at_s - sent_at_s):
                return
        left = told.left - self._used_since(sent_at_s)
        if self.known and now_s < self._reset_at_s and left > self._left:
            left = self._left + _RISE * (left - self._left)
        self.known = True
        self._left = left
        if told.limit is not None:
            self._limit = told.limit
        self._reset_at_s = reset_at_s

    def used(self, amount: float, now_s: float) -> None:
        """A call goes out that will use so much."""
        self._pace = self._pace_at(now_s) + amount / _PACE_S
        self._paced_at_s = now_s
        self._uses.append((now_s, amount))
        if self.known and now_s < self._reset_at_s:
            self._left -= amount

    def _used_since(self, sent_at_s: float) -> float:
        used = 0.0
        for at_s, amount in reversed(self._uses):
            if at_s <= sent_at_s:
                break
            used += amount
        return used

    def left(self, now_s: float) -> float:
        """What is left; all of it once the window has started anew."""
        return self._left if now_s < self._reset_at_s else self._limit

    def is_spent(self, now_s: float) -> bool:
        """Whether nobody may be sent there now."""
        if not self.known or now_s >= self._reset_at_s:
            return False
        kept = 1.0 if self._limit == math.inf else max(1.0, _KEPT_SHARE * self._limit)
        return self._left < kept

    def scarcity(self, now_s: float) -> float:
        """The share, in 0..1, of the use to come before the reset that cannot be served.

        Examples
        --------
        >>> window = Window()
        >>> window.told(Told(limit=100.0, left=10.0, reset_s=10.0), 0.0, 0.0)
        >>> for i in range(10):
        ...     window.used(1.0, i * 0.1)
        >>> window.is_spent(1.0), 0.5 < window.scarcity(1.0) <= 1.0, window.scarcity(11.0)
        (True, True, 0.0)
        """
        if not self.known or now_s >= self._reset_at_s:
            return 0.0
        to_come = self._pace_at(now_s) * (self._reset_at_s - now_s)
        if to_come <= 0.0:
            return 0.0
        return min(max(1.0 - max(self._left, 0.0) / to_come, 0.0), 1.0)

    def _pace_at(self, now_s: float) -> float:
        """Our use a second, forgotten over `_PACE_S`."""
        return self._pace * math.exp(-max(now_s - self._paced_at_s, 0.0) / _PACE_S)
