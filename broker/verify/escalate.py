"""Buying until an answer passes: the next better bid, within deadline, cap, budget and patience."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Final, Literal

import msgspec
from msgspec import Struct

from bidding.decision import Bid
from bidding.errors import MarketError
from bidding.outcome import FailureClass
from bidding.request import Sla, Verify
from bidding.units import NUSD_PER_USD
from broker.delivery import Delivery
from broker.dispatch import Dispatcher
from broker.order import Order
from broker.outcomes import TRUST, VERDICT_ID, bought_under, model_of
from broker.verify.judge import PASSED, UNKNOWN, Judge, check_weight
from broker.wire.neutral import Answer
from feeds.clock import Clock
from feeds.records import AttemptRecord, DecisionRecord, FeedbackRecord, VerdictRecord

_SELECTED: Final = 0.25

Word = Literal["passed", "failed", "unknown"]
Afford = Callable[[Order], Awaitable[bool]]
"""Whether the money for another answer can be set aside."""


class Checked(Struct, kw_only=True):
    """What is returned, and how its check ended; `why` is the check that failed."""

    delivery: Delivery
    answer: Answer
    word: Word
    why: str
    n_answers: int

    @property
    def header(self) -> str:
        """The value of `x-broker-verify`."""
        why = f"; check={self.why}" if self.why else ""
        return f"{self.word}{why}; answers={self.n_answers}"


async def checked_answer(
    dispatcher: Dispatcher,
    judge: Judge,
    order: Order,
    sla: Sla,
    verify: Verify,
    verdicts: list[VerdictRecord],
    *,
    afford: Afford,
    clock: Clock,
) -> Checked:
    """Buy, check, and buy better until an answer passes.

    Parameters
    ----------
    sla : the request's, with the deadline and the cap that more answers must keep to
    verdicts : filled, whatever happens

    Raises
    ------
    MarketError
        Nobody gave a first answer.
    """
    current: Order | None = order
    last: Checked | None = None
    while current is not None:
        try:
            delivery = await dispatcher.run(current)
        except MarketError:
            if last is None:
                raise
            break
        answer = delivery.answer or Answer(choices=())
        attempt = _attempt_of(order, delivery.seat.offer.id)
        begun_ns = clock.monotonic_ns()
        ruling = await judge.rule(
            verify,
            order.request,
            answer,
            {
                "decision_id": order.decision_id,
                "task": order.task,
                "offer": delivery.seat.offer.id,
                "model": delivery.seat.offer.model,
                "user": order.request.user,
                "metadata": order.request.metadata,
            },
        )
        verdicts.append(
            VerdictRecord(
                attempt.n,
                attempt.offer,
                attempt.model,
                ruling.check,
                ruling.score,
                (clock.monotonic_ns() - begun_ns) * 1e-6,
                attempt.cost_nusd,
            )
        )
        passed = ruling.check in (PASSED, UNKNOWN)
        word: Word = "passed" if ruling.check == PASSED else "unknown" if passed else "failed"
        if last is not None:
            order.rejected.append(_attempt_of(order, last.delivery.seat.offer.id).attempt_id)
        last = Checked(
            delivery=delivery,
            answer=answer,
            word=word,
            why="" if passed else ruling.check,
            n_answers=len(verdicts),
        )
        if passed or len(verdicts) >= verify.most_answers:
            break
        current = escalated(order, sla, verdicts, dispatcher, clock)
        if current is not None and not await afford(current):
            break
    assert last is not None
    if last.word == "failed" and verify.on_fail == "reject":
        order.rejected.append(_attempt_of(order, last.delivery.seat.offer.id).attempt_id)
    return last


def escalated(
    order: Order,
    sla: Sla,
    verdicts: list[VerdictRecord],
    dispatcher: Dispatcher,
    clock: Clock,
) -> Order | None:
    """The order for another answer; None where nobody is left who could help in time and money.

    First those believed better than what failed, in the order of their bids; then whoever else
    has another model. The same model elsewhere would say the same.
    """
    ids = {attempt.offer for attempt in order.attempts}
    models = {verdict.model for verdict in verdicts}
    decision = order.decision
    bids = [*decision.ranked, *([] if decision.best is None else [decision.best])]
    left_nusd = _left_nusd(order, sla)
    now_ns = clock.monotonic_ns()
    known = {bid.offer: bid.p_good for bid in bids}
    failed = max((known.get(v.offer, 0.0) for v in verdicts), default=0.0)
    others: dict[str, Bid] = {}
    for bid in bids:
        fresh = bid.offer not in ids and model_of(bid.offer) not in models
        if fresh and bid.cost_nusd <= left_nusd and _in_time(order, sla, bid, dispatcher, now_ns):
            others.setdefault(bid.offer, bid)
    better = [bid for bid in others.values() if bid.p_good > failed]
    ranked = (*better, *(bid for bid in others.values() if bid not in better))
    if not ranked:
        return None
    return msgspec.structs.replace(
        order,
        decision=msgspec.structs.replace(decision, ranked=ranked),
        ttft_target_ns=None,
        latency_target_ns=None if sla.latency_ms is None else order.latency_target_ns,
        hedge=False,
    )


def _left_nusd(order: Order, sla: Sla) -> float:
    if sla.max_cost_usd is None:
        return float("inf")
    return sla.max_cost_usd * NUSD_PER_USD - sum(a.cost_nusd for a in order.attempts)


def _in_time(order: Order, sla: Sla, bid: Bid, dispatcher: Dispatcher, now_ns: int) -> bool:
    """Whether an answer may be expected before the app's deadline (its first token's is past)."""
    limit_ns = order.deadline_ns
    if sla.latency_ms is not None and order.latency_target_ns is not None:
        limit_ns = min(limit_ns, order.latency_target_ns)
    forecast = dispatcher.forecast(bid.offer)
    usual_ms = 0.0 if forecast is None else forecast.finish_ms(0.5, order.output_tokens)
    return now_ns + usual_ms * 1e6 < limit_ns


def _attempt_of(order: Order, offer: str) -> AttemptRecord:
    """The last whole answer of an offer."""
    whole = [a for a in order.attempts if a.offer == offer and a.failure is FailureClass.OK]
    return whole[-1]


def scores_of(record: DecisionRecord, verify: Verify, at_us: int) -> list[FeedbackRecord]:
    """Verdicts as quality scores, of the weight of their checks. An answer bought because another
    had failed is one to a harder prompt than usual, so its score weighs less. Only the answer that
    was returned tells what its class is delivered (`p_good`): one that was caught and bought again
    is no shortfall.
    """
    found = []
    known = {bid.offer: bid.p_good for bid in record.ranked}
    for i, verdict in enumerate(record.verdicts):
        if verdict.check == UNKNOWN:
            continue
        weight = TRUST["verifier"] * check_weight(verify) * (_SELECTED if i else 1.0)
        delivered = verdict.offer == record.delivered_offer
        found.append(
            FeedbackRecord(
                feedback_id=f"{VERDICT_ID}{secrets.token_hex(12)}",
                decision_id=record.decision_id,
                at_us=at_us,
                task=record.task,
                tenant=record.tenant,
                sla_class=record.sla_class,
                offer=verdict.offer,
                model=verdict.model,
                quality=verdict.score,
                source="verifier",
                features=record.features,
                p_good=known.get(verdict.offer, record.p_good) if delivered else None,
                propensity=record.propensity if verdict.offer == record.winner else None,
                weight=weight,
                params_version=bought_under(record, verdict.offer),
            )
        )
    return found
