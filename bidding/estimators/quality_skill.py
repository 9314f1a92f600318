"""What gateways read of a task's quality, and the arithmetic of the hot path.

A model's log-odds of a good answer to a prompt with features f are

    logit = theta_m + L_m · B (f − centre)

where the rows of B are the shared difficulty (every model loads on it with 1) and a few
directions in which models differ. The variance is the model's own, widened by what is not
known of the difficulty of such a prompt, and by how far it lies from any seen: the same matrix
product yields all of it, so a prompt costs two small products whatever the market's size.

References
----------
MacKay (1992), The evidence framework applied to classification networks, eq. 6 (probit).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from scipy.special import expit

Floats = NDArray[np.float64]


class TaskSkill(Struct, frozen=True, kw_only=True):
    """Beliefs about one task, as parallel lists over `models`; what `market.skills` carries.

    Attributes
    ----------
    theta, theta_sd : log-odds of a good answer to an ordinary prompt of the task, and how well
        that is known of the model itself (what exploring it could teach)
    n_labels : labels behind it, decayed by nothing
    level_sd : what all models share in not being known; 0 for a task well known
    prompt_sd : spread of difficulty over the task's own prompts, in log-odds
    centre, inv_scale : (n_features,) the task's ordinary prompt, and one over the spread, by
        which distance is measured; 0 for features that do not count in it
    basis : (1 + rank, n_features), difficulty first
    loadings : (n_models, 1 + rank)
    spread : (k, n_features) root of the covariance of difficulty
    novelty_sd : log-odds added per unit of distance beyond the prompts seen
    """

    task: str
    at_us: int
    models: list[str]
    theta: list[float]
    theta_sd: list[float]
    n_labels: list[float]
    level_sd: float = 0.0
    prompt_sd: float = 0.0
    centre: list[float] = []
    inv_scale: list[float] = []
    basis: list[list[float]] = []
    loadings: list[list[float]] = []
    spread: list[list[float]] = []
    novelty_sd: float = 0.0


@dataclass(frozen=True, slots=True)
class SkillArrays:
    """A skill spread over offers: arrays of shape (n_offers, ...), gathered once per view."""

    theta: Floats
    own_sd: Floats
    plain_sd: Floats
    variance: Floats
    loadings: Floats
    product: Floats
    centre: Floats
    inv_var: Floats
    n_basis: int
    novelty_var: float

    @property
    def n_features(self) -> int:
        return len(self.centre)

    def taken(self, rows: NDArray[np.int64]) -> SkillArrays:
        """The same beliefs about the offers at `rows` only."""
        return SkillArrays(
            theta=self.theta[rows],
            own_sd=self.own_sd[rows],
            plain_sd=self.plain_sd[rows],
            variance=self.variance[rows],
            loadings=self.loadings[rows],
            product=self.product,
            centre=self.centre,
            inv_var=self.inv_var,
            n_basis=self.n_basis,
            novelty_var=self.novelty_var,
        )


def skill_arrays(skill: TaskSkill, models: Sequence[str]) -> SkillArrays:
    """The skill gathered for offers of these `models`; one it does not know is the task's mean.

    Parameters
    ----------
    models : sequence of str, (n_offers,)
        Each offer's model.
    """
    place = {model: i for i, model in enumerate(skill.models)}
    n_basis = len(skill.basis)
    theta = np.array([*skill.theta, _mean(skill.theta)])
    sd = np.array([*skill.theta_sd, _unknown_sd(skill)])
    neutral = [1.0] + [0.0] * (n_basis - 1) if n_basis else []
    loadings = np.array([*skill.loadings, neutral]) if n_basis else np.zeros((len(theta), 0))
    rows = np.array([place.get(model, len(skill.models)) for model in models], dtype=np.int64)
    inv_var = np.square(np.array(skill.inv_scale))
    inv_var = inv_var / max(int(np.count_nonzero(inv_var)), 1)
    rows_of_product = [*skill.basis, *skill.spread]
    product = np.array(rows_of_product) if rows_of_product else np.zeros((0, len(inv_var)))
    own = sd[rows]
    variance = np.square(own) + skill.level_sd**2
    return SkillArrays(
        theta=theta[rows],
        own_sd=own,
        plain_sd=np.sqrt(variance + skill.prompt_sd**2),
        variance=variance,
        loadings=np.ascontiguousarray(loadings[rows]),
        product=product,
        centre=np.array(skill.centre),
        inv_var=inv_var,
        n_basis=n_basis,
        novelty_var=skill.novelty_sd**2,
    )


def logits(arrays: SkillArrays, features: Sequence[float] | Floats | None) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each offer's log-odds of a good answer, shape (n_offers,).

    Parameters
    ----------
    features : sequence of float, (n_features,), or None
        Of the prompt. Without, of another length than the skill's, or not finite, the answer is
        that for an ordinary prompt of the task, at no work.

    Notes
    -----
    Sums are taken in an order of our own rather than BLAS's, so that the same prompt has the
    same answer on every machine; `bidding.kernel` sums in the same order.
    """
    if features is None or not len(features) or len(features) != len(arrays.centre):
        return arrays.theta, arrays.plain_sd
    away = features - arrays.centre
    beyond = float((away * away * arrays.inv_var).sum()) - ORDINARY
    z = (arrays.product * away).sum(axis=1)
    if not math.isfinite(beyond):
        return arrays.theta, arrays.plain_sd
    spread = z[arrays.n_basis :]
    shared = float((spread * spread).sum())
    if beyond > 0.0:
        shared += arrays.novelty_var * min(beyond, FARTHEST)
    mean = arrays.theta.copy()
    for direction in range(arrays.n_basis):
        mean += arrays.loadings[:, direction] * z[direction]
    return mean, np.sqrt(arrays.variance + shared)


def p_good(mean: Floats, sd: Floats) -> Floats:
    """Mean of the logistic under Normal(mean, sd²), by MacKay's approximation."""
    averaged: Floats = expit(mean / np.sqrt(1.0 + MACKAY * np.square(sd)))
    return averaged


MACKAY: Final = math.pi / 8.0

ORDINARY: Final = 2.0
"""Mean square distance up to which a prompt counts as like those seen (1 on average)."""

FARTHEST: Final = 8.0
"""Distance beyond which a prompt counts as no stranger still."""


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers) if numbers else 0.0


def _unknown_sd(skill: TaskSkill) -> float:
    """How little is known of a model no one told us of: the models' own spread, at least 1."""
    spread = float(np.std(skill.theta)) if skill.theta else 0.0
    return max(spread, 1.0)
