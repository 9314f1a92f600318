"""Requests are drawn to an offer that tries aside have closed: one at a time, at once."""

from __future__ import annotations

import numpy as np

from bidding.columns import offer_columns
from bidding.estimators.circuit import CircuitParams
from bidding.outcome import FailureClass
from broker.overlay import Overlay
from tests.fakes.markets import catalogue

CATALOGUE = catalogue(n_models=1, n_providers=3)
OFFERS = offer_columns(CATALOGUE)
OFFER = OFFERS.offer_ids[0]


def drawn(over: Overlay, now_s: float) -> set[str]:
    return {OFFERS.offer_ids[row] for row in np.flatnonzero(over.half_open(now_s))}


def end(over: Overlay, failure: FailureClass, now_s: float, sent_at_s: float) -> None:
    over.ended(OFFER, failure, now_s, sent_at_s=sent_at_s, retry_after_s=None)


def back_with_calls_hanging(n_hanging: int) -> Overlay:
    """`OFFER` stalled at 99 s, and two tries aside have closed it at 101 s."""
    over = Overlay(OFFERS, CATALOGUE, CircuitParams())
    over.aside[:] = True
    for _ in range(n_hanging):
        over.sent(OFFER, 10.0, 98.5)
    for _ in range(CircuitParams().open_after):
        over.sent(OFFER, 10.0, 99.0)
        end(over, FailureClass.TIMEOUT_GAP, 99.1, 99.0)
    for _ in range(CircuitParams().close_after):
        over.sent(OFFER, 1.0, 100.9)
        end(over, FailureClass.OK, 101.0, 100.9)
    return over


def test_calls_that_hang_since_its_bad_time_do_not_keep_it_out() -> None:
    over = back_with_calls_hanging(3)
    assert over.n_inflight[0] == 3
    assert drawn(over, 101.1) == {OFFER}


def test_one_at_a_time_until_that_one_has_ended() -> None:
    over = back_with_calls_hanging(3)
    over.sent(OFFER, 10.0, 101.2)
    assert drawn(over, 101.3) == set()
    end(over, FailureClass.TIMEOUT_GAP, 101.4, 98.5)  # one of those that hung
    assert drawn(over, 101.5) == set()
    end(over, FailureClass.OK, 101.6, 101.2)
    assert drawn(over, 101.7) == {OFFER}


def test_nothing_is_drawn_once_it_has_been_back_for_a_while() -> None:
    over = back_with_calls_hanging(0)
    assert drawn(over, 101.1) == {OFFER}
    assert drawn(over, 107.0) == set()
