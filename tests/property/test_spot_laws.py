"""Whatever workers claim, retry, hedge and settle at once, no ask sells more than its capacity."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from bidding.decision import Bid
from bidding.market import PriceList
from bidding.outcome import FailureClass
from broker.spot import SpotAsks
from broker.state_sqlite import SqliteState
from feeds.clock import ManualClock
from feeds.market_records import AskRecord
from feeds.records import AttemptRecord

NOW_US = 1_790_000_000_000_000
OFFER = "p/m"
PRICE = PriceList(input_nusd_per_mtok=1, output_nusd_per_mtok=1)

Call = tuple[int, bool, list[int]]
"""Most tokens of each call of a request; whether its ask won; what share (in %) each call used."""
CALLS = st.lists(
    st.tuples(
        st.integers(1, 400), st.booleans(), st.lists(st.integers(0, 100), min_size=1, max_size=3)
    ),
    min_size=1,
    max_size=12,
)


def record(capacity: int) -> AskRecord:
    return AskRecord(
        ask_id="ask_1",
        offer=OFFER,
        at_us=NOW_US,
        prices=PRICE,
        from_us=NOW_US - 1,
        until_us=NOW_US + 10**9,
        seller="s",
        key_id="k",
        signature="",
        signed="",
        capacity_tokens=capacity,
    )


def attempt(decision: str, n: int, tokens: int) -> AttemptRecord:
    return AttemptRecord(
        attempt_id=f"{decision}{n}",
        decision_id=decision,
        n=n,
        offer=OFFER,
        provider="p",
        model="m",
        task="t",
        tenant="t",
        sla_class="",
        source="gateway",
        at_us=NOW_US,
        started_at_us=NOW_US,
        failure=FailureClass.OK,
        input_tokens=tokens,
    )


async def sell(spot: SpotAsks, name: str, call: Call, bid: Bid) -> int:
    """One request at one worker; the tokens it bought at the ask."""
    most, won, used_shares = call
    if won and not await spot.claim(name, bid, most):
        return 0
    attempts = []
    for n, share in enumerate(used_shares):
        if await spot.secure(name, 0, most):
            attempts.append(attempt(name, n, most * share // 100))
        await asyncio.sleep(0)
    spot.settle(name, attempts)
    return sum(a.input_tokens for a in attempts)


async def sold(capacity: int, requests: list[Call]) -> tuple[int, tuple[int, int]]:
    clock = ManualClock(now_us=NOW_US)
    with tempfile.TemporaryDirectory() as folder:
        states = [SqliteState(Path(folder) / "s.sqlite") for _ in range(2)]
        workers = []
        for state in states:
            await state.start()
            worker = SpotAsks(1, state, clock, lambda _n: None, lambda: None)
            worker.heard(0, record(capacity))
            workers.append(worker)
        bid = Bid(offer=OFFER, row=0, score_nusd=0.0, cost_nusd=0.0, p_on_time=1.0, p_good=1.0)
        bought = await asyncio.gather(
            *(sell(workers[i % 2], f"d{i}", call, bid) for i, call in enumerate(requests))
        )
        for worker in workers:
            await worker.close()
        [level] = await states[0].spent(["ask_1"])
        for state in states:
            await state.close()
    return sum(bought), level


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 1_500), CALLS)
def test_no_more_is_sold_than_an_ask_has_and_what_was_sold_is_what_is_counted(
    capacity: int, requests: list[Call]
) -> None:
    bought, (spent, held) = asyncio.run(sold(capacity, requests))
    assert bought <= capacity
    assert spent == bought
    assert held == 0
