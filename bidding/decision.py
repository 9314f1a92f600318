"""An auction's record: who won, who came next, who was turned away and why.

A decision is a value: the same view, request, params and seed give an equal one.
"""

from __future__ import annotations

import enum

from msgspec import Struct


class NoBid(enum.StrEnum):
    """Why an offer has no bid. Gates are applied in this order; an offer keeps its first reason."""

    DISABLED = "disabled"
    NOT_A_CANDIDATE = "not_a_candidate"
    DENIED = "denied"
    REGION = "region"
    RETENTION = "retention"
    TRAINING = "training"
    PII = "pii"
    CAPABILITY = "capability"
    CONTEXT_WINDOW = "context_window"
    UNPRICED = "unpriced"
    QUOTA = "quota"
    CIRCUIT_OPEN = "circuit_open"
    ABOVE_RESERVE = "above_reserve"
    QUALITY_FLOOR = "quality_floor"
    DEADLINE_FLOOR = "deadline_floor"


class Bid(Struct, frozen=True, array_like=True, gc=False):
    """An offer's scored answer to a request. Lower `score_nusd` is better.

    `cost_nusd` is the expected cost of the call, `p_good` and `p_on_time` the probabilities of
    a good answer and of meeting the deadlines (1.0 where none is set).
    """

    offer: str
    row: int
    score_nusd: float
    cost_nusd: float
    p_good: float
    p_on_time: float


class Switch(Struct, frozen=True, kw_only=True):
    """What leaving a session's incumbent cost, or that it stayed.

    Attributes
    ----------
    incumbent : str
        Offer that served the session last.
    moved : bool
        Whether another offer won.
    bid : Bid or None
        The incumbent's own bid, its warm cache priced in; None where it had none, and
        `no_bid` says why (a `NoBid`, or "unknown" for an offer that is no more).
    lost_cache_nusd, consistency_nusd, translation_nusd : float
        What the move cost: the warm cache given up, the tax on another model's voice, and
        what of the history is rewritten or lost. Zeros where the session stayed.
    gain_nusd : float or None
        By how much the winner is better before these costs; None where it stayed or there was
        nothing to compare with.
    rival, rival_gain_nusd, rival_cost_nusd : str or None, float, float
        Where it stayed: who would have won without the session, by how much, and what moving
        there would have cost; None where the incumbent is the best anyway.
    """

    incumbent: str
    moved: bool
    bid: Bid | None
    no_bid: str | None
    lost_cache_nusd: float
    consistency_nusd: float
    translation_nusd: float
    gain_nusd: float | None
    rival: str | None = None
    rival_gain_nusd: float = 0.0
    rival_cost_nusd: float = 0.0

    @property
    def cost_nusd(self) -> float:
        """The whole switching cost."""
        return self.lost_cache_nusd + self.consistency_nusd + self.translation_nusd


class Decision(Struct, frozen=True, kw_only=True):
    """What was decided and everything needed to decide it again.

    Attributes
    ----------
    ranked : tuple of Bid
        Best first; the first is the winner. Empty when nobody could bid.
    n_bids : int
        How many offers bid, of which `ranked` holds the best few.
    no_bids : dict of str to int
        Offers turned away, counted per `NoBid` reason.
    clearing_price_nusd : float or None
        What the winner could have charged and still won; None with a single bid.
    propensity : float or None
        Probability with which the policy chose the winner given the view; 1.0 when it drew nothing.
    feasible : bool
        Whether some bid met the request's own strict floors; when False the winner violates
        them least and is marked best effort.
    switch : Switch or None
        What leaving the incumbent cost; None without a session.
    """

    view_number: int
    params_version: int
    policy: str
    seed: int
    ranked: tuple[Bid, ...]
    n_bids: int
    no_bids: dict[str, int]
    clearing_price_nusd: float | None
    propensity: float | None
    feasible: bool
    quality_price_nusd: float
    punctuality_price_nusd: float
    best: Bid | None
    cheapest: Bid | None
    switch: Switch | None = None

    @property
    def winner(self) -> Bid | None:
        return self.ranked[0] if self.ranked else None
