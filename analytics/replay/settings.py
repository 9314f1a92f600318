"""What a replay is asked to do, and the one place that says what the words mean."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from bidding.params import Params

Shock = Literal["price", "degrade", "newcomer", "outage"]
Mode = Literal["offline", "online"]


class ReplaySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One replay.

    Attributes
    ----------
    data : Path
        Folder that may be learnt from.
    test_data : Path or None
        Folder that is scored on, same layout; what it lacks is taken from `data`. None splits
        `data` by a hash of the prompt: one half to learn from, the other to score on.
    half : "test" or "learning"
        Which half streams are made of when `data` is split. Settings are picked on "learning".
    market : str or None
        None takes the one that sells most of the sets' models.
    sets : tuple of str
        Quality sets, joined into one stream and one SLA class.
    mode : "offline" or "online"
        Everything learnt with full information before the test, or from bandit feedback alone.
    cache : Path or None
        Folder for what offline fits led to; None keeps nothing.
    target : float or None
        Promised share of good answers; None promises none and buys by the stated `value_usd`,
        or by the params' own worth of a good answer (offline: 98 % of the best offer's).
    ttft_s : float or None
        Deadline for the first token, seconds, to be met with probability `percentile`.
    feedback : float
        Share of the answers whose quality is told.
    shock_at : float
        Where in the stream the shock falls, as a share of its requests.
    n_per_tick : int
        Requests served on one view: what the estimators learn shows after a tick.
    policies : tuple of str
        Names to run; empty means all that the market can tell apart.
    """

    data: Path
    test_data: Path | None = None
    half: Literal["test", "learning"] = "test"
    market: str | None = None
    sets: tuple[str, ...] = ("gsm",)
    mode: Mode = "online"
    target: Annotated[float, Meta(ge=0, le=1)] | None = None
    value_usd: Annotated[float, Meta(ge=0)] | None = None
    ttft_s: Annotated[float, Meta(gt=0)] | None = None
    percentile: Annotated[float, Meta(gt=0, lt=1)] = 0.95
    feedback: Annotated[float, Meta(ge=0, le=1)] = 0.2
    seeds: Annotated[int, Meta(ge=1)] = 20
    requests: Annotated[int, Meta(ge=100)] = 10_000
    shock: Shock | None = None
    shock_at: Annotated[float, Meta(gt=0, lt=1)] = 0.5
    n_per_tick: Annotated[int, Meta(ge=1)] = 50
    policies: tuple[str, ...] = ()
    cache: Path | None = None
    params: Params = field(default_factory=Params)
