"""The compiled kernel decides as the array path does, bit for bit; so does a warmed view."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import msgspec
import numpy as np
import pytest

from bidding.auction import decide
from bidding.decision import Decision
from bidding.kernel import Kernel, compiled
from bidding.params import Params
from bidding.request import BidRequest
from bidding.view import MarketView, Memo, ShadowPrices
from bidding.warming import LATELY_US, Warmer
from tests.bench.market import Market, requests

N_VIEWS = 12
PER_VIEW = 60
PARAMS = Params().patched({"exploration": {"share": 0.2, "burn_in_share": 0.2}}, version=1)


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    pytest.importorskip("numba", reason="the extra [kernel] is not installed")
    found = compiled()
    assert found is not None, "numba is here, and its numbers are not those of the array path"
    return found


def _asked(rng: np.random.Generator, offers: tuple[str, ...], n: int) -> list[BidRequest]:
    """The benches' requests, with what else a request may hold: sessions, ceilings, short money."""
    plain = requests(n, seed=int(rng.integers(2**31)))
    featured = requests(n, with_features=True, seed=int(rng.integers(2**31)))
    made = []
    for request in (f if rng.random() < 0.5 else p for f, p in zip(featured, plain, strict=True)):
        more: dict[str, Any] = {}
        if rng.random() < 0.4:
            more["incumbent"] = str(rng.choice(offers)) if rng.random() < 0.9 else "gone/gone"
            more["incumbent_cached_tokens"] = int(rng.integers(-5, 4_000))
            more["incumbent_blocks"] = int(rng.integers(-1, 6))
        if rng.random() < 0.4:
            more["reserve_nusd"] = float(rng.choice([0.0, 1e4, 1e5, 1e6, 1e7, math.nan]))
        if rng.random() < 0.2:
            more["money_price"] = float(rng.exponential(1.0))
        if rng.random() < 0.1:
            more["candidates"] = tuple(map(str, rng.choice(offers, 3)))
        if rng.random() < 0.05:
            more["features"] = (math.nan,) * len(request.features)
        if rng.random() < 0.1:
            more["input_tokens"] = int(rng.choice([0, 1, 150_000]))
        made.append(msgspec.structs.replace(request, **more))
    return made


def _view(rng: np.random.Generator, market: Market) -> MarketView:
    n = len(market.book.offers)
    shadow = None
    if rng.random() < 0.5:
        scarce = rng.random(n) < 0.3
        shadow = ShadowPrices(scarce * rng.exponential(1e5, n), scarce * rng.exponential(50.0, n))
    return market.book.view(
        1, circuit_open=rng.random(n) < 0.1, n_inflight=np.floor(rng.random(n) * 4), shadow=shadow
    )


def _same(a: Decision, b: Decision) -> bool:
    """Equal, and floats to the last bit: JSON has the shortest digits that tell two apart."""
    return a == b and msgspec.json.encode(a) == msgspec.json.encode(b)


@pytest.mark.parametrize(("n_offers", "seed"), [(20, 0), (100, 1), (100, 2)])
def test_the_kernel_decides_as_the_array_path_bit_for_bit(
    kernel: Kernel, n_offers: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    market = Market(n_offers, seed)
    winners, kinds = set(), set()
    for _ in range(N_VIEWS):
        market.tick(n_quotes=8)
        view = _view(rng, market)
        twin = dataclasses.replace(view, kernel=kernel, memo=Memo())
        for request in _asked(rng, market.book.offers.offer_ids, PER_VIEW):
            draw = int(rng.integers(2**63))
            plain = decide(view, request, PARAMS, draw)
            quick = decide(twin, request, PARAMS, draw)
            assert _same(plain, quick), request
            winners.add(plain.winner and plain.winner.offer)
            kinds.add((plain.switch is None, "above_reserve" in plain.no_bids, plain.feasible))
    assert len(winners) > 2  # the markets are not all alike, nor are the requests
    assert len(kinds) > 4


def test_a_warmed_view_decides_as_a_cold_one() -> None:
    rng = np.random.default_rng(3)
    market = Market(60, 3)
    warmer = Warmer()
    hits = 0
    for _ in range(6):
        market.tick(n_quotes=8)
        view = _view(rng, market)
        cold = dataclasses.replace(view, memo=Memo())
        warmer.warm(view, PARAMS)
        made = set(view.memo.warmed)
        for request in _asked(rng, market.book.offers.offer_ids, 40):
            draw = int(rng.integers(2**63))
            assert _same(decide(view, request, PARAMS, draw), decide(cold, request, PARAMS, draw))
        hits += len(made & set(view.memo.slates))
        warmer.note(view, view.at_us)
    assert hits > 10


def test_warming_is_bounded_in_kinds_and_in_time() -> None:
    market = Market(20, 4)
    warmer = Warmer(max_kinds=5)
    view = market.book.view(10_000_000)
    for request in requests(200):
        decide(view, request, PARAMS, 1)
    assert len(view.memo.slates) > 5
    warmer.note(view, 10_000_000)
    assert len(warmer) == 5
    soon = market.book.view(10_000_000 + LATELY_US)
    warmer.warm(soon, PARAMS)
    assert list(soon.memo.warmed) == list(view.memo.slates)[-5:]
    late = market.book.view(10_000_001 + LATELY_US)
    warmer.warm(late, PARAMS)
    assert not late.memo.warmed
    assert not len(warmer)


def test_classes_of_a_trial_have_slates_of_their_own_and_are_not_warmed() -> None:
    market = Market(20, 5)
    view = market.book.view(1)
    request = requests(1)[0]
    decide(view, request, PARAMS, 1)
    decide(view, msgspec.structs.replace(request, arm="v2"), PARAMS, 1)
    assert len(view.memo.slates) == 2
    warmer = Warmer()
    warmer.note(view, 1)
    assert len(warmer) == 1
