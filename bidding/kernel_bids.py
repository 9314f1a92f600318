"""The auction's arithmetic in plain loops, to be compiled: the columns of bids, and the auction.

Each does what its array twin does, bit for bit: `fill` that of `bidding.bid_columns`, `hold`
what `bidding.auction` and `bidding.exploration` do by arrays. The order of every sum and product
is theirs; nothing here may be reordered or fused.
"""

from __future__ import annotations

import math

import numpy as np

from bidding.bid_columns import (
    BURN_IN_SHARE,
    FIXED,
    GOOD,
    LEAST_GOOD,
    LEAST_ON_TIME,
    MAX_FACTOR,
    MAX_LOSS,
    N_SCARCE,
    ON_TIME,
    PRICE,
    PUNCTUALITY,
    QUALITY,
    SHADOW,
    SHADOW_TOKEN,
    SHARE,
    WORTH,
)
from bidding.columns import Floats, Ints


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
) -> int:
    """See `bidding.bid_columns.fill`."""
    for i in range(rows.shape[0]):
        row = rows[i]
        p = good[row]
        sd = good_sd[row]
        t = on_time[row]
        columns[FIXED, i] = fixed[row]
        columns[PRICE, i] = price[row]
        columns[GOOD, i] = p
        columns[ON_TIME, i] = t
        worth = punctuality_price * t
        worth -= harm[row]
        worth += quality_price * min(p + bonus_sd * sd, 1.0)
        columns[WORTH, i] = worth
        columns[LEAST_GOOD, i] = max(p - doubt_sd * sd, 0.0)
        late_sd = math.sqrt(t * (1.0 - t) / (evidence_n[row] + 1.0))
        columns[LEAST_ON_TIME, i] = max(t - doubt_sd * late_sd, 0.0)
    return 1


def hold(
    columns: Floats,
    fresh: Ints,
    rules: Floats,
    extra: Floats,
    tokens: float,
    scale: float,
    ceiling: float,
    warm: int,
    saved: float,
    k: int,
    exploring: int,
    seed: int,
    work: Floats,
    out: Floats,
) -> int:
    """Hold an auction: score every bid, rank the best `k`, explore.

    Parameters
    ----------
    columns : ndarray, (N_PLAIN or N_SCARCE, n)
    fresh : int ndarray
        Places of the newcomers.
    rules : ndarray, (N_RULES,)
    extra : ndarray, (n,) or empty
        What else is added to the score.
    tokens, scale, ceiling : float
        Of the prompt; `BidRequest.worth_scale`; most the request may cost, nusd.
    warm, saved : int, float
        Which bid has part of the prompt cached (-1: none), and what that saves it, nusd.
    k, exploring, seed : int
        How many are ranked; whether it may explore (0 or 1); 64 bits without sign.
    work : ndarray, (2, n)
        Written: costs and scores; the score of a bid above the ceiling becomes infinite.
    out : ndarray, (k + 3, N_OUT)
        Written: the bids in order, the winner first; in the last three rows the bid with the
        highest P(good), the one with the lowest cost, and the winner's propensity.

    Returns
    -------
    int
        How many bids are above the ceiling.
    """
    n = columns.shape[1]
    for i in range(n):
        work[0, i] = columns[FIXED, i] + columns[PRICE, i] * tokens
    if warm >= 0:
        work[0, warm] -= saved
    for i in range(n):
        work[1, i] = work[0, i] - columns[WORTH, i] * scale
    if columns.shape[0] == N_SCARCE:
        for i in range(n):
            work[1, i] += columns[SHADOW, i] + columns[SHADOW_TOKEN, i] * tokens
    if extra.shape[0] == n:
        for i in range(n):
            work[1, i] += extra[i]
    n_above = 0
    n_kept = 0
    best = 0
    cheapest = 0
    for i in range(n):
        c = work[0, i]
        if columns[GOOD, i] > columns[GOOD, best] or (
            columns[GOOD, i] == columns[GOOD, best] and c < work[0, best]
        ):
            best = i
        if c < work[0, cheapest]:
            cheapest = i
        if not c <= ceiling:
            work[1, i] = math.inf
            n_above += 1
            continue
        s = work[1, i]
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
    propensity = 1.0
    if exploring != 0 and n_kept > 0:
        propensity = _explore(columns, fresh, rules, n_kept, seed, work, out)
    out[k, 0] = best
    out[k + 1, 0] = cheapest
    for j in range(k + 2):
        if j < n_kept or j >= k:
            i = int(out[j, 0])
            out[j, 1] = work[1, i]
            out[j, 2] = work[0, i]
            out[j, 3] = columns[GOOD, i]
            out[j, 4] = columns[ON_TIME, i]
    out[k + 2, 0] = propensity
    return n_above


def _explore(
    columns: Floats,
    fresh: Ints,
    rules: Floats,
    n_kept: int,
    seed: int,
    work: Floats,
    out: Floats,
) -> float:
    """Perhaps put another bid first; the winner's propensity. See `exploration.explore`."""
    best = int(out[0, 0])
    worst = out[0, 1] + rules[MAX_LOSS]
    dearest = out[0, 2] * rules[MAX_FACTOR]
    quality = rules[QUALITY]
    if quality >= 0.0:
        quality = min(quality, columns[LEAST_GOOD, best])
    punctuality = rules[PUNCTUALITY]
    if punctuality >= 0.0:
        punctuality = min(punctuality, columns[LEAST_ON_TIME, best])
    share = rules[SHARE]
    burn_in = rules[BURN_IN_SHARE]
    n_safe = 1
    for j in range(1, n_kept):
        if out[j, 1] > worst:
            break
        if _is_safe(columns, int(out[j, 0]), out[j, 2], dearest, quality, punctuality):
            n_safe += 1
    n_fresh = 0
    for f in range(fresh.shape[0]):
        i = fresh[f]
        if i != best and work[1, i] <= worst and work[0, i] <= dearest:
            n_fresh += 1
    if n_safe < 2:
        share = 0.0
    if n_fresh == 0:
        burn_in = 0.0
    if share + burn_in <= 0.0:
        return 1.0
    drawn = _uniform(seed, 0)
    chosen = best
    if drawn < share:
        left = int(_uniform(seed, 1) * n_safe)
        for j in range(1, n_kept):
            if left == 0 or out[j, 1] > worst:
                break
            i = int(out[j, 0])
            if _is_safe(columns, i, out[j, 2], dearest, quality, punctuality):
                chosen = i
                left -= 1
    elif drawn < share + burn_in:
        left = int(_uniform(seed, 1) * n_fresh)
        for f in range(fresh.shape[0]):
            i = fresh[f]
            if i != best and work[1, i] <= worst and work[0, i] <= dearest:
                if left == 0:
                    chosen = i
                    break
                left -= 1
    at = n_kept - 1
    safe = chosen == best
    for j in range(n_kept):
        if int(out[j, 0]) == chosen:
            at = j
            safe = safe or (
                out[j, 1] <= worst
                and _is_safe(columns, chosen, out[j, 2], dearest, quality, punctuality)
            )
            break
    propensity = 1.0 - share - burn_in if chosen == best else 0.0
    if share > 0.0 and safe:
        propensity += share / n_safe
    if chosen != best:
        for f in range(fresh.shape[0]):
            i = fresh[f]
            if i == chosen and work[1, i] <= worst and work[0, i] <= dearest:
                propensity += burn_in / n_fresh
        for j in range(at, 0, -1):
            out[j, 0] = out[j - 1, 0]
        out[0, 0] = chosen
    return propensity


def _is_safe(
    columns: Floats,
    i: int,
    cost: float,
    dearest: float,
    quality: float,
    punctuality: float,
) -> bool:
    return (
        cost <= dearest
        and (quality < 0.0 or columns[LEAST_GOOD, i] >= quality)
        and (punctuality < 0.0 or columns[LEAST_ON_TIME, i] >= punctuality)
    )


def _uniform(seed: int, n: int) -> float:
    """See `bidding.draws.uniform`, whose arithmetic is that of 64 bits without sign."""
    z = np.uint64(seed) + np.uint64(n + 1) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return float((z ^ (z >> np.uint64(31))) >> np.uint64(11)) * (1.0 / 9007199254740992.0)
