"""What a batch of outcomes says about latency, as columns ready to fold.

Everything that comes in is judged here: what is negative, not finite or absurd is missing (and
counted), what teaches nothing is dropped, a wait in vain becomes a censored observation of the
phase it was spent in, and a call timed only as a whole is split later by the offer's own ratio.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np

from bidding.estimators.decay import Bools, Floats
from bidding.estimators.latency_model import size_of_input, size_of_output
from bidding.outcome import IS_CENSORED, OutcomeBatch

MAX_MS: Final = 1e7
"""Nearly three hours: longer than any call; beyond it, a figure is an error."""
_MIN_MS: Final = 0.01
"""Below it a figure is rounding; of the least that a float holds, even the logarithm fails."""
MIN_LOG_MS: Final = math.log(_MIN_MS)
_MAX_TOKENS: Final = 1e8


class Observations(NamedTuple):
    """Columns of a batch, each (2, n) for TTFT and TPOT or (n,).

    `log_ms` is the observation, or the wait if `waited`; `weight` is 0 where there is none.
    `whole_log_ms` is set (not NaN) where only the whole call was timed.
    """

    log_ms: Floats
    weight: Floats
    waited: Bools
    whole_log_ms: Floats
    further_tokens: Floats
    size: Floats
    busy: Floats
    trust: Floats
    promised: Floats
    dirty: Bools


def observe(batch: OutcomeBatch) -> Observations:
    """Judge a batch; see the module's docstring."""
    failure = np.clip(batch.failure, 0, len(IS_CENSORED) - 1)
    ok = failure == 0
    late = IS_CENSORED[failure]
    ttft, bad_ttft = _duration(batch.ttft_ms)
    total, bad_total = _duration(batch.total_ms)
    wait, bad_wait = _duration(batch.waited_ms)
    tokens_in, bad_in = _count(batch.input_tokens)
    tokens_out, bad_out = _count(batch.output_tokens)
    inflight, bad_inflight = _count(batch.n_inflight)
    trust = np.nan_to_num(np.clip(batch.trust, 0.0, 1.0), nan=0.0)
    known = batch.failure == failure
    trust = np.where(known, trust, 0.0)

    has_first = np.isfinite(ttft)
    further = np.maximum(tokens_out - 1.0, 0.0)
    with np.errstate(invalid="ignore"):
        rest = np.where(ok, total - ttft, wait - ttft)
    has_rest = (rest > 0.0) & np.where(ok, further >= 1.0, True) & (ok | late)
    per_token = np.where(has_rest, rest, 1.0) / np.maximum(further, 1.0)
    first_waited = late & ~has_first & np.isfinite(wait)
    first_ms = np.where(first_waited, wait, np.where(has_first, ttft, 1.0))
    whole = ok & np.isnan(batch.ttft_ms) & np.isfinite(total)

    log_ms = np.log(np.maximum(np.stack([first_ms, per_token]), _MIN_MS))
    seen = np.stack([first_waited | (has_first & (ok | late)), has_rest])
    return Observations(
        log_ms=log_ms,
        weight=np.where(seen, trust, 0.0),
        waited=np.stack([first_waited, late & has_rest]),
        whole_log_ms=np.where(whole, np.log(np.where(whole, np.maximum(total, 1e-2), 1.0)), np.nan),
        further_tokens=further,
        size=np.stack([size_of_input(tokens_in), size_of_output(tokens_out)]),
        busy=np.log1p(inflight),
        trust=trust,
        promised=_promises(batch, first_waited, known & (has_first & (ok | late) | first_waited)),
        dirty=bad_ttft | bad_total | bad_wait | bad_in | bad_out | bad_inflight | ~known,
    )


def _promises(batch: OutcomeBatch, waited: Bools, timed: Bools) -> Floats:
    """Promised chances, NaN where there is none; of a wait in vain the middle of what is left."""
    if not len(batch.ttft_promised):
        return np.full(len(batch), np.nan)
    share = batch.ttft_promised
    good = timed & (share >= 0.0) & (share <= 1.0)
    share = np.where(good, share, np.nan)
    return np.where(waited, 0.5 + 0.5 * share, share)


def _duration(ms: Floats) -> tuple[Floats, Bools]:
    good = (ms >= 0.0) & (ms <= MAX_MS)
    return np.where(good, ms, np.nan), ~good & ~np.isnan(ms)


def _count(counts: Floats) -> tuple[Floats, Bools]:
    good = (counts >= 0.0) & (counts <= _MAX_TOKENS)
    return np.where(good, counts, 0.0), ~good
