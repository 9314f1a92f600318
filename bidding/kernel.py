"""The hot path compiled: the same answers bit for bit as the array path, in fewer microseconds.

Optional (extra `[kernel]`). What is compiled is plain Python (`bidding.kernel_bids`,
`bidding.kernel_prompt`); `compiled()` gives it through numba, after it has seen it agree with the
array path on numbers of every size. Where numba is absent or disagrees there is no kernel, and
nothing but speed differs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bidding import bid_columns, kernel_bids, kernel_prompt
from bidding.bid_columns import GOOD, LEAST_GOOD, N_PLAIN, WORTH
from bidding.columns import Floats
from bidding.estimators.quality_skill import SkillArrays, logits, p_good


@dataclass(frozen=True, slots=True)
class Kernel:
    """The compiled functions; see `kernel_bids` and `kernel_prompt`."""

    fill: Callable[..., int]
    hold: Callable[..., int]
    appraise: Callable[..., int]


def compiled() -> Kernel | None:
    """The kernel; None without numba, or where its numbers are not those of the array path.

    Notes
    -----
    Imports numba: one to three seconds of processor time, so call it beside the work, not
    before it. Machine code is kept on disk beside the sources where that can be written.
    """
    try:
        import numba
        from numba.extending import register_jitable
    except ImportError:
        return None
    for part in (kernel_bids._uniform, kernel_bids._is_safe, kernel_bids._explore):
        register_jitable(part)
    register_jitable(kernel_prompt._pairwise)
    reals, table = numba.float64[::1], numba.float64[:, ::1]
    kept = numba.types.Array(numba.float64, 1, "C", readonly=True)
    places = numba.int64[::1]
    real, whole = numba.float64, numba.int64
    fill_types = whole(table, places, *[kept] * 7, *[real] * 4)
    hold_types = whole(
        table, places, reals, reals, real, real, real, whole, real, whole, whole,
        numba.uint64, table, table,
    )  # fmt: skip
    appraise_types = whole(
        reals, table, reals, reals, reals, reals, reals, table, reals,
        whole, real, real, real, real, reals, table,
    )  # fmt: skip

    def build(cache: bool) -> Kernel:
        made: Any = numba.njit
        return Kernel(
            fill=made(fill_types, cache=cache, error_model="numpy")(kernel_bids.fill),
            hold=made(hold_types, cache=cache, error_model="numpy")(kernel_bids.hold),
            appraise=made(appraise_types, cache=cache, error_model="numpy")(kernel_prompt.appraise),
        )

    try:
        kernel = build(cache=True)
    except (RuntimeError, OSError):
        kernel = build(cache=False)
    return kernel if agrees(kernel) else None


def agrees(kernel: Kernel) -> bool:
    """Whether the kernel fills slates and appraises prompts as the array path does, bit for bit.

    What an auction adds is sums, products and comparisons alone, which no machine does otherwise.
    """
    rng = np.random.default_rng(13)
    return _fills_alike(kernel, rng) and _appraises_alike(kernel, rng)


def _fills_alike(kernel: Kernel, rng: np.random.Generator) -> bool:
    for n in (1, 9, 64):
        rows = np.flatnonzero(rng.random(n) < 0.8)
        facts = [rng.exponential(1e6, n), rng.exponential(1e3, n), *rng.random((3, n))]
        facts += [rng.exponential(50.0, n), rng.exponential(1e4, n)]
        told: tuple[Any, ...] = (*facts, 1e6, 1e5, 0.5, 1.0)
        ours, theirs = np.zeros((N_PLAIN, len(rows))), np.zeros((N_PLAIN, len(rows)))
        kernel.fill(ours, rows, *told)
        bid_columns.fill(theirs, rows, *told)
        if ours.tobytes() != theirs.tobytes():
            return False
    return True


def _appraises_alike(kernel: Kernel, rng: np.random.Generator) -> bool:
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
            sd = good * (1.0 - good) * arrays.own_sd
            other = rng.normal(0.0, 1e4, n)
            worth = other + 1e6 * bid_columns.optimistic(good, sd, 0.5)
            least = bid_columns.least_good(good, sd, 1.0)
            our_sd, ours = np.empty(n), np.zeros((N_PLAIN, n))
            known = kernel.appraise(
                features, arrays.product, arrays.centre, arrays.inv_var, arrays.theta,
                arrays.variance, arrays.own_sd, arrays.loadings, other,
                n_basis, arrays.novelty_var, 1e6, 0.5, 1.0, our_sd, ours,
            )  # fmt: skip
            mine = (ours[GOOD], our_sd, ours[WORTH], ours[LEAST_GOOD])
            if known != 1 or not _same_bits(mine, (good, sd, worth, least)):
                return False
    return True


def _same_bits(ours: tuple[Floats, ...], theirs: tuple[Floats, ...]) -> bool:
    return all(a.tobytes() == b.tobytes() for a, b in zip(ours, theirs, strict=True))
