"""Worked auctions: market, request, params and seed in, decision out (tests/golden/auctions)."""

from __future__ import annotations

from typing import Any

import pytest

from bidding.decision import NoBid
from bidding.kernel import Kernel, compiled
from tests.fakes.golden_auctions import cases, decided

CASES = cases()


@pytest.fixture(scope="module")
def kernel() -> Kernel | None:
    return compiled()


@pytest.mark.parametrize("name", CASES)
def test_the_decision_is_the_one_written_down(name: str) -> None:
    case = CASES[name]
    assert decided(case) == case["decision"], case["why"]


@pytest.mark.parametrize("name", CASES)
def test_so_it_is_with_the_kernel(name: str, kernel: Kernel | None) -> None:
    if kernel is None:
        pytest.skip("the extra [kernel] is not installed")
    case: dict[str, Any] = CASES[name]
    assert decided(case, kernel) == case["decision"], case["why"]


def test_every_reason_to_turn_an_offer_away_has_a_case() -> None:
    told = {reason for case in CASES.values() for reason in case["decision"]["no_bids"]}
    unreachable = {NoBid.UNPRICED.value}  # a book knows a price of every offer it lists
    assert told == {reason.value for reason in NoBid} - unreachable
