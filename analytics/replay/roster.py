"""Who plays: every policy by name, made afresh for each stream since some keep a memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from analytics.replay.errors import UnknownPolicy
from analytics.replay.rivals import (
    CostBased,
    LatencyBased,
    RoundRobin,
    SimpleShuffle,
    UsageBased,
)
from analytics.replay.world import World
from bidding.policies.base import Policy
from bidding.policies.fixed import Best, Cheapest, Fastest, Random
from bidding.policies.floor import EpsilonFloor, ThompsonFloor, UcbFloor
from bidding.policies.priced import Priced, PricedThompson

HINDSIGHT = ("best-fixed-offer", "best-fixed-mixture", "oracle")
"""Not policies but yardsticks: computed from all outcomes, played by nobody."""

NEEDS_LATENCY = ("fastest", "litellm-latency-based")


def roster(world: World) -> dict[str, Callable[[], Policy]]:
    """Makers of all policies that `world` can tell apart, ours first."""
    n = len(world.offer_ids)
    makers: dict[str, Callable[[], Policy]] = {
        "broker": Priced,
        "broker-thompson": PricedThompson,
        "cheapest": Cheapest,
        "best": Best,
        "fastest": Fastest,
        "random": Random,
        "round-robin": lambda: RoundRobin(n),
        "epsilon-greedy": EpsilonFloor,
        "thompson-with-floor": ThompsonFloor,
        "ucb-with-floor": UcbFloor,
        "litellm-simple-shuffle": SimpleShuffle,
        "litellm-usage-based": lambda: UsageBased(n),
        "litellm-latency-based": lambda: LatencyBased(n),
        "litellm-cost-based": lambda: CostBased(
            world.input_nusd, world.output_nusd, world.request_nusd
        ),
    }
    if not world.has_latency:
        for name in NEEDS_LATENCY:
            del makers[name]
    return makers


def chosen(names: Sequence[str], world: World) -> tuple[list[str], list[str]]:
    """Names to play and names of yardsticks asked for; all of them when `names` is empty.

    Raises
    ------
    UnknownPolicy
        For a name that is neither.
    """
    playing = list(roster(world))
    if not names:
        return playing, list(HINDSIGHT)
    unknown = [name for name in names if name not in playing and name not in HINDSIGHT]
    if unknown:
        raise UnknownPolicy(f"no policy {unknown}; there are {[*playing, *HINDSIGHT]}")
    return [n for n in names if n in playing], [n for n in names if n in HINDSIGHT]
