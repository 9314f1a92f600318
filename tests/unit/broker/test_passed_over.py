"""Whose place a silent offer is kept from: never the last of its model that may be sent a call."""

from __future__ import annotations

import numpy as np

from bidding.columns import offer_columns
from bidding.estimators.circuit import CircuitParams
from bidding.outcome import FailureClass
from broker.overlay import Overlay
from tests.fakes.markets import catalogue

CATALOGUE = catalogue(n_models=2, n_providers=3)
OFFERS = offer_columns(CATALOGUE)
OF_A_MODEL = [OFFERS.offer_ids[row] for row in np.flatnonzero(OFFERS.model == 0)]
FAILS = CircuitParams().open_after


def overlay() -> Overlay:
    return Overlay(OFFERS, CATALOGUE, CircuitParams())


def blocked(over: Overlay, now_s: float = 100.0) -> set[str]:
    return {OFFERS.offer_ids[row] for row in np.flatnonzero(over.circuit_open(now_s))}


def fail(over: Overlay, offer: str, n: int) -> None:
    for _ in range(n):
        over.sent(offer, 10.0, 99.9)
        over.ended(offer, FailureClass.TIMEOUT_GAP, 100.0, sent_at_s=99.9, retry_after_s=None)


def test_silent_offers_are_passed_over_while_another_sells_their_model() -> None:
    over = overlay()
    first, second, *_ = OF_A_MODEL
    assert over.silent_now(frozenset({first})) == [first]
    assert blocked(over) == {first}
    assert over.silent_now(frozenset({first, second})) == [second]
    assert blocked(over) == {first, second}
    assert over.silent_now(frozenset()) == []
    assert blocked(over) == set()


def test_where_all_are_silent_or_broken_the_silent_may_be_asked() -> None:
    over = overlay()
    over.silent_now(frozenset(OF_A_MODEL))
    assert blocked(over) == set()
    over = overlay()
    first, *others = OF_A_MODEL
    for offer in others:
        fail(over, offer, FAILS)
    over.silent_now(frozenset({first}))
    assert blocked(over) == set(others)


def test_the_first_that_fails_after_silence_opens_the_circuit() -> None:
    over = overlay()
    first, second, *_ = OF_A_MODEL
    over.silent_now(frozenset({first}))
    over.silent_now(frozenset())
    fail(over, first, 1)
    fail(over, second, 1)
    assert blocked(over) == {first}
