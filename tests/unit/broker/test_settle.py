"""What is owed and whether it was on time."""

from __future__ import annotations

from typing import Any

import pytest

from bidding.outcome import FailureClass
from bidding.request import Sla
from broker.order import Order
from broker.settle import fill, is_on_time, settle
from feeds.records import AttemptRecord, BidRecord
from tests.fakes.dispatching import decision, request
from tests.fakes.facts import bought

MS = 1_000_000


def attempt(n: int, failure: FailureClass, **more: Any) -> AttemptRecord:
    return AttemptRecord(
        attempt_id=f"d-{n}",
        decision_id="d",
        n=n,
        offer=f"p{n}/m",
        provider=f"p{n}",
        model="m",
        task="chat",
        tenant="t",
        sla_class="c",
        source="gateway",
        at_us=1,
        started_at_us=1,
        failure=failure,
        **more,
    )


def order(*attempts: AttemptRecord, stream: bool = True, sla: Sla | None = None) -> Order:
    made = request(stream)
    made.sla = sla
    return Order(
        decision_id="d",
        decision=decision(["p1/m", "p2/m"]),
        request=made,
        tenant="t",
        task="chat",
        sla_class="c",
        started_ns=0,
        deadline_ns=10_000 * MS,
        input_tokens=10,
        attempts=list(attempts),
    )


def test_every_attempt_is_paid_for_and_times_run_from_the_start() -> None:
    done = order(
        attempt(1, FailureClass.TIMEOUT_TTFT, input_tokens=10, cost_nusd=10, usage_estimated=True),
        attempt(2, FailureClass.OK, input_tokens=12, output_tokens=5, cost_nusd=30, ttft_ms=20.0),
        sla=Sla(ttft_ms=100),
    )
    settled = settle(done, ended_ns=300 * MS, first_ns=150 * MS)
    assert settled.delivered_offer == "p2/m"
    assert (settled.cost_nusd, settled.input_tokens, settled.output_tokens) == (40, 22, 5)
    assert (settled.ttft_ms, settled.total_ms, settled.on_time) == (150.0, 300.0, False)
    assert settled.usage_estimated
    assert settled.sla_word == "missed"


def test_a_hedge_that_lost_after_the_winner_began_does_not_hide_the_winner() -> None:
    done = order(attempt(1, FailureClass.OK), attempt(2, FailureClass.HEDGE_LOST, hedge=True))
    assert settle(done, ended_ns=MS).delivered_offer == "p1/m"


def test_a_failed_request_was_not_on_time() -> None:
    done = order(attempt(1, FailureClass.SERVER_ERROR), sla=Sla(latency_ms=1000))
    settled = settle(done, ended_ns=MS)
    assert (settled.delivered_offer, settled.failure, settled.on_time) == (
        None,
        FailureClass.SERVER_ERROR,
        False,
    )
    assert settle(order(), ended_ns=MS).n_attempts == 0


@pytest.mark.parametrize(
    ("sla", "ttft_ms", "total_ms", "kept"),
    [
        (None, 1.0, 1.0, None),
        (Sla(quality=0.9), 1.0, 1.0, None),
        (Sla(ttft_ms=10), 10.0, 99.0, True),
        (Sla(ttft_ms=10), None, 99.0, False),
        (Sla(latency_ms=10), 1.0, 11.0, False),
        (Sla(ttft_ms=5, latency_ms=10), 4.0, 10.0, True),
    ],
)
def test_on_time(
    sla: Sla | None, ttft_ms: float | None, total_ms: float, kept: bool | None
) -> None:
    assert is_on_time(sla, ttft_ms, total_ms, ok=True) is kept


def test_the_flight_record_is_filled() -> None:
    bids = [BidRecord("p1/m", 1, 1, 0.9, 0.8), BidRecord("p2/m", 2, 2, 0.7, 0.6)]
    record = bought("p1/m", ranked=bids, n_bids=2)
    done = order(attempt(1, FailureClass.CONNECT), attempt(2, FailureClass.OK, cost_nusd=7))
    fill(record, settle(done, ended_ns=5 * MS, first_ns=2 * MS))
    assert (record.delivered_offer, record.n_attempts, record.cost_nusd) == ("p2/m", 2, 7)
    assert (record.p_good, record.p_on_time) == (0.7, 0.6)
    assert (record.ttft_ms, record.total_ms, record.failure) == (2.0, 5.0, FailureClass.OK)
