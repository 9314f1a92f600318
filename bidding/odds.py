"""All that a policy might buy for a request, each with its probability: for off-policy estimates.

A decision records the probability of what it bought. To say what another policy would have done
one needs the whole law: every offer that could have won, how likely, and what was believed of it.
This is the auction again up to its draw, by the array path, which decides as the compiled one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bidding.auction import BROKER, bid_of, ceiling_nusd, ranked
from bidding.columns import Floats
from bidding.exploration import lots_of
from bidding.params import Params
from bidding.prompted import for_prompt
from bidding.request import BidRequest
from bidding.slate import slate_for
from bidding.switching import session_of
from bidding.view import MarketView


@dataclass(frozen=True, slots=True)
class Odds:
    """What may be bought, as columns, shape (k,), the best bid first; empty where nobody may bid.

    `p_good_sd` and `p_on_time_sd` are standard deviations of the beliefs. `n_bids` counts the
    offers that bid at all.
    """

    offers: tuple[str, ...]
    probability: Floats
    cost_nusd: Floats
    p_good: Floats
    p_good_sd: Floats
    p_on_time: Floats
    p_on_time_sd: Floats
    n_bids: int

    def of(self, offer: str | None) -> float:
        """Probability that `offer` is bought."""
        at = self.place(offer)
        return 0.0 if at is None else self.probability.item(at)

    def place(self, offer: str | None) -> int | None:
        """Where `offer` stands; None where it cannot win."""
        return self.offers.index(offer) if offer in self.offers else None


_NOTHING = np.zeros(0)
NOBODY = Odds((), _NOTHING, _NOTHING, _NOTHING, _NOTHING, _NOTHING, _NOTHING, 0)


def odds_of(view: MarketView, request: BidRequest, params: Params) -> Odds:
    """What the broker's own policy might buy for `request` on `view`.

    Notes
    -----
    `odds_of(...).of(winner)` is the propensity that `decide` records of its winner, whatever the
    seed.
    """
    slate = slate_for(view, request, params)
    if request.features:
        slate = for_prompt(slate, request.features, request.sla)
    session = None
    if request.incumbent is not None:
        session = session_of(view, slate, request, params)
    n_ranked = min(params.choice.n_ranked, len(slate.row_list))
    if not n_ranked:
        return NOBODY
    cost, scores, told, n_above = ranked(
        BROKER, slate, request, params, 0, session, ceiling_nusd(request), n_ranked
    )
    n_bids = len(slate.row_list) - n_above
    bids = [bid_of(slate, one) for one in told[: min(n_ranked, n_bids)]]
    if not bids:
        return NOBODY
    places = [int(one[0]) for one in told[: len(bids)]]
    chances = {places[0]: 1.0}
    if not request.sla.strict and session is None:
        lots = lots_of(slate, request.sla, params.exploration, bids, places, cost, scores)
        if lots is not None:
            chances[places[0]] -= lots.share + lots.burn_in
            for at in lots.safe if lots.share else ():
                chances[at] = chances.get(at, 0.0) + lots.share / len(lots.safe)
            for at in lots.fresh:
                chances[at] = chances.get(at, 0.0) + lots.burn_in / len(lots.fresh)
    rows = np.array(list(chances))
    return Odds(
        offers=tuple(slate.offer_ids[slate.row_list[i]] for i in chances),
        probability=np.array(list(chances.values())),
        cost_nusd=cost[rows],
        p_good=slate.p_good[rows],
        p_good_sd=slate.p_good_sd[rows],
        p_on_time=slate.p_on_time[rows],
        p_on_time_sd=slate.p_on_time_sd[rows],
        n_bids=n_bids,
    )
