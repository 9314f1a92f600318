"""Who is passed over because the calls that are out say nothing."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from broker.attempt_clocks import AttemptClocks, Waits
from broker.silence import Silence
from broker.stalls import Stalls
from feeds.clock import ManualClock

MS = 1_000_000
WAITS = Waits(
    first_token_ns=1_000 * MS,
    overdue_ns=1_000 * MS,
    silent_ns=100 * MS,
    gap_ns=400 * MS,
    alone_ns=1_000 * MS,
    alone_gap_ns=400 * MS,
    usual_gap_ns=400 * MS,
)


class Sent(NamedTuple):
    id: str
    clocks: AttemptClocks


class Calls:
    """Calls to one offer or more, on a clock of their own; each counts as silent after 100 ms."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.silence = Silence(self.clock)
        self.stalls = Stalls(self.clock)
        self._n = 0

    def send(self, offer: str = "a") -> Sent:
        self._n += 1
        clocks = AttemptClocks(WAITS, 60_000 * MS, self.clock, self.stalls, lambda: True)
        sent = Sent(f"c{self._n}", clocks)
        self.silence.begun(sent.id, offer, clocks)
        return sent

    def hear(self, call: Sent) -> None:
        call.clocks.progressed(self.clock.monotonic_ns())

    def end(self, call: Sent, *, well: bool) -> None:
        self.silence.ended(call.id, well=well)

    def after(self, ms: float) -> frozenset[str]:
        """Time passes, with a look every 20 ms."""
        for _ in range(round(ms / 20)):
            self.clock.advance(0.02)
            self.stalls.look()
            self.silence.look()
        return self.silence.offers


def test_three_silent_calls_in_a_row_have_their_offer_passed_over() -> None:
    calls = Calls()
    sent = [calls.send() for _ in range(2)]
    assert calls.after(300) == frozenset()
    sent.append(calls.send())
    assert calls.after(100) == frozenset()
    assert calls.after(40) == {"a"}
    for call in sent:
        calls.end(call, well=False)
    assert calls.after(20) == frozenset()


def test_one_heard_in_time_breaks_the_row_only_if_it_was_sent_since() -> None:
    calls = Calls()
    before = calls.send()
    calls.after(20)
    for _ in range(2):
        calls.send()
    calls.after(60)
    calls.hear(before)  # it went out while all was well
    calls.after(100)
    since = calls.send()
    calls.after(20)
    calls.hear(since)
    calls.after(20)
    calls.send()
    assert calls.after(200) == frozenset()
    for _ in range(2):
        calls.send()
    assert calls.after(140) == {"a"}


def test_a_late_sign_of_life_lets_it_be_asked_but_one_more_silence_is_enough() -> None:
    calls = Calls()
    sent = [calls.send() for _ in range(3)]
    assert calls.after(140) == {"a"}
    for call in sent:
        calls.hear(call)
        calls.end(call, well=False)
    assert calls.after(20) == frozenset()
    calls.send()
    assert calls.after(140) == {"a"}


def test_it_is_asked_again_after_a_second_whatever_is_out() -> None:
    calls = Calls()
    for _ in range(3):
        calls.send()
    assert calls.after(140) == {"a"}
    assert calls.after(1_000) == frozenset()
    calls.send()
    assert calls.after(140) == {"a"}


def test_our_own_standing_still_is_nobodys_silence() -> None:
    calls = Calls()
    sent = [calls.send() for _ in range(5)]
    calls.stalls.look()
    calls.clock.advance(2.0)
    # All were sent in time, and none counts as silent before it has been listened for.
    assert calls.after(80) == frozenset()
    for call in sent:  # what had come is read now
        calls.hear(call)
    assert calls.after(60) == frozenset()


@pytest.mark.parametrize("well", [True, False])
def test_stalled_answers_are_seen_though_others_go_on(well: bool) -> None:
    calls = Calls()
    stalled = [calls.send() for _ in range(2)]
    for call in stalled:
        calls.hear(call)
    calls.after(60)
    whole = calls.send()
    calls.hear(whole)
    calls.after(80)
    calls.hear(whole)
    calls.after(20)
    calls.end(whole, well=well)
    third = calls.send()
    calls.hear(third)
    assert calls.after(160) == (frozenset() if well else {"a"})


def test_offers_are_told_apart() -> None:
    calls = Calls()
    for _ in range(2):
        calls.send("a")
        calls.send("b")
    assert calls.after(200) == frozenset()
    calls.send("b")
    assert calls.after(200) == {"b"}
