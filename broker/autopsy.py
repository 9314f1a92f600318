"""A decision as people read it: who could bid, who was turned away, what was tried and came.

Pure: from a flight to values. Money in dollars, times in milliseconds from the request's start.
"""

from __future__ import annotations

from typing import Any

import msgspec

from bidding.outcome import FailureClass
from bidding.units import usd_from_nusd
from broker.recent import Flight
from feeds.records import AttemptRecord, BidRecord, DecisionRecord


def autopsy(flight: Flight) -> dict[str, Any]:
    """The whole story of one decision."""
    decision = flight.decision
    return {
        "decision_id": decision.decision_id,
        "at_us": decision.at_us,
        "asked": {
            "task": decision.task,
            "sla": msgspec.json.decode(decision.sla),
            "sla_class": decision.sla_class,
            "input_tokens": decision.input_tokens,
            "max_output_tokens": decision.max_output_tokens,
            "candidates": decision.candidates,
            "streaming": decision.streaming,
        },
        "decided": {
            "winner": decision.winner,
            "ranked": [_bid(bid) for bid in decision.ranked],
            "n_bids": decision.n_bids,
            "no_bids": decision.no_bids,
            "clearing_price_usd": _usd(decision.clearing_price_nusd),
            "quality_price_usd": _usd(decision.quality_price_nusd),
            "punctuality_price_usd": _usd(decision.punctuality_price_nusd),
            "propensity": decision.propensity,
            "feasible": decision.feasible,
            "policy": decision.policy,
            "params_version": decision.params_version,
            "view": decision.view_number,
            "seed": decision.seed,
        },
        "attempts": [_attempt(attempt) for attempt in flight.attempts],
        "delivered": {
            "offer": decision.delivered_offer,
            "failure": decision.failure,
            "ttft_ms": decision.ttft_ms,
            "total_ms": decision.total_ms,
            "on_time": decision.on_time,
            "output_tokens": decision.output_tokens,
            "cost_usd": usd_from_nusd(decision.cost_nusd),
            "overhead_us": decision.overhead_us,
        },
        "feedback": [
            {"quality": f.quality, "source": f.source, "at_us": f.at_us} for f in flight.feedback
        ],
        "why": why(decision, flight.attempts),
    }


def why(decision: DecisionRecord, attempts: list[AttemptRecord]) -> list[str]:
    """The decision in sentences."""
    lines: list[str] = []
    turned_away = ", ".join(f"{n} for {reason}" for reason, n in decision.no_bids.items())
    n_away = sum(decision.no_bids.values())
    lines.append(
        f"{decision.n_bids} offers bid and {n_away} were turned away"
        + (f" ({turned_away})." if turned_away else ".")
    )
    if decision.ranked:
        best = decision.ranked[0]
        lines.append(
            f"{best.offer} won: expected cost ${usd_from_nusd(best.cost_nusd):.6f}, "
            f"P(good) {best.p_good:.3f}, P(on time) {best.p_on_time:.3f}, with a good answer "
            f"priced at ${usd_from_nusd(decision.quality_price_nusd):.6f} and a punctual one at "
            f"${usd_from_nusd(decision.punctuality_price_nusd):.6f}."
        )
    if len(decision.ranked) > 1 and decision.clearing_price_nusd is not None:
        second = decision.ranked[1]
        lines.append(
            f"{second.offer} came second; the winner could have charged "
            f"${usd_from_nusd(decision.clearing_price_nusd):.6f} and still won."
        )
    for attempt in attempts:
        if attempt.failure is FailureClass.OK:
            lines.append(f"{attempt.offer} delivered in {attempt.total_ms or 0.0:.0f} ms.")
        else:
            detail = f" ({attempt.reason})" if attempt.reason else ""
            lines.append(f"{attempt.offer} failed: {attempt.failure}{detail}.")
    return lines


def _bid(bid: BidRecord) -> dict[str, Any]:
    return {
        "offer": bid.offer,
        "score_usd": usd_from_nusd(bid.score_nusd),
        "cost_usd": usd_from_nusd(bid.cost_nusd),
        "p_good": bid.p_good,
        "p_on_time": bid.p_on_time,
    }


def _attempt(attempt: AttemptRecord) -> dict[str, Any]:
    return {
        "attempt_id": attempt.attempt_id,
        "n": attempt.n,
        "offer": attempt.offer,
        "failure": attempt.failure,
        "reason": attempt.reason,
        "http_status": attempt.http_status,
        "started_at_us": attempt.started_at_us,
        "ttft_ms": attempt.ttft_ms,
        "total_ms": attempt.total_ms,
        "input_tokens": attempt.input_tokens,
        "output_tokens": attempt.output_tokens,
        "usage_estimated": attempt.usage_estimated,
        "cost_usd": usd_from_nusd(attempt.cost_nusd),
        "hedge": attempt.hedge,
    }


def _usd(nusd: float | None) -> float | None:
    return None if nusd is None else usd_from_nusd(nusd)
