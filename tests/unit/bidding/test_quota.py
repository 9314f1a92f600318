"""What a seller tells of a quota is of when the call was sent that it answers."""

from __future__ import annotations

import pytest

from bidding.quota import Told, Window


def told(left: float, reset_s: float, limit: float = 40.0) -> Told:
    return Told(limit=limit, left=left, reset_s=reset_s)


def test_calls_sent_before_the_answered_one_are_in_its_word_already() -> None:
    window = Window()
    for i in range(10):
        window.used(1.0, 1.0 + i * 0.01)
    window.told(told(30.0, 1.0), 1.09, 1.5)
    assert window.left(1.5) == 30.0


def test_calls_sent_since_are_taken_off() -> None:
    window = Window()
    for i in range(10):
        window.used(1.0, 1.0 + i * 0.01)
    window.told(told(36.0, 1.0), 1.03, 1.5)
    assert window.left(1.5) == 30.0


def test_a_late_word_of_the_last_window_says_nothing_of_this_one() -> None:
    window = Window()
    window.told(told(20.0, 1.5), 0.0, 0.01)
    assert window.left(1.6) == 40.0
    window.told(told(39.0, 1.5), 1.6, 1.61)
    window.told(told(0.0, 0.1), 1.4, 2.0)
    assert window.left(2.0) == 39.0
    assert not window.is_spent(2.0)


def test_a_late_word_does_not_make_the_window_longer() -> None:
    window = Window()
    window.told(told(0.0, 0.5), 10.0, 10.4)
    assert window.is_spent(10.45)
    assert not window.is_spent(10.51)


@pytest.mark.parametrize("delay_s", [0.0, 0.2, 0.5])
def test_a_quota_is_used_well_however_late_answers_come(delay_s: float) -> None:
    """40 a window of 1.5 s, asked twice that fast: most of each window is used, none overdrawn."""
    window, arrived, on_way = Window(), [0], []
    n_refused = n_sent = 0
    at_window = 0
    for tick in range(round(9.0 * 53.3)):
        now_s = tick / 53.3
        while on_way and on_way[0][0] <= now_s:
            _, sent_s, word = on_way.pop(0)
            window.told(word, sent_s, now_s)
        if int(now_s / 1.5) != at_window:
            at_window, arrived[0] = int(now_s / 1.5), 0
        if window.is_spent(now_s) or window.scarcity(now_s) > 0.5:
            continue
        window.used(1.0, now_s)
        n_sent += 1
        arrived[0] += 1
        n_refused += arrived[0] > 40
        left = told(max(40.0 - arrived[0], 0.0), 1.5 * (at_window + 1) - now_s)
        on_way.append((now_s + delay_s, now_s, left))
    assert n_refused <= 0.01 * n_sent
    assert n_sent >= 0.6 * 40 * 6
