"""Offers whose calls that are out ought to have said something by now: ask others meanwhile.

A circuit hears of a seller that hangs only when its calls time out, a second or two after it
began; whatever is sent there until then is lost time. Three calls in a row found silent past what
nine in ten take (`bidding.waiting.silent_after_ms`), with none sent since the first of them that
was heard in time, say so sooner: by chance that is one in a thousand. The offer is passed over
while one of them is silent still, for a second at most after the last was found so: then requests
find out again.

A call counts as silent when it is so at two looks, and in time in which we listened
(`broker.stalls`): if our own loop stood still, what came meanwhile is read between them.
"""

from __future__ import annotations

import asyncio
from typing import Final

from broker.attempt_clocks import AttemptClocks
from broker.live_market import LiveMarket
from broker.stalls import LOOK_EVERY_S, Stalls
from feeds.clock import Clock

_IN_A_ROW: Final = 3
_PASSED_OVER_NS: Final = 1_000_000_000


class _Call:
    """One that is out: its latest progress seen, and how often it was found silent since."""

    __slots__ = ("clocks", "n_silent", "offer", "progress_ns")

    def __init__(self, offer: str, clocks: AttemptClocks) -> None:
        self.offer = offer
        self.clocks = clocks
        self.progress_ns: int | None = None
        self.n_silent = 0

    @property
    def is_silent(self) -> bool:
        return self.n_silent > 1

    @property
    def row(self) -> tuple[str, bool]:
        """Silence before the first token and within answers are told apart."""
        return self.offer, self.progress_ns is None


class _Row:
    """Calls found silent one after another, with none between that was sound."""

    __slots__ = ("found_ns", "n", "since_ns")

    def __init__(self, since_ns: int) -> None:
        self.since_ns = since_ns
        """When the first of them was sent: what was sent before says nothing of it."""
        self.found_ns = 0
        self.n = 0


class Silence:
    """The calls of one process that are out. `look` now and then; `offers` is what it found."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._calls: dict[str, _Call] = {}
        self._rows: dict[tuple[str, bool], _Row] = {}
        self.offers: frozenset[str] = frozenset()
        """To be passed over now."""

    def begun(self, attempt_id: str, offer: str, clocks: AttemptClocks) -> None:
        """A call goes out."""
        self._calls[attempt_id] = _Call(offer, clocks)

    def ended(self, attempt_id: str, *, well: bool) -> None:
        """It is over."""
        call = self._calls.pop(attempt_id, None)
        if call is None:
            return
        if call.clocks.progress_ns != call.progress_ns:
            self._heard(call)
        if well:
            self._sound((call.offer, False), call)

    def look(self) -> bool:
        """See who is silent now; whether `offers` has changed."""
        now_ns = self._clock.monotonic_ns()
        silent: set[str] = set()
        for call in self._calls.values():
            if call.clocks.progress_ns != call.progress_ns:
                self._heard(call)
            elif now_ns >= call.clocks.silent_from_ns:
                call.n_silent += 1
                if call.n_silent == 2:
                    self._found(call, now_ns)
                if call.is_silent and self._is_passed_over(call.row, now_ns):
                    silent.add(call.offer)
        changed = self.offers != silent
        self.offers = frozenset(silent)
        return changed

    def _found(self, call: _Call, now_ns: int) -> None:
        sent_ns = call.clocks.sent_ns
        row = self._rows.setdefault(call.row, _Row(sent_ns))
        row.since_ns = min(row.since_ns, sent_ns)
        row.found_ns = now_ns
        row.n += 1

    def _is_passed_over(self, row: tuple[str, bool], now_ns: int) -> bool:
        found = self._rows.get(row)
        return (
            found is not None and found.n >= _IN_A_ROW and now_ns - found.found_ns < _PASSED_OVER_NS
        )

    def _heard(self, call: _Call) -> None:
        """Something came. Late, it proves nothing; nor do further words that an answer is whole."""
        if call.progress_ns is None and not call.is_silent:
            self._sound(call.row, call)
        call.progress_ns, call.n_silent = call.clocks.progress_ns, 0

    def _sound(self, row: tuple[str, bool], call: _Call) -> None:
        found = self._rows.get(row)
        if found is not None and call.clocks.sent_ns >= found.since_ns:
            del self._rows[row]


async def keep_listening(silence: Silence, stalls: Stalls, market: LiveMarket) -> None:
    """Look again and again and tell the market, until cancelled."""
    try:
        while True:
            stalls.look()
            if silence.look():
                market.pass_over(silence.offers)
            await asyncio.sleep(LOOK_EVERY_S)
    finally:
        stalls.end()
