"""From settled decisions on the log to what a canary's guard compares. Pure."""

from __future__ import annotations

from bidding.guard import Seen
from bidding.outcome import FailureClass
from bidding.trial import Trial, class_and_arm
from feeds.records import DecisionRecord

_NOT_OURS = {FailureClass.CANCELLED, FailureClass.BAD_REQUEST}
"""Ends that say nothing of what was bought."""


def seen_of(record: DecisionRecord, trial: Trial) -> Seen | None:
    """What the guard of `trial` compares of a decision; None where it says nothing of it:
    of another tenant or another trial, a hit of the cache, only decided, or given up by its app.
    """
    if record.only or record.cached_from or record.arm not in ("", trial.arm):
        return None
    if trial.tenant and record.tenant != trial.tenant:
        return None
    if record.winner is not None and record.failure in _NOT_OURS:
        return None
    best = record.ranked[0] if record.ranked else None
    compared = record.arm != "" and record.shadow_winner is not None
    return Seen(
        in_canary=record.arm != "",
        failed=record.failure is not FailureClass.OK,
        on_time=record.on_time,
        target_on_time=record.target_on_time,
        target_quality=record.target_quality,
        cost_usd=record.cost_nusd * 1e-9,
        sla_class=class_and_arm(record.sla_class)[0],
        p_good=None if best is None else best.p_good,
        expected_usd=None if best is None else best.cost_nusd * 1e-9,
        other_p_good=record.shadow_p_good if compared else None,
        other_usd=_usd(record.shadow_cost_nusd) if compared else None,
    )


def _usd(nusd: float | None) -> float | None:
    return None if nusd is None else nusd * 1e-9
