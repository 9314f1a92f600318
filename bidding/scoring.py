"""P(on time) of every offer for one kind of request: the latency model's, and failures are late."""

from __future__ import annotations

from typing import Final

import numpy as np

from bidding.columns import Floats
from bidding.estimators import on_time
from bidding.view import QuoteColumns

_LEAST_N: Final = 0.1
"""Calls an offer never heard of counts as: its calls differ by a third as much as offers do."""


def p_on_time(
    quotes: QuoteColumns,
    *,
    ttft_ms: float | None,
    latency_ms: float | None,
    input_tokens: float,
    out_tokens: Floats,
    n_inflight: Floats,
    optimism_sd: float = 0.0,
) -> Floats:
    """Probability that each offer meets the deadlines, shape (n_offers,); ones without any.

    Parameters
    ----------
    ttft_ms, latency_ms : float or None
        Deadlines for the first token and for the whole answer, milliseconds.
    out_tokens : ndarray, (n_offers,)
        Expected answer length, tokens.
    optimism_sd : float
        How many standard errors of the mean TTFT to give an offer the benefit of; the chance is
        then that of calls about this mean. 0: the chance of the next call, all doubt included.
    """
    if ttft_ms is None and latency_ms is None:
        return np.ones(len(quotes.fail_share))
    latency = quotes.latency
    if optimism_sd:
        # Of the next call's variance, a part 1 / (n + 1) is doubt of the mean. The benefit is given
        # against that doubt, so it is not held against the offer once more as spread of its calls.
        doubt = 1.0 / (np.maximum(latency.ttft_n, _LEAST_N) + 1.0)
        latency = latency._replace(
            ttft_log_ms=latency.ttft_log_ms - optimism_sd * latency.ttft_log_sd * np.sqrt(doubt),
            ttft_log_sd=latency.ttft_log_sd * np.sqrt(1.0 - doubt),
        )
    share = on_time.p_on_time(
        latency,
        ttft_deadline_ms=ttft_ms,
        latency_deadline_ms=latency_ms,
        input_tokens=input_tokens,
        output_tokens=out_tokens,
        n_inflight=n_inflight,
    )
    return share * (1.0 - quotes.fail_share)
