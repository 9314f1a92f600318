"""What a policy is: a score for every bid of a slate, and whether it draws.

A policy never sees the network, the clock or a generator: `seed` is all its randomness. Lower
scores are better. The auction ranks, breaks ties, explores and clears; a policy only scores.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

from bidding.columns import Floats
from bidding.params import Params
from bidding.request import BidRequest
from bidding.slate import Slate


class Policy(Protocol):
    """Scores bids, in nusd where it can."""

    name: ClassVar[str]
    draws: ClassVar[bool]
    explores: ClassVar[bool]

    def score(
        self, slate: Slate, request: BidRequest, cost_nusd: Floats, params: Params, seed: int
    ) -> Floats:
        """Scores, shape (n_eligible,), lower is better.

        Parameters
        ----------
        cost_nusd : ndarray, (n_eligible,)
            Expected cost of the call at each offer.
        """
        ...
