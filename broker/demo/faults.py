"""The demo's two faults, and how long the market took to get over each.

Recovery runs from the fault until the on-time and success shares of the requests begun in the
last second are back at their level before it. A share counts as back when it is at the level or
within one request of it; if it never fell, recovery took no time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import aiohttp

from broker.demo.tally import Bought

_BEFORE_S: Final = 5.0
_WINDOW_S: Final = 1.0
_WITHIN_S: Final = 15.0
_STEP_S: Final = 0.1


def most_bought(requests: Sequence[Bought], now_s: float, *, other_than: str = "") -> str | None:
    """The offer most bought in the last ten seconds, at another provider than `other_than`."""
    counts = Counter(
        b.offer
        for b in requests
        if b.ok and b.started_s >= now_s - 10.0 and b.offer.partition("/")[0] != other_than
    )
    return counts.most_common(1)[0][0] if counts else None


async def slow_down(control_url: str, offer: str, factor: float) -> None:
    """Make an offer slower by `factor`."""
    provider, _, model = offer.partition("/")
    change = {"add": [{"kind": "slow", "factor": factor}]}
    await _patch(f"{control_url}/control/sellers/{provider}/{model}", change)


async def kill(control_url: str, offer: str) -> None:
    """Close the port of an offer's provider."""
    provider = offer.partition("/")[0]
    await _patch(f"{control_url}/control/sellers/{provider}", {"add": [{"kind": "die"}]})


async def heal(control_url: str, offer: str) -> None:
    """Clear all that was done to an offer and to its provider."""
    provider, _, model = offer.partition("/")
    await _patch(f"{control_url}/control/sellers/{provider}/{model}", {"faults": []})
    await _patch(f"{control_url}/control/sellers/{provider}", {"faults": []})


async def _patch(url: str, change: Mapping[str, object]) -> None:
    async with aiohttp.ClientSession() as session, session.patch(url, json=change) as response:
        response.raise_for_status()


def recovery_s(requests: Sequence[Bought], fault_s: float) -> float:
    """Seconds from the fault until the shares are back; infinite if they did not come back."""
    before = [b for b in requests if fault_s - _BEFORE_S <= b.started_s < fault_s]
    fell = False
    n_steps = round(_WITHIN_S / _STEP_S)
    for step in range(round(_WINDOW_S / _STEP_S), n_steps + 1):
        end_s = fault_s + step * _STEP_S
        window = [b for b in requests if end_s - _WINDOW_S <= b.started_s < end_s]
        good = _is_back([b.ok for b in window], [b.ok for b in before]) and _is_back(
            [b.on_time for b in window if b.on_time is not None],
            [b.on_time for b in before if b.on_time is not None],
        )
        if fell and good:
            return end_s - fault_s
        fell |= not good
        if not fell and end_s - fault_s >= _BEFORE_S:
            return 0.0
    return float("inf")


def _is_back(now: Sequence[bool], before: Sequence[bool]) -> bool:
    if not now or not before:
        return True
    level = sum(before) / len(before)
    return sum(now) >= level * len(now) - 1.0
