"""P(good) of one prompt: a slate seen with the prompt's own features."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final

import numpy as np

from bidding.bid_columns import GOOD, LEAST_GOOD, WORTH, least_good, optimistic
from bidding.columns import Floats
from bidding.estimators.quality_skill import logits, p_good
from bidding.kernel import Kernel
from bidding.request import Sla
from bidding.slate import Slate

_FLOOR_NUSD: Final = 1e15
_MOST_IN_ORDER: Final = 128
"""Features up to which the kernel adds in numpy's order."""


def for_prompt(
    slate: Slate, features: tuple[float, ...], sla: Sla, kernel: Kernel | None = None
) -> Slate:
    """The slate with P(good) for this very prompt.

    Features of another length than the task's model knows, or not finite, say nothing: the
    slate stays. A strict floor is held against the prompt's own P(good) too: bids below it lose
    all worth, unless nobody reaches it.
    """
    skill = slate.skill
    n_features = len(features)
    if n_features != skill.n_features or not slate.row_list:
        return slate
    asked = as_array(features)
    columns = slate.columns.copy()
    if kernel is not None and n_features <= _MOST_IN_ORDER:
        good_sd = np.empty(columns.shape[1])
        known = kernel.appraise(
            asked, skill.product, skill.centre, skill.inv_var, skill.theta, skill.variance,
            skill.own_sd, skill.loadings, slate.other_worth_nusd, skill.n_basis,
            skill.novelty_var, slate.quality_price_nusd, slate.bonus_sd, slate.doubt_sd,
            good_sd, columns,
        )  # fmt: skip
        if not known:
            return slate
    else:
        logit, logit_sd = logits(skill, asked)
        if logit is skill.theta:
            return slate
        good = p_good(logit, logit_sd)
        good_sd = good * (1.0 - good) * skill.own_sd
        columns[GOOD] = good
        columns[WORTH] = slate.other_worth_nusd + slate.quality_price_nusd * optimistic(
            good, good_sd, slate.bonus_sd
        )
        columns[LEAST_GOOD] = least_good(good, good_sd, slate.doubt_sd)
    feasible = slate.feasible
    if slate.has_floors:
        good = columns[GOOD]
        short = good < (sla.quality or 0.0)
        if short.all():
            feasible = False
            columns[WORTH] += good * _FLOOR_NUSD
        else:
            columns[WORTH][short] = -_FLOOR_NUSD
    return slate.with_quality(columns, good_sd, feasible)


def as_array(features: tuple[float, ...]) -> Floats:
    """The features as an array, packed into its bytes, which is quickest."""
    array = np.empty(len(features))
    _packer(len(features)).pack_into(array.data, 0, *features)
    return array


@lru_cache(maxsize=64)
def _packer(n: int) -> struct.Struct:
    return struct.Struct(f"{n}d")
