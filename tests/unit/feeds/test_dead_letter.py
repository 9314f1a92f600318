"""Dead letters: kept with their reason, until there are too many to be the writers' fault."""

from __future__ import annotations

import pytest

from feeds.clock import ManualClock
from feeds.codec import decode, encode
from feeds.dead_letter import MAX_PAYLOAD_BYTES, DeadLetters, DeadLetterSettings, dead_record
from feeds.errors import TooManyBad
from feeds.kafka import Partition
from feeds.records import DeadRecord

P, Q = Partition("market.attempts", 0), Partition("market.attempts", 1)


def letters(clock: ManualClock | None = None, **settings: float) -> DeadLetters:
    return DeadLetters(DeadLetterSettings(**settings), clock or ManualClock(5))


def bad(to: DeadLetters, n: int, partition: Partition = P) -> None:
    for i in range(n):
        to.bad(partition, i, b"?", "unreadable")


def test_keeps_bytes_reason_and_place() -> None:
    letter = letters().bad(P, 17, b"\xff\x00", "not a record")
    assert (letter.topic, letter.partition, letter.offset) == ("market.attempts", 0, 17)
    assert (letter.payload, letter.reason, letter.at_us) == (b"\xff\x00", "not a record", 5)
    assert decode(encode(letter)) == letter


def test_the_very_first_message_may_be_bad() -> None:
    """Arroyo's ratio divided by the zero valid ones there were."""
    dead = letters()
    assert isinstance(dead.bad(P, 0, b"", "empty"), DeadRecord)
    assert dead.n_dead == 1


def test_a_share_means_nothing_in_a_handful() -> None:
    bad(letters(min_messages=100), 99)


def test_stops_above_the_share_and_not_at_it() -> None:
    dead = letters(max_share=0.2, min_messages=100)
    dead.good(P, 400)
    bad(dead, 100)  # 100 of 500
    with pytest.raises(TooManyBad, match="101 of 501"):
        bad(dead, 1)


def test_the_share_is_of_the_topic_over_its_partitions() -> None:
    dead = letters(max_share=0.2, min_messages=100)
    dead.good(Q, 400)
    bad(dead, 50, P)
    bad(dead, 50, Q)
    with pytest.raises(TooManyBad):
        bad(dead, 1, P)


def test_topics_are_judged_apart() -> None:
    dead = letters(max_share=0.2, min_messages=100)
    dead.good(Partition("market.quotes", 0), 1_000_000)
    bad(dead, 99)
    with pytest.raises(TooManyBad):
        bad(dead, 1)


def test_the_window_moves_on() -> None:
    clock = ManualClock()
    dead = letters(clock, max_share=0.2, min_messages=100, window_s=60)
    dead.good(P, 80)
    bad(dead, 19)
    clock.advance(30)
    dead.good(P, 80)
    clock.advance(31)  # the first 99 are out of the window
    bad(dead, 19)
    with pytest.raises(TooManyBad, match="21 of 101"):
        bad(dead, 2)


def test_stepping_the_wall_clock_changes_nothing() -> None:
    clock = ManualClock(10**15)
    dead = letters(clock, max_share=0.2, min_messages=100)
    bad(dead, 99)
    clock.step_wall(-3_600)
    with pytest.raises(TooManyBad):
        bad(dead, 1)


def test_stops_at_a_thousand_in_a_row_however_many_good_ones_came_before() -> None:
    clock = ManualClock()
    dead = letters(clock, max_in_a_row=1_000, max_share=0.9)
    dead.good(P, 1_000_000)
    bad(dead, 999)
    with pytest.raises(TooManyBad, match="1000 in a row"):
        bad(dead, 1)


def test_a_row_ends_with_a_good_one() -> None:
    dead = letters(max_in_a_row=10, max_share=1.0)
    bad(dead, 9)
    dead.good(P)
    bad(dead, 9)


def test_no_good_ones_do_not_end_a_row() -> None:
    dead = letters(max_in_a_row=10, max_share=1.0)
    bad(dead, 9)
    dead.good(P, 0)
    with pytest.raises(TooManyBad):
        bad(dead, 1)


def test_a_row_is_of_one_partition() -> None:
    dead = letters(max_in_a_row=10, max_share=1.0)
    bad(dead, 9, P)
    bad(dead, 9, Q)
    dead.forget(P)
    bad(dead, 9, P)


def test_only_the_beginning_of_a_very_long_message_is_kept() -> None:
    letter = dead_record(P, 0, b"x" * (MAX_PAYLOAD_BYTES + 1), "too long", 0)
    assert len(letter.payload) == MAX_PAYLOAD_BYTES
    assert str(MAX_PAYLOAD_BYTES + 1) in letter.reason
    assert len(dead_record(P, 0, b"", "y" * 10_000, 0).reason) == 1_000
