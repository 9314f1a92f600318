"""Records with everything filled in, varied by a number, for tests of what is kept of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from bidding.estimators.quality_skill import TaskSkill
from bidding.outcome import FAILURE_BY_CODE, FailureClass
from bidding.pacing import ClassPrices
from bidding.quote import Position, Quote
from bidding.skill import Skill
from feeds.batch import Batch
from feeds.codec import Record, encode
from feeds.kafka import Partition
from feeds.market_records import QuoteRecord, SkillRecord
from feeds.records import AttemptRecord, BidRecord, DecisionRecord, FeedbackRecord
from feeds.topics import Topic

# The engine's own clock says which rows have outlived their table, so "now" is the real one here.
TODAY = datetime.now(UTC).date()
MONDAY = TODAY - timedelta(days=63 + TODAY.weekday())
T0_US = (
    int(datetime(MONDAY.year, MONDAY.month, MONDAY.day, 13, 33, 20, tzinfo=UTC).timestamp()) * 10**6
)


def today() -> str:
    """The day batches are stored on."""
    return TODAY.isoformat()


OFFERS = ("p0/m0", "p0/m1", "p1/m0", "p1/m2@eu", "p2/m3")


def attempt(i: int, *, at_us: int | None = None) -> AttemptRecord:
    """The `i`-th attempt: every failure class comes up, times are sometimes missing."""
    offer = OFFERS[i % len(OFFERS)]
    failure = FAILURE_BY_CODE[i % len(FAILURE_BY_CODE)] if i % 3 == 0 else FailureClass.OK
    has_token = failure is FailureClass.OK or i % 2 == 0
    return AttemptRecord(
        gateway=f"gw{i % 2}",
        boot=f"b1-{i % 2}",
        seq=i // 2,
        attempt_id=f"a{i:08x}",
        decision_id=f"d{i // 2:08x}",
        n=1 + i % 2,
        offer=offer,
        provider=offer.split("/")[0],
        model=offer.split("/")[1].split("@")[0],
        task=("sum", "chat")[i % 2],
        tenant=f"t{i % 3}",
        sla_class=f"t{i % 3}/x",
        source="probe" if i % 11 == 0 else "pushed" if i % 13 == 5 else "gateway",
        at_us=T0_US + i * 700_001 if at_us is None else at_us,
        started_at_us=T0_US + i * 700_001 - 333_333,
        failure=failure,
        streaming=i % 2 == 0,
        ttft_ms=100.5 + i % 371 / 3 if has_token else None,
        total_ms=700.25 + i % 911 / 7 if failure is FailureClass.OK else None,
        waited_ms=None if has_token else 1_000.0,
        input_tokens=300 + i % 97,
        output_tokens=i % 211,
        cached_tokens=i % 13,
        usage_estimated=i % 7 == 0,
        cost_nusd=123_456 + i * 17,
        n_inflight=i % 5,
        http_status=200 if failure is FailureClass.OK else 500,
        retry_after_s=1.5 if failure is FailureClass.RATE_LIMITED else None,
        reason="" if failure is FailureClass.OK else f'because\n"{failure}" é \u2028',
        hedge=i % 29 == 0,
        trust=0.5 if i % 11 == 0 else 1.0,
        pusher="acme" if i % 11 and i % 13 == 5 else "",
        unseen_tokens=i % 31,
        unseen_nusd=i % 31 * 600,
    )


def decision(i: int) -> DecisionRecord:
    """The `i`-th decision; every tenth had nobody bidding."""
    nobody = i % 10 == 9
    winner = OFFERS[i % 3]
    bids = [
        BidRecord(
            OFFERS[(i + k) % 3], 1000.0 * (k + 1) + i, 900.5 + 100 * k + i, 0.9 - k / 10, 0.97
        )
        for k in range(3)
    ]
    return DecisionRecord(
        gateway=f"gw{i % 2}",
        boot=f"b1-{i % 2}",
        seq=i // 2,
        decision_id=f"d{i:08x}",
        at_us=T0_US + i * 1_400_001,
        task=("sum", "chat")[i % 2],
        tenant=f"t{i % 3}",
        sla_class=f"t{i % 3}/x",
        sla='{"quality":0.9}',
        input_tokens=300 + i,
        max_output_tokens=None if i % 2 else 512,
        needs=i % 4,
        candidates=["m0", "m1"] if i % 4 == 1 else None,
        features=[0.1 * i, -1.0 / (i + 1), 3.0],
        incumbent=OFFERS[0] if i % 5 == 0 else None,
        incumbent_cached_tokens=0,
        reserve_nusd=1e7 if i % 2 else None,
        streaming=i % 2 == 0,
        seed=(i * 0x9E3779B97F4A7C15) % (1 << 64),
        policy="priced",
        params_version=3,
        view_number=1000 + i,
        winner=None if nobody else winner,
        ranked=[] if nobody else bids,
        n_bids=0 if nobody else 3,
        no_bids={"region": 5, "circuit_open": i % 3},
        clearing_price_nusd=None if nobody else 1234.5,
        propensity=None if nobody else 0.75,
        feasible=i % 7 != 0,
        quality_price_nusd=1e6 + i,
        punctuality_price_nusd=2e5,
        best_offer=None if nobody else OFFERS[2],
        best_cost_nusd=None if nobody else 9_000.25 + i,
        cheapest_offer=None if nobody else OFFERS[1],
        cheapest_cost_nusd=None if nobody else 500.75,
        target_quality=0.9 if i % 3 else None,
        target_on_time=0.95 if i % 2 else None,
        only=i % 13 == 0,
        delivered_offer=None if nobody else winner,
        delivered_model=None if nobody else winner.split("/")[1],
        p_good=None if nobody else 0.6 + i % 40 / 100,
        p_on_time=None if nobody else 0.5 + i % 50 / 100,
        n_attempts=0 if nobody else 1 + i % 2,
        failure=None if nobody else (FailureClass.OK if i % 6 else FailureClass.TIMEOUT_TOTAL),
        ttft_ms=None if nobody else 111.25,
        total_ms=None if nobody else 800.5 + i,
        on_time=None if i % 2 == 0 else i % 8 != 1,
        input_tokens_billed=300 + i,
        output_tokens=50 + i,
        cost_nusd=777 * i,
        overhead_us=180.5,
    )


def bought(offer: str, **changes: Any) -> DecisionRecord:
    """A plain decision for `offer`: what a record must say, and `changes`."""
    told: dict[str, Any] = {
        "decision_id": "d",
        "at_us": T0_US,
        "task": "math",
        "tenant": "t",
        "sla_class": "c",
        "sla": "{}",
        "input_tokens": 10,
        "max_output_tokens": None,
        "needs": 0,
        "candidates": None,
        "features": [],
        "incumbent": None,
        "incumbent_cached_tokens": 0,
        "reserve_nusd": None,
        "streaming": False,
        "seed": 1,
        "policy": "broker",
        "params_version": 0,
        "view_number": 1,
        "winner": offer,
        "ranked": [],
        "n_bids": 1,
        "no_bids": {},
        "clearing_price_nusd": None,
        "propensity": 1.0,
        "feasible": True,
        "quality_price_nusd": 0.0,
        "punctuality_price_nusd": 0.0,
    }
    return DecisionRecord(**told | changes)


def feedback(i: int) -> FeedbackRecord:
    """The score of the `i`-th decision."""
    return FeedbackRecord(
        gateway="gw0",
        boot="b3",
        seq=i,
        feedback_id=f"f{i:08x}",
        decision_id=f"d{i:08x}",
        at_us=T0_US + i * 1_400_001 + 60_000_000,
        task=("sum", "chat")[i % 2],
        tenant=f"t{i % 3}",
        sla_class=f"t{i % 3}/x",
        offer=OFFERS[i % 3],
        model=OFFERS[i % 3].split("/")[1],
        quality=(1.0, 0.0, 0.25)[i % 3],
        source="verifier",
        features=[0.5, i / 3],
        p_good=None if i % 5 == 0 else 0.6 + i % 40 / 100,
        propensity=0.75,
        params_version=-1 if i % 10 == 9 else 3,
    )


def quote(i: int, offer: str = "p0/m0") -> QuoteRecord:
    """The `i`-th quote of an offer."""
    return QuoteRecord(
        gateway="estimator",
        at_us=T0_US + i * 100_000,
        quote=Quote(
            offer=offer,
            at_us=T0_US + i * 100_000,
            ttft_log_ms=5.0 + i / 100,
            ttft_log_sd=0.3,
            ttft_n=float(i),
            tpot_log_ms=2.5,
            tpot_log_sd=0.2,
            tpot_n=float(i),
            fail_share=0.01,
            fail_n=float(i),
            positions=[Position("L", "market.attempts", 0, i)],
            state={"latency": [1.0, i / 7]},
        ),
    )


def skill(task: str, *, at_us: int = T0_US) -> SkillRecord:
    """A task's skills, with one SLA class that was promised quality only."""
    return SkillRecord(
        task=task,
        at_us=at_us,
        positions=[Position("L", "market.decisions", 0, 1)],
        skill=Skill(
            task=task,
            at_us=at_us,
            quality=TaskSkill(
                task=task, at_us=at_us, models=[], theta=[], theta_sd=[], n_labels=[]
            ),
            models=[],
            out_log_tokens=[],
            out_log_sd=[],
            classes=[
                ClassPrices(
                    sla_class="t0/x",
                    quality_price_nusd=2e6,
                    punctuality_price_nusd=1e5,
                    target_quality=0.9,
                    delivered_quality=0.91,
                )
            ],
        ),
    )


def batch(
    topic: Topic,
    records: Sequence[Record],
    first: int,
    *,
    log: str = "L1",
    partition: int = 0,
    payloads: Sequence[bytes] | None = None,
) -> Batch:
    """`records` as the pipeline hands them over, at offsets from `first` on."""
    return Batch(
        log,
        Partition(topic.name, partition),
        first,
        first + len(records) - 1,
        T0_US,
        records=list(records),
        offsets=list(range(first, first + len(records))),
        payloads=[encode(r) for r in records] if payloads is None else list(payloads),
    )
