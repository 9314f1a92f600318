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
    "reserve_binding_share",
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
