"""What the figures must keep to: the bounds the project states, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

AT_MOST: Final[dict[str, float]] = {
    "decision_100_p50_us": 11.0,
    "decision_100_p99_us": 30.0,
    "decision_1000_p50_us": 20.0,
    "view_warm_us": 2_500.0,
    "features_1kb_p50_us": 250.0,
    "features_cached_p50_us": 5.0,
    "surface_2kb_p50_us": 60.0,
    "surface_responses_2kb_p50_us": 60.0,
    "surface_messages_2kb_p50_us": 60.0,
    "surface_embeddings_2kb_p50_us": 60.0,
    "session_first_p50_us": 100.0,
    "session_here_p50_us": 100.0,
    "session_shared_p50_us": 100.0,
    "quote_age_p99_ms": 500.0,
}
AT_LEAST: Final[dict[str, float]] = {
    "fold_attempts_per_s": 300_000.0,
    "recorder_events_per_s": 20_000.0,
    "telemetry_events_per_s": 50_000.0,
}


def broken(figures: Mapping[str, float]) -> list[str]:
    """Every bound that does not hold, in words; a figure that was not measured breaks none.

    Examples
    --------
    >>> broken({"fold_attempts_per_s": 1.0, "surface_2kb_p50_us": 5.0})
    ['fold_attempts_per_s is 1, must be at least 300000']
    """
    over = [
        f"{name} is {figures[name]:g}, must be at most {bound:g}"
        for name, bound in AT_MOST.items()
        if name in figures and not figures[name] <= bound
    ]
    under = [
        f"{name} is {figures[name]:g}, must be at least {bound:g}"
        for name, bound in AT_LEAST.items()
        if name in figures and not figures[name] >= bound
    ]
    return over + under
