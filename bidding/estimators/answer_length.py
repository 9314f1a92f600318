"""How a prompt's features bend the length of its answer: one shared slope, all models alike.

Means per model and task belong to `tokens.py`; this adds what is common to all models: a hard
or long question makes every model write more. Ridge on the logarithm of output tokens, each
model's mean taken off first. The prediction of tokens multiplies by the mean of exp(residual)
(Duan's smearing), since costs are averages of tokens, not of their logarithms.

References
----------
Duan (1983), Smearing estimate: a nonparametric retransformation method, JASA 78.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RIDGE: Final = 30.0


class LengthSlope(NamedTuple):
    """Log output tokens = `log_mean`_model + `weights` · (features − `centre`).

    Attributes
    ----------
    log_mean, smearing : (n_models,)
    weights, centre : (n_features,)
    """

    log_mean: Floats
    smearing: Floats
    weights: Floats
    centre: Floats

    def log_tokens(self, features: Floats) -> Floats:
        """Expected log output tokens: (..., n_models)."""
        shared = (features - self.centre) @ self.weights
        log: Floats = shared[..., None] + self.log_mean
        return log

    def tokens(self, features: Floats) -> Floats:
        """Expected output tokens: (..., n_models)."""
        tokens: Floats = np.exp(self.log_tokens(features)) * self.smearing
        return tokens


def fit_length(features: Floats, out_tokens: Floats, ridge: float = RIDGE) -> LengthSlope:
    """The slope of a table of answers, (n_prompts, n_models) with NaN where unknown.

    A model without any answer gets the mean of the others.
    """
    log = np.log(np.maximum(out_tokens, 1.0))
    known = np.isfinite(log)
    n = known.sum(axis=0)
    overall = float(np.nanmean(log)) if known.any() else 0.0
    log_mean = np.where(n > 0, np.where(known, log, 0.0).sum(axis=0) / np.maximum(n, 1), overall)
    away = np.where(known, log - log_mean, 0.0)
    n_models = known.sum(axis=1)
    shared = away.sum(axis=1) / np.maximum(n_models, 1)
    centre = features.mean(axis=0)
    x = features - centre
    mass = (n_models > 0).astype(np.float64)
    inner = x.T @ (x * mass[:, None]) + ridge * np.eye(x.shape[1])
    weights = np.linalg.solve(inner, x.T @ (shared * mass))
    residual = np.where(known, log - log_mean - (x @ weights)[:, None], 0.0)
    smeared = np.where(known, np.exp(residual), 0.0).sum(axis=0) / np.maximum(n, 1)
    return LengthSlope(log_mean, np.where(n > 0, smeared, 1.0), weights, centre)
