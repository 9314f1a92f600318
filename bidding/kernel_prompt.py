"""P(good) of one prompt at every bid, in plain loops, to be compiled.

Does what `bidding.prompted` does by arrays, bit for bit: loops spell out the order in which
numpy adds, and nothing here may be reordered or fused.

References
----------
Higham (1993), The accuracy of floating point summation, section 3 (pairwise summation).
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from bidding.bid_columns import GOOD, LEAST_GOOD, WORTH
from bidding.columns import Floats
from bidding.estimators.quality_skill import FARTHEST, MACKAY, ORDINARY

_MACKAY: Final = MACKAY
_ORDINARY: Final = ORDINARY
_FARTHEST: Final = FARTHEST


def appraise(
    features: Floats,
    product: Floats,
    centre: Floats,
    inv_var: Floats,
    theta: Floats,
    variance: Floats,
    own_sd: Floats,
    loadings: Floats,
    other_worth: Floats,
    n_basis: int,
    novelty_var: float,
    quality_price: float,
    bonus_sd: float,
    doubt_sd: float,
    good_sd: Floats,
    columns: Floats,
) -> int:
    """P(good) of one prompt at every bid, and what that is worth; 0 where it cannot be told.

    Parameters
    ----------
    features, centre, inv_var : ndarray, (n_features,)
    product : ndarray, (n_basis + k, n_features)
    theta, variance, own_sd, other_worth : ndarray, (n,)
    loadings : ndarray, (n, n_basis)
    good_sd : ndarray, (n,)
        Written.
    columns : ndarray, (N_PLAIN or more, n)
        GOOD, WORTH and LEAST_GOOD are written.
    """
    n_features = features.shape[0]
    n_rows = product.shape[0]
    away = np.empty(n_features)
    terms = np.empty(n_features)
    for j in range(n_features):
        away[j] = features[j] - centre[j]
    for j in range(n_features):
        terms[j] = away[j] * away[j] * inv_var[j]
    beyond = 0.0 + _pairwise(terms, n_features) - _ORDINARY
    if not math.isfinite(beyond):
        return 0
    z = np.empty(n_rows)
    for i in range(n_rows):
        for j in range(n_features):
            terms[j] = product[i, j] * away[j]
        z[i] = 0.0 + _pairwise(terms, n_features)
    n_spread = n_rows - n_basis
    spread = np.empty(n_spread)
    for i in range(n_spread):
        spread[i] = z[n_basis + i] * z[n_basis + i]
    shared = 0.0 + _pairwise(spread, n_spread)
    if beyond > 0.0:
        shared += novelty_var * min(beyond, _FARTHEST)
    for i in range(theta.shape[0]):
        mean = theta[i]
        for j in range(n_basis):
            mean += loadings[i, j] * z[j]
        sd = math.sqrt(variance[i] + shared)
        x = mean / math.sqrt(1.0 + _MACKAY * (sd * sd))
        p = 1.0 / (1.0 + math.exp(-x))
        p_sd = p * (1.0 - p) * own_sd[i]
        good_sd[i] = p_sd
        columns[GOOD, i] = p
        columns[WORTH, i] = other_worth[i] + quality_price * min(p + bonus_sd * p_sd, 1.0)
        columns[LEAST_GOOD, i] = max(p - doubt_sd * p_sd, 0.0)
    return 1


def _pairwise(terms: Floats, n: int) -> float:
    """The sum of up to 128 terms in numpy's order: eight running sums, then the rest."""
    if n < 8:
        few = 0.0
        for i in range(n):
            few += terms[i]
        return few
    r0, r1, r2, r3 = terms[0], terms[1], terms[2], terms[3]
    r4, r5, r6, r7 = terms[4], terms[5], terms[6], terms[7]
    whole = n - n % 8
    for i in range(8, whole, 8):
        r0 += terms[i]
        r1 += terms[i + 1]
        r2 += terms[i + 2]
        r3 += terms[i + 3]
        r4 += terms[i + 4]
        r5 += terms[i + 5]
        r6 += terms[i + 6]
        r7 += terms[i + 7]
    total: float = ((r0 + r1) + (r2 + r3)) + ((r4 + r5) + (r6 + r7))
    for i in range(whole, n):
        total += terms[i]
    return total
