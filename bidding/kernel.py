"""The hot path compiled: the same answers bit for bit as the array path, in fewer microseconds.

Optional (extra `[kernel]`). The two functions below are plain Python; `compiled()` gives them
through numba, after it has seen them agree with the array path on numbers of every size. Where
numba is absent or disagrees there is no kernel, and nothing but speed differs. Loops spell out
the order in which numpy adds, and nothing here may be reordered or fused.

References
----------
Higham (1993), The accuracy of floating point summation, section 3 (pairwise summation).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from bidding.columns import Floats
from bidding.estimators.quality_skill import FARTHEST, MACKAY, ORDINARY, SkillArrays, logits, p_good

N_OUT: Final = 5
"""What is told of a bid: place on the slate, score, cost, P(good), P(on time)."""

_MACKAY: Final = MACKAY
_ORDINARY: Final = ORDINARY
_FARTHEST: Final = FARTHEST


@dataclass(frozen=True, slots=True)
class Kernel:
    """The compiled functions; see `scan` and `appraise`."""

    scan: Callable[..., int]
    appraise: Callable[..., int]


def scan(
    fixed: Floats,
    price: Floats,
    worth: Floats,
    good: Floats,
    on_time: Floats,
    shadow: Floats,
    shadow_token: Floats,
    extra: Floats,
    tokens: float,
    scale: float,
    ceiling: float,
    warm: int,
    saved: float,
    k: int,
    cost: Floats,
    scores: Floats,
    out: Floats,
) -> int:
    """Cost and score of every bid, the best `k`, and how many are above the ceiling.

    Parameters
    ----------
    fixed, price, worth, good, on_time : ndarray, (n,)
        As on the slate; `price` is of a prompt token.
    shadow, shadow_token, extra : ndarray, (n,) or empty
        Shadow prices, and what else is added to the score.
    warm, saved : int, float
        Which bid has part of the prompt cached (-1: none), and what that saves it, nusd.
    cost, scores : ndarray, (n,)
        Written; the score of a bid above the ceiling becomes infinite.
    out : ndarray, (k + 2, N_OUT)
        Written: the best bids in order, then in the last two rows the bid with the highest
        P(good) and the one with the lowest cost.
    """
    n = fixed.shape[0]
    for i in range(n):
        cost[i] = fixed[i] + price[i] * tokens
    if warm >= 0:
        cost[warm] -= saved
    for i in range(n):
        scores[i] = cost[i] - worth[i] * scale
    if shadow.shape[0] == n:
        for i in range(n):
            scores[i] += shadow[i] + shadow_token[i] * tokens
    if extra.shape[0] == n:
        for i in range(n):
            scores[i] += extra[i]
    n_above = 0
    n_kept = 0
    best = 0
    cheapest = 0
    for i in range(n):
        c = cost[i]
        if good[i] > good[best] or (good[i] == good[best] and c < cost[best]):
            best = i
        if c < cost[cheapest]:
            cheapest = i
        if not c <= ceiling:
            scores[i] = math.inf
            n_above += 1
            continue
        s = scores[i]
        if n_kept == k:
            j = k - 1
            if not (s < out[j, 1] or (s == out[j, 1] and c < out[j, 2])):
                continue
        else:
            j = n_kept
            n_kept += 1
        while j > 0 and (s < out[j - 1, 1] or (s == out[j - 1, 1] and c < out[j - 1, 2])):
            out[j, 0] = out[j - 1, 0]
            out[j, 1] = out[j - 1, 1]
            out[j, 2] = out[j - 1, 2]
            j -= 1
        out[j, 0] = i
        out[j, 1] = s
        out[j, 2] = c
    out[k, 0] = best
    out[k + 1, 0] = cheapest
    for j in range(k + 2):
        if j < n_kept or j >= k:
            i = int(out[j, 0])
            out[j, 1] = scores[i]
            out[j, 2] = cost[i]
            out[j, 3] = good[i]
            out[j, 4] = on_time[i]
    return n_above


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
    good: Floats,
    good_sd: Floats,
    worth: Floats,
) -> int:
    """P(good) of one prompt at every bid, and what that is worth; 0 where it cannot be told.

    Parameters
    ----------
    features, centre, inv_var : ndarray, (n_features,)
    product : ndarray, (n_basis + k, n_features)
    theta, variance, own_sd, other_worth : ndarray, (n,)
    loadings : ndarray, (n, n_basis)
    good, good_sd, worth : ndarray, (n,)
        Written.
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
        good[i] = p
        good_sd[i] = p_sd
        worth[i] = other_worth[i] + quality_price * min(p + bonus_sd * p_sd, 1.0)
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


def compiled() -> Kernel | None:
    """The kernel; None without numba, or where its numbers are not those of the array path.

    Notes
    -----
    Imports numba: one to three seconds of processor time, so call it beside the work, not
    before it. Machine code is kept on disk beside this file where that can be written.
    """
    try:
        import numba
        from numba.extending import register_jitable
    except ImportError:
        return None
    register_jitable(_pairwise)
    reals, rows = numba.float64[::1], numba.float64[:, ::1]
    real, whole = numba.float64, numba.int64
    scan_types = whole(
        *[reals] * 8, real, real, real, whole, real, whole, reals, reals, rows
    )  # fmt: skip
    appraise_types = whole(
        reals, rows, reals, reals, reals, reals, reals, rows, reals,
        whole, real, real, real, reals, reals, reals,
    )  # fmt: skip

    def build(cache: bool) -> Kernel:
        made: Any = numba.njit
        return Kernel(
            scan=made(scan_types, cache=cache, error_model="numpy")(scan),
            appraise=made(appraise_types, cache=cache, error_model="numpy")(appraise),
        )

    try:
        kernel = build(cache=True)
    except (RuntimeError, OSError):
        kernel = build(cache=False)
    return kernel if agrees(kernel) else None


def agrees(kernel: Kernel) -> bool:
    """Whether the kernel appraises prompts as the array path does, bit for bit."""
    rng = np.random.default_rng(13)
    for n, n_basis, n_spread, n_features in ((1, 1, 0, 3), (9, 3, 8, 69), (64, 2, 12, 128)):
        arrays = SkillArrays(
            theta=rng.normal(0.0, 4.0, n),
            own_sd=rng.uniform(0.0, 1.0, n),
            plain_sd=rng.uniform(0.0, 1.0, n),
            variance=rng.uniform(0.0, 1.0, n),
            loadings=rng.normal(1.0, 0.3, (n, n_basis)),
            product=rng.normal(0.0, 0.2, (n_basis + n_spread, n_features)),
            centre=rng.normal(0.0, 0.1, n_features),
            inv_var=rng.uniform(0.0, 2.0 / n_features, n_features),
            n_basis=n_basis,
            novelty_var=0.25,
        )
        for _ in range(20):
            features = rng.normal(0.0, 1.5, n_features)
            good = p_good(*logits(arrays, features))
            other = rng.normal(0.0, 1e4, n)
            ours: tuple[Floats, ...] = (np.empty(n), np.empty(n), np.empty(n))
            known = kernel.appraise(
                features, arrays.product, arrays.centre, arrays.inv_var, arrays.theta,
                arrays.variance, arrays.own_sd, arrays.loadings, other,
                n_basis, arrays.novelty_var, 1e6, 0.5, *ours,
            )  # fmt: skip
            sd = good * (1.0 - good) * arrays.own_sd
            worth = other + 1e6 * np.minimum(good + 0.5 * sd, 1.0)
            for mine, theirs in zip(ours, (good, sd, worth), strict=True):
                if known != 1 or mine.tobytes() != theirs.tobytes():
                    return False
    return True
