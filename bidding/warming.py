"""Slates made before anybody asks: a new view gets those of the kinds asked for lately.

Making a slate is a pure function of the view, so a view made warm and one made cold decide the
same; only the request that would have come first is spared the work.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from bidding.kind import Kind, KindKey
from bidding.params import Params
from bidding.slate import make_slate
from bidding.view import MarketView

MAX_KINDS: Final = 128
"""Kinds remembered: what a new view may cost is bounded by them."""

LATELY_US: Final = 10_000_000
"""Since when a kind must have been asked for, µs before the new view."""


class Warmer:
    """Remembers kinds by last use, over views. One a gateway."""

    def __init__(self, max_kinds: int = MAX_KINDS) -> None:
        self._max_kinds = max_kinds
        self._asked_at_us: OrderedDict[KindKey, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._asked_at_us)

    def note(self, view: MarketView, now_us: int) -> None:
        """Remember the kinds that were asked for on `view`; call it when the view is replaced.

        Kinds of a trial of params are passed over: those params are not the ones in force.
        """
        asked = self._asked_at_us
        for key in view.memo.slates:
            if Kind(*key).arm:
                continue
            unversioned = (*key[:-1], 0)
            asked[unversioned] = now_us
            asked.move_to_end(unversioned)
        while len(asked) > self._max_kinds:
            asked.popitem(last=False)

    def warm(self, view: MarketView, params: Params) -> None:
        """Make the slates of the kinds asked for lately."""
        for _ in self.steps(view, params):
            pass

    def steps(self, view: MarketView, params: Params) -> Iterator[KindKey]:
        """The same, one slate a step, so that other work may come between.

        Kinds noted meanwhile wait for the next view.
        """
        asked = self._asked_at_us
        while asked and view.at_us - next(iter(asked.values())) > LATELY_US:
            asked.popitem(last=False)
        warmed = view.memo.warmed
        for kind in list(asked):
            key = (*kind[:-1], params.version)
            warmed[key] = make_slate(view, key, params)
            yield key
