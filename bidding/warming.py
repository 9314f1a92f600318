"""Slates made before anybody asks: a new view gets those of the kinds asked for lately.

Making a slate is a pure function of the view, so a view made warm and one made cold decide the
same; only the request that would have come first is spared the work.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Final

from bidding.kind import Kind, KindKey
from bidding.params import Params
from bidding.slate import make_slate
from bidding.view import MarketView

MAX_KINDS: Final = 128
"""Kinds remembered: what a new view may cost is bounded by them."""

LATELY_US: Final = 10_000_000
"""Since when a kind must have been asked for, µs before the new view."""

_NO_TRIALS: Final[Mapping[str, Params]] = MappingProxyType({})


class Warmer:
    """Remembers kinds by last use, over views. One a gateway."""

    def __init__(self, max_kinds: int = MAX_KINDS) -> None:
        self._max_kinds = max_kinds
        self._asked_at_us: OrderedDict[KindKey, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._asked_at_us)

    def note(self, view: MarketView, now_us: int, arms: Collection[str] = ()) -> None:
        """Remember the kinds that were asked for on `view`; call it when the view is replaced.

        Kinds of a trial of params are passed over but for those of `arms`.
        """
        asked = self._asked_at_us
        for key in view.memo.slates:
            arm = Kind(*key).arm
            if arm and arm not in arms:
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

    def steps(
        self, view: MarketView, params: Params, trials: Mapping[str, Params] = _NO_TRIALS
    ) -> Iterator[KindKey]:
        """The same, one slate a step, so that other work may come between.

        Kinds noted meanwhile wait for the next view. Those of an arm are made under the params
        of its trial, and not at all where `trials` does not name it.
        """
        asked = self._asked_at_us
        while asked and view.at_us - next(iter(asked.values())) > LATELY_US:
            asked.popitem(last=False)
        warmed = view.memo.warmed
        for kind in list(asked):
            arm = Kind(*kind).arm
            tried = trials.get(arm) if arm else params
            if tried is None:  # the trial has ended
                continue
            key = (*kind[:-1], tried.version)
            warmed[key] = make_slate(view, key, tried)
            yield key
