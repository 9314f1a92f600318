"""All that a policy might buy for a request, each with its probability: for off-policy estimates.

A decision records the probability of what it bought. To say what another policy would have done
one needs the whole law: every offer that could have won, how likely, and what was believed of it.
This is the auction again up to its draw, by the array path, which decides as the compiled one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from bidding.auction import BROKER, by_arrays, ceiling_nusd
from bidding.columns import Floats
from bidding.estimators.tokens import expected_tokens
from bidding.exploration import lots_of
from bidding.kind import Kind, kind_key
from bidding.params import Params
from bidding.prompted import for_prompt
from bidding.request import BidRequest
from bidding.scoring import p_on_time
from bidding.slate import slate_for
from bidding.switching import session_of
from bidding.view import MarketView


@dataclass(frozen=True, slots=True)
class Odds:
    """What may be bought, as columns, shape (k,), the best bid first; empty where nobody may bid.

    `p_on_time` is without the benefit of the doubt that bids get. `p_good_sd` and `p_on_time_sd`
    are standard deviations of the beliefs. `n_bids` counts the
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


_NOTHING: Final = np.zeros(0)
NOBODY: Final = Odds((), _NOTHING, _NOTHING, _NOTHING, _NOTHING, _NOTHING, _NOTHING, 0)


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
    n = len(slate.row_list)
    n_ranked = min(params.choice.n_ranked, n)
    if not n_ranked:
        return NOBODY
    cost, scores, told, _, n_above = by_arrays(
        BROKER, params, slate, request, 0, session, False, ceiling_nusd(request), n_ranked
    )
    ranked = told[:-2]
    if not ranked:
        return NOBODY
    chances = {int(ranked[0][0]): 1.0}
    lots = None
    if session is None and not request.sla.strict:
        lots = lots_of(slate, ranked, cost, scores)
    if lots is not None:
        chances[int(ranked[0][0])] -= lots.share + lots.burn_in
        for safe in lots.safe if lots.share else ():
            chances[int(safe)] = chances.get(int(safe), 0.0) + lots.share / len(lots.safe)
        for fresh in lots.fresh:
            chances[fresh] = chances.get(fresh, 0.0) + lots.burn_in / len(lots.fresh)
    places = np.array(list(chances))
    rows = slate.rows[places]
    on_time = _plain_on_time(view, request)[rows]
    n_seen = view.quotes.evidence_n[rows] + 1.0
    return Odds(
        offers=tuple(slate.offer_ids[row] for row in rows.tolist()),
        probability=np.array(list(chances.values())),
        cost_nusd=cost[places],
        p_good=slate.p_good[places],
        p_good_sd=slate.p_good_sd[places],
        p_on_time=on_time,
        p_on_time_sd=np.sqrt(on_time * (1.0 - on_time) / n_seen),
        n_bids=n - n_above,
    )


def _plain_on_time(view: MarketView, request: BidRequest) -> Floats:
    """P(on time) of every offer without any benefit of the doubt, shape (n_offers,)."""
    kind = Kind(*kind_key(view, request, 0))
    key = kind.on_time_key(0.0, kind.task if kind.task in view.tasks else "")
    known = view.memo.on_time.get(key)
    if known is None:
        task = view.task(kind.task)
        known = view.memo.on_time[key] = p_on_time(
            view.quotes,
            ttft_ms=kind.sla.ttft_ms,
            latency_ms=kind.sla.latency_ms,
            input_tokens=kind.typical_tokens,
            out_tokens=expected_tokens(
                task.out_log_tokens, task.out_log_sd, kind.max_output_tokens
            ),
            n_inflight=view.n_inflight,
        )
    return known
