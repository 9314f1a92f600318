"""Bounds of latency promises: each is judged, and one missed is enough."""

from __future__ import annotations

from typing import Any

from analytics.latency_bounds import PER_OFFER, POOLED, verdict


def found(**changes: float) -> dict[str, Any]:
    """Figures that hold, but for `changes`."""
    seen = {"ece": 0.03, "kept": 0.87, "pinball": 0.05, "attained": 0.0} | changes
    return {
        "thefastest_next_day": {
            "attained": {q: {"mean": float(q) + seen["attained"]} for q in POOLED},
            "per_offer_gap": {q: bound / 2 for q, bound in PER_OFFER.items()},
            "ece": seen["ece"],
            "winners_curse": {"all": {"n": 90, "promised": 0.88, "kept": seen["kept"]}},
        },
        "thefastest": {"pinball_log_s": {"mean": seen["pinball"]}},
        "llmperf": {"pinball_log_s": {"mean": seen["pinball"]}},
    }


def missed(**changes: float) -> list[Any]:
    judged = verdict(found(**changes))
    wanted: Any = judged["wanted"]
    lost = [line["what"] for line in wanted if not line["holds"]]
    assert judged["holds"] is (not lost)
    return lost


def test_all_hold() -> None:
    assert missed() == []


def test_each_bound_can_be_missed() -> None:
    assert missed(attained=-0.012) == ["attained 0.9", "attained 0.95", "attained 0.99"]
    assert missed(attained=0.007) == ["attained 0.99"]
    assert missed(ece=0.041) == ["ECE at deadlines"]
    assert missed(kept=0.8) == ["winner's curse"]
    assert missed(pinball=0.07) == ["pinball"]
    assert missed(pinball=0.1) == ["pinball", "pinball"]
