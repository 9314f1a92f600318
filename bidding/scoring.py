"""P(on time) of every offer for one kind of request: the latency model's, and failures are late."""

from __future__ import annotations

import numpy as np

from bidding.columns import Floats
from bidding.estimators import on_time
from bidding.view import QuoteColumns


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
        How many standard errors of the mean TTFT to give an offer the benefit of.
    """
    if ttft_ms is None and latency_ms is None:
        return np.ones(len(quotes.fail_share))
    latency = quotes.latency
    if optimism_sd:
        benefit = optimism_sd * latency.ttft_log_sd / np.sqrt(latency.ttft_n + 1.0)
        latency = latency._replace(ttft_log_ms=latency.ttft_log_ms - benefit)
    share = on_time.p_on_time(
        latency,
        ttft_deadline_ms=ttft_ms,
        latency_deadline_ms=latency_ms,
        input_tokens=input_tokens,
        output_tokens=out_tokens,
        n_inflight=n_inflight,
    )
    return share * (1.0 - quotes.fail_share)
