"""A seller's quota: so many calls a window, and what is left of it."""

from __future__ import annotations

from datetime import UTC, datetime

from broker.paper.faults import FaultSpec


def moment(at_s: float) -> str:
    """A time as Anthropic's headers write it."""
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds")


class Quota:
    """Counts calls in windows that begin with their first call. Seconds on any clock."""

    def __init__(self) -> None:
        self._began_s = 0.0
        self._n = 0

    def take(self, spec: FaultSpec, now_s: float) -> bool:
        """One call; whether it may be served."""
        if now_s - self._began_s >= spec.window_s:
            self._began_s, self._n = now_s, 0
        if self._n >= spec.per_window:
            return False
        self._n += 1
        return True

    def left(self, spec: FaultSpec, now_s: float) -> tuple[int, float]:
        """Calls left, and seconds until the window starts anew."""
        passed_s = now_s - self._began_s
        if passed_s >= spec.window_s:
            return spec.per_window, 0.0
        return spec.per_window - self._n, spec.window_s - passed_s
