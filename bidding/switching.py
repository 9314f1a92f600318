"""What it costs a session to leave the offer that served it last, and whether it did.

Three parts. The prompt cache that is lost: what of the prompt lies cached with the incumbent,
at the difference between its fresh and its cached price; it is part of the incumbent's cost.
The consistency tax: another model has another voice. And the translation: blocks of the history
that only the incumbent's family of models can read (its reasoning, its own tool calls) are
rewritten or lost. The latter two are harm, added to the score of whoever would take over.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from bidding.columns import Floats
from bidding.decision import Bid, NoBid, Switch
from bidding.gates import reason_of
from bidding.params import Params
from bidding.request import BidRequest
from bidding.slate import Slate
from bidding.units import NUSD_PER_USD
from bidding.view import MarketView

UNKNOWN: Final = "unknown"
_NOTHING: Final = np.zeros(0)


@dataclass(frozen=True, slots=True)
class Session:
    """A session's incumbent on a slate.

    Attributes
    ----------
    place : its place on the slate; -1 where it may not bid
    saved_nusd : what its warm cache saves this request there
    extra_nusd : ndarray, (n_eligible,), what taking over costs each offer; empty where unknown
    consistency_nusd, translation_nusd : the two parts of it, for another family's model
    """

    offer: str
    row: int
    place: int
    saved_nusd: float
    extra_nusd: Floats
    consistency_nusd: float
    translation_nusd: float


def session_of(view: MarketView, slate: Slate, request: BidRequest, params: Params) -> Session:
    """The request's incumbent, as it stands on the slate."""
    offer = request.incumbent or ""
    row = view.offers.row_of.get(offer, -1)
    if row < 0:
        return Session(offer, row, -1, 0.0, _NOTHING, 0.0, 0.0)
    place = bisect_left(slate.row_list, row)
    if place == len(slate.row_list) or slate.row_list[place] != row:
        place = -1
    saved = 0.0
    n_cached = min(max(request.incumbent_cached_tokens, 0), max(request.input_tokens, 0))
    if place >= 0 and n_cached:
        saved = (slate.input_nusd.item(place) - slate.cache_read_nusd.item(place)) * n_cached
    usd = NUSD_PER_USD * request.worth_scale
    tax = params.switching.consistency_tax_usd * usd
    loss = params.switching.translation_usd * max(request.incumbent_blocks, 0) * usd
    extra = (slate.model != view.offers.model[row]) * tax
    if loss:
        extra = extra + (slate.family != view.offers.family[row]) * loss
    return Session(offer, row, place, saved, extra, tax, loss)


def switch_of(
    slate: Slate, session: Session, bids: Sequence[Bid], cost: Floats, scores: Floats
) -> Switch:
    """What the switch cost, or would have: for the hand-off's record."""
    place = session.place
    held: Bid | None = None
    reason: str | None = None
    if place >= 0 and np.isfinite(scores[place]):
        held = Bid(
            session.offer,
            session.row,
            scores.item(place),
            cost.item(place),
            slate.p_good.item(place),
            slate.p_on_time.item(place),
        )
    elif place >= 0:
        reason = NoBid.ABOVE_RESERVE.value
    else:
        reason = UNKNOWN if session.row < 0 else reason_of(int(slate.codes[session.row])).value
    winner = bids[0] if bids else None
    moved = winner is not None and winner.offer != session.offer
    consistency = translation = 0.0
    gain: float | None = None
    if moved and winner is not None and len(session.extra_nusd):
        extra = session.extra_nusd.item(slate.row_list.index(winner.row))
        consistency = min(extra, session.consistency_nusd)
        translation = extra - consistency
        if held is not None:
            gain = held.score_nusd + session.saved_nusd - (winner.score_nusd - extra)
    rival, rival_gain, rival_cost = None, 0.0, 0.0
    if held is not None and not moved:
        rival, rival_gain, rival_cost = _rival(slate, session, scores)
    return Switch(
        incumbent=session.offer,
        moved=moved,
        bid=held,
        no_bid=reason,
        lost_cache_nusd=session.saved_nusd if moved else 0.0,
        consistency_nusd=consistency,
        translation_nusd=translation,
        gain_nusd=gain,
        rival=rival,
        rival_gain_nusd=rival_gain,
        rival_cost_nusd=rival_cost,
    )


def _rival(slate: Slate, session: Session, scores: Floats) -> tuple[str | None, float, float]:
    """Who would have won had nothing bound the session: its gain, and what moving there costs."""
    extra = session.extra_nusd
    alone = scores - extra if len(extra) else scores.copy()
    alone[session.place] += session.saved_nusd
    best = int(alone.argmin())
    gain = alone.item(session.place) - alone.item(best)
    if best == session.place or not gain > 0.0:
        return None, 0.0, 0.0
    cost = session.saved_nusd + (extra.item(best) if len(extra) else 0.0)
    return slate.offer_ids[slate.row_list[best]], gain, cost
