"""How a prompt's features bend the length of its answer: a shared slope, and each model's own.

Means per model and task belong to `tokens.py`; this adds what a prompt tells: a hard or long
question makes every model write more, some models more than others. Ridge on the logarithm of
output tokens, each model's mean taken off first: the slope common to all, then each model's
departure from it, held back harder. The prediction of tokens is scaled so that its mean over
the answers seen is theirs (a smearing estimate of the ratio kind), since costs are averages of
tokens, not of their logarithms.

References
----------
Duan (1983), Smearing estimate: a nonparametric retransformation method, JASA 78.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RIDGE: Final = 100.0
APART_RIDGE: Final = 300.0
"""Chosen on the learning half of gsm + math-l5: against no departures, 3 % less squared error
of cost.
"""

_LOG_REACH: Final = 1.0
"""Predictions stay within this much of the shortest and the longest answer seen, in logs."""


class LengthSlope(NamedTuple):
    """Log output tokens = `log_mean`_model + (`weights` + `apart`_model) · (features − `centre`).

    Attributes
    ----------
    log_mean, smearing : (n_models,)
    weights, centre : (n_features,)
    apart : (n_models, n_features)
    low, high : bounds of predicted log tokens
    """

    log_mean: Floats
    smearing: Floats
    weights: Floats
    apart: Floats
    centre: Floats
    low: float
    high: float

    def log_tokens(self, features: Floats) -> Floats:
        """Expected log output tokens: (..., n_models)."""
        log = (features - self.centre) @ (self.weights + self.apart).T + self.log_mean
        bounded: Floats = np.clip(log, self.low, self.high)
        return bounded

    def tokens(self, features: Floats) -> Floats:
        """Expected output tokens: (..., n_models)."""
        tokens: Floats = np.exp(self.log_tokens(features)) * self.smearing
        return tokens


def fit_length(
    features: Floats, out_tokens: Floats, ridge: float = RIDGE, apart_ridge: float = APART_RIDGE
) -> LengthSlope:
    """The slope of a table of answers, (n_prompts, n_models) with NaN where unknown.

    A model without any answer gets the mean of the others.
    """
    known = np.isfinite(out_tokens)
    log = np.where(known, np.log(np.maximum(np.where(known, out_tokens, 1.0), 1.0)), 0.0)
    n = known.sum(axis=0)
    overall = float(log.sum() / max(int(n.sum()), 1))
    log_mean = np.where(n > 0, log.sum(axis=0) / np.maximum(n, 1), overall)
    away = np.where(known, log - log_mean, 0.0)
    n_models = known.sum(axis=1)
    centre = features.mean(axis=0)
    x = features - centre
    eye = np.eye(x.shape[1])
    mass = (n_models > 0).astype(np.float64)
    shared = away.sum(axis=1) / np.maximum(n_models, 1)
    weights = np.linalg.solve(x.T @ (x * mass[:, None]) + ridge * eye, x.T @ (shared * mass))
    left = np.where(known, away - (x @ weights)[:, None], 0.0)
    apart = np.linalg.solve(x.T @ x + apart_ridge * eye, x.T @ left).T
    low, high = (
        (float(log[known].min()) - _LOG_REACH, float(log[known].max()) + _LOG_REACH)
        if known.any()
        else (0.0, 0.0)
    )
    plain = LengthSlope(log_mean, np.ones(len(n)), weights, apart, centre, low, high)
    predicted = np.where(known, plain.tokens(features), 0.0).sum(axis=0)
    seen = np.where(known, out_tokens, 0.0).sum(axis=0)
    typical = float(seen.sum() / max(predicted.sum(), 1e-9)) if known.any() else 1.0
    return plain._replace(
        smearing=np.where(n > 0, seen / np.maximum(predicted, 1e-9), typical),
    )
