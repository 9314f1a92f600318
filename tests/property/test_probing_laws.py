"""An offer whose circuit is half open is tried by a share of requests, and by nobody it may not."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import msgspec
import numpy as np
import pytest

from bidding.auction import decide
from bidding.book import MarketBook
from bidding.kernel import compiled
from bidding.odds import odds_of
from bidding.outcome import FailureClass, Outcome
from bidding.params import Params
from bidding.quote import Position
from bidding.quoting import Quoter
from bidding.request import BidRequest, Sla
from bidding.view import MarketView, Memo
from tests.fakes.markets import catalogue, quote, skill

PARAMS = Params().patched({"exploration": {"probe_share": 0.4}}, version=1)
REQUEST = BidRequest(tenant="t", task="math", sla=Sla(ttft_ms=2_000), input_tokens=300)
N_DRAWS = 2_000


def _view(*half_open: str, fails: float = 0.6) -> MarketView:
    """Twelve equal offers; those that are half open have failed of late."""
    book = MarketBook(catalogue())
    offers = book.offers.offer_ids
    for offer in offers:
        made = quote(offer, ttft_ms=200.0)
        share = fails if offer in half_open else 0.01
        book.apply_quote(msgspec.structs.replace(made, fail_share=share))
    book.apply_skill(skill([0.87, 0.87, 0.87, 0.87], sd=0.01))
    return book.view(1, half_open=np.array([o in half_open for o in offers]))


def _best(view: MarketView) -> str:
    winner = decide(view, REQUEST, PARAMS, 1).winner
    assert winner is not None
    return winner.offer


def test_a_share_of_requests_tries_who_would_win_were_it_well() -> None:
    well = _best(_view())
    view = _view(well)
    assert _best(_view("nobody/nothing")) == well
    won: Counter[str] = Counter()
    told: dict[str, float] = {}
    for seed in range(N_DRAWS):
        decision = decide(view, REQUEST, PARAMS, seed)
        assert decision.winner is not None
        assert decision.propensity is not None
        won[decision.winner.offer] += 1
        told[decision.winner.offer] = decision.propensity
        assert len({b.offer for b in decision.ranked}) == len(decision.ranked)
    assert told[well] == pytest.approx(0.4)
    assert sum(told.values()) == pytest.approx(1.0)
    assert abs(won[well] / N_DRAWS - 0.4) < 4.5 * np.sqrt(0.24 / N_DRAWS)
    law = odds_of(view, REQUEST, PARAMS)
    assert {o: pytest.approx(law.of(o)) for o in told} == told


def test_nobody_tries_who_would_not_win_anyway() -> None:
    view = _view()
    last = max(
        view.offers.offer_ids,
        key=lambda o: view.prices.output_nusd[view.offers.row_of[o]],
    )
    half_open = _view(last, fails=0.01)
    made = [decide(half_open, REQUEST, PARAMS, seed).winner for seed in range(300)]
    assert last not in {w.offer for w in made if w is not None}


def test_the_strict_and_the_sessions_are_no_probes() -> None:
    well = _best(_view())
    view = _view(well)
    strict = msgspec.structs.replace(REQUEST, sla=Sla(ttft_ms=2_000, quality=0.5, strict=True))
    other = next(o for o in view.offers.offer_ids if o != well)
    session = msgspec.structs.replace(REQUEST, incumbent=other, incumbent_cached_tokens=200)
    for request in (strict, session):
        made = [decide(view, request, PARAMS, seed) for seed in range(100)]
        assert {d.propensity for d in made} == {1.0}


def test_the_kernel_probes_alike() -> None:
    pytest.importorskip("numba", reason="the extra [kernel] is not installed")
    kernel = compiled()
    assert kernel is not None
    plain = _view(_best(_view()))
    fast = dataclasses.replace(plain, kernel=kernel, memo=Memo())
    for seed in range(300):
        assert decide(plain, REQUEST, PARAMS, seed) == decide(fast, REQUEST, PARAMS, seed)


def test_a_request_in_a_hurry_does_not_try_who_is_slow() -> None:
    well = _best(_view())
    book = MarketBook(catalogue())
    offers = book.offers.offer_ids
    for offer in offers:
        ms = 4_000.0 if offer == well else 200.0
        made = quote(offer, ttft_ms=ms)
        share = 0.6 if offer == well else 0.01
        book.apply_quote(msgspec.structs.replace(made, fail_share=share))
    book.apply_skill(skill([0.87, 0.87, 0.87, 0.87], sd=0.01))
    view = book.view(1, half_open=np.array([o == well for o in offers]))

    def tried(sla: Sla) -> int:
        request = msgspec.structs.replace(REQUEST, sla=sla)
        made = [decide(view, request, PARAMS, seed).winner for seed in range(100)]
        return sum(w is not None and w.offer == well for w in made)

    assert tried(REQUEST.sla) == 0
    assert tried(Sla()) > 20


def test_who_stalled_is_tried_as_soon_as_its_circuit_has_closed() -> None:
    """Streams that stopped say that it failed, not that it would be late were it well."""
    well = _best(_view())
    rng = np.random.default_rng(1)
    quoter = Quoter(PARAMS)
    ends: list[Outcome] = []
    for i in range(60):
        ttft_ms = 200.0 * float(np.exp(0.3 * rng.normal()))
        took_ms = ttft_ms + 199 * 4.0 * float(np.exp(0.15 * rng.normal()))
        ends.append(_ended(well, i / 30, ttft_ms=ttft_ms, total_ms=took_ms, output_tokens=200))
    for i in range(12):
        at_s = 3.0 + i / 30
        ends.append(_ended(well, at_s, FailureClass.TIMEOUT_GAP, ttft_ms=200.0, waited_ms=1_200.0))
    for i in range(2):
        at_s = 5.0 + i
        ends.append(_ended(well, at_s, ttft_ms=150.0, total_ms=180.0, output_tokens=8))
    quoter.fold(ends, [Position("l", "t", 0, n) for n in range(len(ends))])
    (quoted,) = quoter.quotes(ends[-1].at_us)
    assert quoted.fail_share > 0.1

    book = MarketBook(catalogue())
    offers = book.offers.offer_ids
    for offer in offers:
        made = quote(offer, ttft_ms=300.0)
        book.apply_quote(
            made if offer != well else msgspec.structs.replace(quoted, health="closed")
        )
    book.apply_skill(skill([0.87, 0.87, 0.87, 0.87], sd=0.01))
    view = book.view(1, half_open=np.array([o == well for o in offers]))
    request = msgspec.structs.replace(REQUEST, sla=Sla(latency_ms=2_500.0, percentile=0.95))
    made_by = [decide(view, request, PARAMS, seed).winner for seed in range(100)]
    assert sum(w is not None and w.offer == well for w in made_by) > 20


def _ended(
    offer: str, at_s: float, failure: FailureClass = FailureClass.OK, **more: Any
) -> Outcome:
    """A call that ended so; three tokens long where nothing is said."""
    told = {"input_tokens": 300, "output_tokens": 3, **more}
    return Outcome(
        offer=offer, at_us=round((1_713_268_800.0 + at_s) * 1e6), failure=failure, **told
    )
