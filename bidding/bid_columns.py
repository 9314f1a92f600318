"""What is known of the bids on one kind of request, as the rows of one matrix.

One matrix rather than an array each, so that the compiled kernel is handed one thing and a slate
costs one allocation. `fill` is the array path; `bidding.kernel_bids` has its compiled twin, and
both write the same bits.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from bidding.columns import Floats, Ints

FIXED: Final = 0
"""Expected cost that does not depend on the prompt's length, nusd."""
PRICE: Final = 1
"""Of a prompt token, nusd."""
WORTH: Final = 2
"""λ·P(good, optimistic) + μ·P(on time) − harm, nusd."""
GOOD: Final = 3
ON_TIME: Final = 4
LEAST_GOOD: Final = 5
"""Lower bounds of P(good) and P(on time), by which exploring is judged safe."""
LEAST_ON_TIME: Final = 6
N_PLAIN: Final = 7
SHADOW: Final = 7
"""Shadow prices of the answer and of a prompt token; rows there only where something is scarce."""
SHADOW_TOKEN: Final = 8
N_SCARCE: Final = 9

N_OUT: Final = 5
"""What is told of a bid: place on the slate, score, cost, P(good), P(on time)."""

SHARE: Final = 0
"""The rules of exploration: share drawn among safe bids, share of newcomers, ..."""
BURN_IN_SHARE: Final = 1
MAX_LOSS: Final = 2
"""... most that a score may exceed the best one's (nusd), ..."""
MAX_FACTOR: Final = 3
"""... most that a cost may be of the best bid's, ..."""
QUALITY: Final = 4
"""... and the class's targets; -1 for none."""
PUNCTUALITY: Final = 5
N_RULES: Final = 6


def optimistic(good: Floats, good_sd: Floats, bonus_sd: float) -> Floats:
    """P(good) with the benefit of the doubt: so many standard deviations more, at most 1."""
    return np.minimum(good + bonus_sd * good_sd, 1.0)


def least_good(good: Floats, good_sd: Floats, doubt_sd: float) -> Floats:
    """P(good) so many standard deviations below its mean, at least 0."""
    return np.maximum(good - doubt_sd * good_sd, 0.0)


def on_time_sd(on_time: Floats, evidence_n: Floats) -> Floats:
    """Standard deviation of P(on time), as of a share seen in so many attempts."""
    return np.sqrt(on_time * (1.0 - on_time) / (evidence_n + 1.0))


def fill(
    columns: Floats,
    rows: Ints,
    fixed: Floats,
    price: Floats,
    good: Floats,
    good_sd: Floats,
    on_time: Floats,
    evidence_n: Floats,
    harm: Floats,
    quality_price: float,
    punctuality_price: float,
    bonus_sd: float,
    doubt_sd: float,
) -> None:
    """Write the plain rows of `columns`, (N_PLAIN or more, n_eligible), for the offers at `rows`.

    Parameters
    ----------
    fixed, price, good, good_sd, on_time, evidence_n, harm : ndarray, (n_offers,)
    doubt_sd : float
        How far below their means the lower bounds lie.
    """
    fixed.take(rows, out=columns[FIXED], mode="clip")
    price.take(rows, out=columns[PRICE], mode="clip")
    p_good = good.take(rows, out=columns[GOOD], mode="clip")
    p_on_time = on_time.take(rows, out=columns[ON_TIME], mode="clip")
    sd = good_sd.take(rows)
    worth = np.multiply(punctuality_price, p_on_time, out=columns[WORTH])
    worth -= harm.take(rows)
    worth += quality_price * optimistic(p_good, sd, bonus_sd)
    columns[LEAST_GOOD] = least_good(p_good, sd, doubt_sd)
    late_sd = on_time_sd(p_on_time, evidence_n.take(rows))
    columns[LEAST_ON_TIME] = least_good(p_on_time, late_sd, doubt_sd)
