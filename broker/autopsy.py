"""A decision as people read it: who could bid, who was turned away, what was tried and came.

Pure: from a flight to values. Money in dollars, times in milliseconds from the request's start.
"""

from __future__ import annotations

from typing import Any

import msgspec

from bidding.outcome import FailureClass
from bidding.units import usd_from_nusd
from broker import handoff
from broker.recent import Flight
from feeds.flight import budget_in, switch_in
from feeds.records import AttemptRecord, BidRecord, DecisionRecord, HandoffRecord, VerdictRecord

_OF_THE_REQUEST = frozenset(
    {FailureClass.BAD_REQUEST, FailureClass.REFUSED, FailureClass.CONTEXT_TOO_LONG}
)


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
            "trimmed_messages": decision.trimmed_messages,
            "trimmed_tokens": decision.trimmed_tokens,
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
            "money_price": decision.money_price,
            "budget": _budget(decision),
            "arm": decision.arm,
            "shadow": _shadow(decision),
        },
        "attempts": [_attempt(attempt) for attempt in flight.attempts],
        "timeline": timeline(decision, flight.attempts),
        "handed_over_from": decision.incumbent if decision.handoff else None,
        "session": _session(decision),
        "cached_from": decision.cached_from or None,
        "blame": blame(flight),
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
        "checks": [_verdict(v, decision) for v in decision.verdicts],
        "feedback": [
            {"quality": f.quality, "source": f.source, "at_us": f.at_us} for f in flight.feedback
        ],
        "why": [*why(decision, flight.attempts), blame_line(flight)],
    }


def timeline(decision: DecisionRecord, attempts: list[AttemptRecord]) -> list[dict[str, Any]]:
    """What happened when, in milliseconds from the first call."""
    if not attempts:
        return []
    begun_us = min(a.started_at_us for a in attempts)
    events: list[dict[str, Any]] = []
    for attempt in attempts:
        at_ms = (attempt.started_at_us - begun_us) * 1e-3
        events.append({"at_ms": at_ms, "event": "called", "offer": attempt.offer, "n": attempt.n})
        if attempt.ttft_ms is not None:
            events.append(
                {"at_ms": at_ms + attempt.ttft_ms, "event": "first token", "offer": attempt.offer}
            )
        events.append(
            {
                "at_ms": (attempt.at_us - begun_us) * 1e-3,
                "event": "ended",
                "offer": attempt.offer,
                "failure": attempt.failure,
            }
        )
    if decision.handoff:
        target = decision.delivered_offer or decision.winner
        events.append(
            {"at_ms": 0.0, "event": "handed over", "offer": target}
            | {"from": decision.incumbent, "why": decision.handoff}
        )
    return sorted(events, key=lambda e: e["at_ms"])


def blame(flight: Flight) -> str | None:
    """Who is to blame for what went wrong; None where nothing did.

    `budget`: it did not pay for the request. `request`: nobody may or can do what was asked.
    `provider`: the seller did not do what it was rightly believed to do. `deadline`: no bid was
    believed to meet it. `choice`: another bid was the better one by what we believed ourselves.
    """
    decision = flight.decision
    if decision.winner is None:
        gone = {"circuit_open", "quota"}
        return "provider" if set(decision.no_bids) <= gone else "request"
    if decision.only and not flight.attempts:
        return None
    budget = budget_in(decision)
    if budget is not None and not budget.set_aside_nusd:
        return "budget"
    if decision.failure is not None and decision.failure is not FailureClass.OK:
        ends = {a.failure for a in flight.attempts}
        return "request" if ends and ends <= _OF_THE_REQUEST else "provider"
    if decision.on_time is False:
        return _blame_for_lateness(decision, flight.attempts)
    scores = [f.quality for f in flight.feedback]
    if scores and sum(scores) / len(scores) < 0.5:
        best = max((bid.p_good for bid in decision.ranked), default=0.0)
        believed = decision.p_good if decision.p_good is not None else best
        promised = decision.target_quality
        if promised is not None and believed < promised <= best:
            return "choice"
        return "provider"
    return None


def _blame_for_lateness(decision: DecisionRecord, attempts: list[AttemptRecord]) -> str:
    promised = decision.target_on_time or 0.0
    best = max((bid.p_on_time for bid in decision.ranked), default=0.0)
    if best < promised:
        return "deadline"
    if any(a.failure is not FailureClass.OK and not a.hedge for a in attempts):
        return "provider"
    return "choice" if decision.ranked[0].p_on_time < promised else "provider"


def blame_line(flight: Flight) -> str:
    """The blame as a sentence."""
    return {
        None: "Nothing went wrong that is known of.",
        "budget": "To blame is the budget: too little is left of it.",
        "request": "To blame is the request: no seller may or can do what it asks.",
        "provider": "To blame is the provider: it did not do what it was believed to do.",
        "deadline": "To blame is the deadline: no bid was believed likely enough to meet it.",
        "choice": "To blame is our choice: another bid was the better one by our own belief.",
    }[blame(flight)]


def why(decision: DecisionRecord, attempts: list[AttemptRecord]) -> list[str]:
    """The decision in sentences."""
    lines: list[str] = []
    if decision.cached_from:
        return [f"Served from the response cache: the answer of {decision.cached_from}."]
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
    if decision.trimmed_messages:
        lines.append(
            f"The conversation fitted no offer; its {decision.trimmed_messages} oldest messages "
            f"({decision.trimmed_tokens} tokens) were dropped, as the key allows."
        )
    lines += _budget_lines(decision)
    lines += handoff.in_words(decision)
    if decision.earlier_handoffs:
        steps = ", ".join(f"{h.step} ({h.why})" for h in decision.earlier_handoffs)
        lines.append(f"The session had been handed over before, at step {steps}.")
    for attempt in attempts:
        if attempt.failure is FailureClass.OK:
            lines.append(f"{attempt.offer} delivered in {attempt.total_ms or 0.0:.0f} ms.")
        else:
            detail = f" ({attempt.reason})" if attempt.reason else ""
            lines.append(f"{attempt.offer} failed: {attempt.failure}{detail}.")
        if attempt.unseen_nusd:
            lines.append(
                f"{attempt.offer} may have gone on after that, for some {attempt.unseen_tokens} "
                f"tokens and ${usd_from_nusd(attempt.unseen_nusd):.6f} that no bill here counts."
            )
    lines += map(_verdict_line, decision.verdicts)
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
        "unseen_tokens": attempt.unseen_tokens,
        "unseen_usd": usd_from_nusd(attempt.unseen_nusd),
        "hedge": attempt.hedge,
    }


def _session(decision: DecisionRecord) -> dict[str, Any] | None:
    """The request's place in its session, what leaving the incumbent cost, and its hand-offs."""
    if not decision.session:
        return None
    switch = switch_in(decision)
    told: dict[str, Any] | None = None
    if switch is not None:
        told = {
            "moved": switch.moved,
            "no_bid": switch.no_bid,
            "cost_usd": usd_from_nusd(switch.cost_nusd),
            "lost_cache_usd": usd_from_nusd(switch.lost_cache_nusd),
            "consistency_usd": usd_from_nusd(switch.consistency_nusd),
            "translation_usd": usd_from_nusd(switch.translation_nusd),
            "gain_usd": _usd(switch.gain_nusd),
            "rival": switch.rival,
            "rival_gain_usd": usd_from_nusd(switch.rival_gain_nusd),
            "rival_cost_usd": usd_from_nusd(switch.rival_cost_nusd),
        }
    made = handoff.handoff_of(decision)
    return {
        "session": decision.session,
        "step": decision.session_step,
        "incumbent": decision.incumbent,
        "cached_tokens": decision.incumbent_cached_tokens,
        "switch": told,
        "handoff": None if made is None else _handoff(made),
        "earlier_handoffs": [_handoff(h) for h in decision.earlier_handoffs],
    }


def _budget(decision: DecisionRecord) -> dict[str, Any] | None:
    """The tightest budget that the request was paid from."""
    budget = budget_in(decision)
    if budget is None:
        return None
    return {
        "name": budget.name or None,
        "period": budget.period,
        "usd": usd_from_nusd(budget.cap_nusd),
        "left_usd": usd_from_nusd(budget.left_nusd),
        "set_aside_usd": usd_from_nusd(budget.set_aside_nusd),
        "most_tokens": budget.most_tokens,
    }


def _budget_lines(decision: DecisionRecord) -> list[str]:
    budget = budget_in(decision)
    if budget is None:
        return []
    whose = f"The app's budget {budget.name!r}" if budget.name else "The key's budget"
    told = f"{whose} (${usd_from_nusd(budget.cap_nusd):.6f} for {budget.period})"
    left = f"${usd_from_nusd(budget.left_nusd):.6f}"
    if not budget.set_aside_nusd:
        return [f"{told} has {left} left, too little for this request: it was refused."]
    held = f", its answer held to {budget.most_tokens} tokens" if budget.most_tokens else ""
    set_aside = f"${usd_from_nusd(budget.set_aside_nusd):.6f}"
    lines = [f"{told} set {set_aside} aside for it{held}; {left} were left."]
    if decision.money_price > 0.0:
        lines.append(
            f"Money is short: a dollar counted as {1.0 + decision.money_price:.3g} dollars."
        )
    return lines


def _verdict(verdict: VerdictRecord, decision: DecisionRecord) -> dict[str, Any]:
    return {
        "n": verdict.n,
        "offer": verdict.offer,
        "check": verdict.check,
        "score": verdict.score,
        "took_ms": verdict.took_ms,
        "cost_usd": usd_from_nusd(verdict.cost_nusd),
        "returned": verdict.offer == decision.delivered_offer,
    }


def _verdict_line(verdict: VerdictRecord) -> str:
    cost = f"${usd_from_nusd(verdict.cost_nusd):.6f}"
    if verdict.check == "passed":
        return f"The answer of {verdict.offer} ({cost}) passed its check."
    if verdict.check == "unknown":
        return f"No verdict on the answer of {verdict.offer} ({cost}) could be had."
    return f"The answer of {verdict.offer} ({cost}) failed its check: {verdict.check}."


def _handoff(made: HandoffRecord) -> dict[str, Any]:
    return {
        "decision_id": made.decision_id,
        "step": made.step,
        "from": made.source,
        "to": made.target,
        "why": made.why,
        "cost_usd": usd_from_nusd(made.cost_nusd),
        "gain_usd": _usd(made.gain_nusd),
        "dropped_blocks": made.n_dropped,
    }


def _shadow(decision: DecisionRecord) -> dict[str, Any] | None:
    """What other params would have bought: those in the shadow, or of a canary those in force."""
    if not decision.shadow_version and decision.shadow_winner is None:
        return None
    return {
        "params_version": decision.shadow_version,
        "winner": decision.shadow_winner,
        "cost_usd": _usd(decision.shadow_cost_nusd),
        "p_good": decision.shadow_p_good,
        "p_on_time": decision.shadow_p_on_time,
    }


def _usd(nusd: float | None) -> float | None:
    return None if nusd is None else usd_from_nusd(nusd)
