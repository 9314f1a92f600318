"""All that a policy might buy for a request, each with its probability: for off-policy estimates.

A decision records the probability of what it bought. To say what another policy would have done
one needs the whole law: every offer that could have won, how likely, and what was believed of it.
It is found by asking the auction itself, with seeds chosen so that every lot is drawn, until the
propensities of the winners seen add up to one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from bidding.auction import decide
from bidding.columns import Floats
from bidding.decision import Decision
from bidding.draws import seed_with, uniform
from bidding.params import Params
from bidding.request import BidRequest
from bidding.view import MarketView

_N_CELLS: Final = 128
_MOST_TRIES: Final = 4096
_WHOLE: Final = 1.0 - 1e-9


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


_NOTHING: Final = np.zeros(0)
NOBODY: Final = Odds((), _NOTHING, _NOTHING, _NOTHING, _NOTHING, _NOTHING, _NOTHING, 0)


def odds_of(view: MarketView, request: BidRequest, params: Params) -> Odds:
    """What the broker's own policy might buy for `request` on `view`.

    Notes
    -----
    `odds_of(...).of(winner)` is the propensity that `decide` records of its winner, whatever the
    seed. One decision where nothing is explored, some ten where something is.
    """
    best = decide(view, request, params, _PLAIN)
    if best.winner is None:
        return NOBODY
    found = {best.winner.row: best}
    left = _WHOLE - (best.propensity or 0.0)
    if left > 0.0:
        shares = params.exploration
        for seed in _lots(shares.share, shares.burn_in_share, shares.probe_share):
            other = decide(view, request, params, seed)
            assert other.winner is not None
            if other.winner.row not in found:
                found[other.winner.row] = other
                left -= other.propensity or 0.0
                if left <= 0.0:
                    break
    return _columns(view, request, list(found.values()), best.n_bids)


def _columns(view: MarketView, request: BidRequest, found: list[Decision], n_bids: int) -> Odds:
    bids = [d.winner for d in found if d.winner is not None]
    chance = np.array([d.propensity for d in found], dtype=np.float64)
    rows = np.array([b.row for b in bids])
    good = np.array([b.p_good for b in bids])
    on_time = np.array([b.p_on_time for b in bids])
    own_sd = view.task(request.task).quality.own_sd[rows]
    n_seen = view.quotes.evidence_n[rows] + 1.0
    return Odds(
        offers=tuple(b.offer for b in bids),
        probability=chance / chance.sum(),
        cost_nusd=np.array([b.cost_nusd for b in bids]),
        p_good=good,
        p_good_sd=good * (1.0 - good) * own_sd,
        p_on_time=on_time,
        p_on_time_sd=np.sqrt(on_time * (1.0 - on_time) / n_seen),
        n_bids=n_bids,
    )


_PLAIN: Final = seed_with(1.0 - 1e-12, 0)
"""A seed with which nothing is explored: shares of exploration add up to at most one."""


@lru_cache(maxsize=64)
def _lots(share: float, burn_in: float, probe: float) -> tuple[int, ...]:
    """Seeds that draw from each of the lots, their picks spread evenly."""
    return (*_spread(0.0, share), *_spread(share, share + burn_in), *_spread(0.0, probe))


def _spread(low: float, high: float) -> list[int]:
    """Seeds whose first uniform is in [low, high) and whose second ones are spread evenly."""
    if high <= low:
        return []
    cells: dict[int, int] = {}
    for k in range(_MOST_TRIES):
        seed = seed_with(low + (high - low) * (k + 0.5) / _MOST_TRIES, 0)
        cells.setdefault(int(uniform(seed, 1) * _N_CELLS), seed)
    return [cells[i] for i in sorted(cells, key=lambda i: f"{i:010b}"[::-1])]
