"""How long an offer may keep a request waiting, and when to ask the runner-up beside it.

Until it is very likely broken (far in the tail of its own quote), or until the last moment at
which the runner-up could still be on time, if that comes first; but never so early that a sound
offer is often abandoned, since then we pay twice for nothing. Who is asked next is
`bidding.fallback`'s to say.

References
----------
Dean and Barroso, "The tail at scale" (2013).
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Annotated, Final, NamedTuple

from msgspec import Meta, Struct

from bidding.quote import Quote

_NORMAL = NormalDist()
_SQRT2 = math.sqrt(2.0)
GAP_TOKENS: Final = 200
"""Sellers pause between bursts of tokens, but hardly for as long as so many tokens take."""
_KNOWN_PACE_CALLS = 3.0
_KNOWN_PACE_TOKENS = 16.0
_DOUBTED_TARGETS = 0.5
_DOUBTED_MEDIANS = 3.0
Probability = Annotated[float, Meta(gt=0.0, lt=1.0)]
PositiveMs = Annotated[float, Meta(gt=0.0)]


class WaitRules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How patient to be.

    `tail` is the quantile of an offer's own first token past which it counts as broken, when
    there is a deadline (AWS: the accepted share of false timeouts); `hasty_tail` the lowest
    quantile at which it may be abandoned for the runner-up's sake; `finish_tail` the quantile
    of the runner-up's finish that has to fit into what is left. Without a deadline an offer
    gets `patience` times its tail. `silent_tail` is the quantile of its first token past which a
    call counts as silent, no sooner than `least_silent_ms`: it is waited for still, but others are
    not sent after it. `least_ms` and `most_ms` bound the wait whatever the quote.
    """

    tail: Probability = 0.995
    hasty_tail: Probability = 0.9
    finish_tail: Probability = 0.9
    silent_tail: Probability = 0.9
    least_silent_ms: PositiveMs = 100.0
    patience: Annotated[float, Meta(ge=1.0, le=100.0)] = 3.0
    least_ms: PositiveMs = 250.0
    most_ms: PositiveMs = 60_000.0
    max_attempts: Annotated[int, Meta(ge=1, le=16)] = 5
    min_useful_ms: PositiveMs = 20.0
    max_same_offer: Annotated[int, Meta(ge=1, le=5)] = 2
    backoff_ms: PositiveMs = 100.0


class Forecast(NamedTuple):
    """What is believed of an offer's next call: log-normal first token and time per token.

    `tpot_n` is how many calls the time per token was learnt from.
    """

    ttft_log_ms: float
    ttft_log_sd: float
    tpot_log_ms: float
    tpot_log_sd: float = 0.0
    tpot_n: float = math.inf

    @classmethod
    def of(cls, quote: Quote) -> Forecast:
        """The forecast in a quote."""
        return cls(
            quote.ttft_log_ms,
            quote.ttft_log_sd,
            quote.tpot_log_ms,
            quote.tpot_log_sd,
            quote.tpot_n,
        )

    def ttft_ms(self, quantile: float) -> float:
        """The first token's delay at `quantile`.

        Examples
        --------
        >>> round(Forecast(math.log(200), 0.5, math.log(10)).ttft_ms(0.5))
        200
        """
        exponent = self.ttft_log_ms + _NORMAL.inv_cdf(quantile) * self.ttft_log_sd
        return math.exp(min(exponent, 50.0))

    def writing_ms(self, n_tokens: float) -> float:
        """Expected time for `n_tokens` further tokens."""
        return n_tokens * math.exp(min(self.tpot_log_ms + 0.5 * self.tpot_log_sd**2, 50.0))

    def finish_ms(self, quantile: float, n_tokens: float) -> float:
        """The whole answer's delay at `quantile` of its first token."""
        return self.ttft_ms(quantile) + self.writing_ms(n_tokens)

    def p_first_within(self, ms: float) -> float:
        """P(first token within `ms`)."""
        if ms <= 0.0:
            return 0.0
        z = (math.log(ms) - self.ttft_log_ms) / max(self.ttft_log_sd, 1e-9)
        return 0.5 * math.erfc(-z / _SQRT2)


class Aim(NamedTuple):
    """What is left of a request's times, ms from now; None where nothing was asked.

    `hard_ms` ends the request whatever happens; `ttft_ms` and `latency_ms` are the SLA's, which
    may be missed. `n_tokens` is the expected length of the answer.
    """

    hard_ms: float
    ttft_ms: float | None = None
    latency_ms: float | None = None
    n_tokens: float = 0.0

    def first_token_by_ms(self, forecast: Forecast) -> float | None:
        """By when `forecast`'s offer must show its first token to keep both; None: no target."""
        by = self.ttft_ms
        if self.latency_ms is not None:
            left = self.latency_ms - forecast.writing_ms(self.n_tokens)
            by = left if by is None else min(by, left)
        return by


def first_token_timeout_ms(
    own: Forecast | None,
    runner_up: Forecast | None,
    aim: Aim,
    rules: WaitRules,
    *,
    alone: bool = False,
) -> float:
    """How long to wait for an offer's first token before turning to the runner-up, ms.

    Parameters
    ----------
    own : Forecast or None
        Of the offer that is asked; None if nothing is known of it.
    runner_up : Forecast or None
        Of who would be asked next; None if there is nobody, or nothing is known of it.
    aim : Aim
        Times left as the offer is asked.
    alone : bool
        Nobody is left to turn to: then a late answer is better than none.

    Returns
    -------
    float
        At least `least_ms` and at most `most_ms`, and never more than is left altogether.
    """
    target = aim.latency_ms if aim.ttft_ms is None else aim.ttft_ms
    if alone:
        wait = rules.most_ms
    elif own is None:
        wait = rules.most_ms if target is None else max(_DOUBTED_TARGETS * target, rules.least_ms)
    else:
        tail = own.ttft_ms(rules.tail)
        wait = tail * rules.patience if target is None else min(tail, _most_ms(own, target, rules))
        if runner_up is not None:
            latest = _latest_start_ms(runner_up, aim, rules)
            if latest is not None and 0.0 < latest < wait:
                wait = max(latest, own.ttft_ms(rules.hasty_tail))
    return min(max(wait, rules.least_ms), rules.most_ms, max(aim.hard_ms, 0.0))


def _most_ms(own: Forecast, target_ms: float, rules: WaitRules) -> float:
    """Past which a quote's far tail counts for nothing: a wide one is ignorance, not slowness."""
    usual_ms = max(_DOUBTED_MEDIANS * own.ttft_ms(0.5), own.ttft_ms(rules.hasty_tail))
    return max(_DOUBTED_TARGETS * target_ms, usual_ms)


def _latest_start_ms(runner_up: Forecast, aim: Aim, rules: WaitRules) -> float | None:
    """Until when the runner-up can be asked and still be on time; None without a target."""
    by = aim.first_token_by_ms(runner_up)
    return None if by is None else by - runner_up.ttft_ms(rules.finish_tail)


def silent_after_ms(own: Forecast | None, wait_ms: float, rules: WaitRules) -> float:
    """After how much silence at first a call says something of its offer, ms.

    Parameters
    ----------
    own : Forecast or None
        Of the offer that is asked; None where nothing is known, or it answers in one piece: then
        silence says nothing before the timeout.
    wait_ms : float
        How long it is waited for (`first_token_timeout_ms`).
    """
    if own is None:
        return wait_ms
    return min(max(own.ttft_ms(rules.silent_tail), rules.least_silent_ms), wait_ms)


def hedge_after_ms(
    first: Forecast, second: Forecast, aim: Aim, *, n_steps: int = 32
) -> float | None:
    """When to ask the runner-up as well: as soon as it is likelier to be on time than the first
    still is, given that the first has shown nothing yet. None: never, or there is no target.

    Notes
    -----
    P(T1 ≤ d1 | T1 > t) = (F1(d1) − F1(t)) / (1 − F1(t)) is compared with F2(d2 − t), on a grid
    of `n_steps` moments up to the target; 0 is left out, since the auction has just said no.
    """
    by_first = aim.first_token_by_ms(first)
    by_second = aim.first_token_by_ms(second)
    if by_first is None or by_second is None or by_second <= 0.0:
        return None
    at_deadline = first.p_first_within(by_first)
    for i in range(1, n_steps):
        t = by_second * i / n_steps
        shown = first.p_first_within(t)
        chance = (at_deadline - shown) / (1.0 - shown) if shown < 1.0 else 0.0
        other = second.p_first_within(by_second - t)
        if other > max(chance, 0.0) and other > 0.05:
            return t
    return None


def gap_timeout_ms(
    own: Forecast | None, aim: Aim, *, most_ms: float, least_ms: float, unseen: bool
) -> float:
    """How long an offer may be silent within an answer, ms.

    Parameters
    ----------
    own : Forecast or None
        Of the offer that writes; None: it gets `most_ms`.
    unseen : bool
        Nobody has been shown any of it, so that another offer may still take over: then no
        longer than a quarter of what is left of the latency target.

    Notes
    -----
    Sellers send several tokens at a time and pause between them; two hundred times a slow token
    is far beyond that.
    """
    gap = most_ms
    if own is not None:
        slow_token_ms = math.exp(min(own.tpot_log_ms + 2.0 * own.tpot_log_sd, 50.0))
        gap = min(gap, GAP_TOKENS * slow_token_ms)
    if unseen and aim.latency_ms is not None:
        gap = min(gap, 0.25 * aim.latency_ms)
    return min(max(gap, least_ms), most_ms)


def usual_gap_ms(own: Forecast | None, *, most_ms: float, least_ms: float) -> float:
    """The silence within an answer that even a deadline gives an offer, ms.

    A wide quote is ignorance, not slowness: what its slowest token might take is waited for only
    as long as the deadline allows. Two hundred of its usual tokens always are, if its pace is
    known at all; whoever is known to be slow is not cut short, since a late answer is better than
    none.
    """
    if own is None or own.tpot_n < _KNOWN_PACE_CALLS:
        return min(least_ms, most_ms)
    usual_ms = GAP_TOKENS * math.exp(min(own.tpot_log_ms, 50.0))
    return min(max(usual_ms, least_ms), most_ms)


def is_too_slow(
    *,
    elapsed_ms: float,
    writing_ms: float,
    n_written: int,
    aim: Aim,
    own: Forecast | None,
    runner_up: Forecast | None,
    rules: WaitRules,
) -> bool:
    """Whether a stream nobody has seen yet should give way to a runner-up that can still make it.

    Parameters
    ----------
    elapsed_ms : float
        Since the request began; `aim` is as of that moment.
    writing_ms, n_written : float, int
        Time since the first token, and tokens (not events: many sellers send several in one)
        since then.
    own : Forecast or None
        Of the offer that writes. Its pace counts as so many tokens already seen: the first
        few come in bursts and say little.
    """
    if aim.latency_ms is None or runner_up is None or n_written < 4 or writing_ms < 50.0:
        return False
    left = aim.latency_ms - elapsed_ms
    known = 0.0 if own is None else _KNOWN_PACE_TOKENS
    known_ms = 0.0 if own is None else own.writing_ms(known)
    pace_ms = (writing_ms + known_ms) / (n_written + known)
    to_come = max(aim.n_tokens - n_written, 0.0) * pace_ms
    if to_come <= max(left, 0.0) * 1.25 or to_come < 100.0:
        return False
    return runner_up.finish_ms(rules.finish_tail, aim.n_tokens) <= left
