"""The report of a replay: one line a policy, as a struct, as JSON, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct, field

from analytics.replay.measures import Interval

JSON_FIELDS = (
    "usd_per_1k",
    "quality",
    "attained",
    "good_and_on_time",
    "usd_vs_hull",
    "gap_closed",
    "usd_at_95",
    "usd_at_98",
    "ece",
    "regret_usd",
    "recovery_requests",
    "on_time",
    "short_windows",
    "worst_short",
    "lost_attempts",
    "tries_aside",
    "reserve_binding_share",
    "quality_share",
    "cost_share",
    "cost_share_for_half_gap",
    "cost_share_for_80_gap",
    "gap_closed_log_cost",
    "gap_closed_unmixed",
)
"""Every figure a policy may have; one that does not apply is null."""


class PolicyReport(Struct, frozen=True, kw_only=True):
    """One policy's figures: name to mean with interval."""

    policy: str
    figures: dict[str, Interval]


class ReplayReport(Struct, frozen=True, kw_only=True):
    """What a replay found.

    Attributes
    ----------
    best_fixed_quality, ceiling : of the best fixed offer in hindsight
    reserve_binding : whether the broker's price of quality stood at its cap when it ended up
        short, so that the promise could not be had within the stated reserve
    statistic : what a figure is, and its interval
    n_splits : halves that were learnt and scored, offline
    unseen : on kinds of task left out of learning, offline: how far below the best fixed mixture
        in hindsight, and how well calibrated, before any feedback and after 500 requests
    """

    market: str
    set: str
    mode: str
    target: float | None
    ttft_s: float | None
    feedback: float
    shock: str | None
    seeds: int
    requests: int
    n_prompts: int
    n_offers: int
    best_fixed_quality: float
    params_version: int
    reserve_binding: bool
    statistic: str = "mean over seeds, 95 % Student interval"
    n_splits: int | None = None
    unseen: list[dict[str, Any]] = []
    policies: list[PolicyReport] = field(default_factory=list)

    def policy(self, name: str) -> Mapping[str, Interval]:
        """Figures of the policy called `name`. Raises `KeyError`."""
        return {p.policy: p.figures for p in self.policies}[name]


def as_json(report: ReplayReport) -> bytes:
    """One JSON object on one line; each figure `x` has its interval beside it as `x_ci95`."""
    head: dict[str, Any] = msgspec.to_builtins(report)
    head["policies"] = [
        {
            "policy": one.policy,
            "set": report.set,
            "mode": report.mode,
            "target": report.target,
            "feedback": report.feedback,
            "shock": report.shock,
            **_flat(one.figures),
        }
        for one in report.policies
    ]
    return msgspec.json.encode(head)


def _flat(figures: Mapping[str, Interval]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name in JSON_FIELDS:
        found = figures.get(name)
        flat[name] = None if found is None else found.mean
        flat[f"{name}_ci95"] = None if found is None else [found.low, found.high]
    return flat
