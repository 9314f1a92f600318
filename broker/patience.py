"""How long to wait for a seller: for its first token, between tokens, before asking another too.

The rules are `bidding.fallback`'s and pure; here they meet an order's deadlines and what is
believed of the sellers now.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bidding.waiting import (
    first_token_timeout_ms,
    gap_timeout_ms,
    hedge_after_ms,
    is_too_slow,
    silent_after_ms,
    usual_gap_ms,
)
from broker.attempt import Attempt
from broker.attempt_clocks import Waits
from broker.order import Order
from broker.providers.base import Seat
from broker.sellers import Ended, Sellers

_PATIENT = 4.0
"""How much longer an offer may keep us waiting when the runner-up is asked meanwhile."""


def waits_for(
    sellers: Sellers,
    order: Order,
    seats: Sequence[Seat],
    place: int,
    ended: Ended,
    waiting: set[str],
    *,
    stream: bool,
    whole: bool,
    patient: bool,
) -> Waits:
    """The limits of an attempt at `seats[place]`. A `patient` one will be hedged, not given up."""
    rules = sellers.settings.wait
    own = sellers.forecast(seats[place].offer.id)
    aim = order.aim(sellers.clock.monotonic_ns())
    runner_up = sellers.runner_up(order, seats, place, ended, waiting)
    wait_ms = first_token_timeout_ms(
        own,
        None if runner_up is None else sellers.forecast(runner_up),
        aim,
        rules,
        alone=runner_up is None,
    )
    if not stream:
        writing = 0.0 if own is None else own.writing_ms(3.0 * order.output_tokens)
        wait_ms = min(wait_ms + writing, aim.hard_ms) if own is not None else aim.hard_ms
    overdue_ms = wait_ms
    if patient:
        wait_ms = min(wait_ms * _PATIENT, aim.hard_ms)
    most_gap_ms = sellers.settings.gap_ms
    least_gap_ms = min(sellers.settings.least_gap_ms, most_gap_ms)
    writer = own if stream else None
    gap_ms = gap_timeout_ms(
        writer,
        aim,
        most_ms=most_gap_ms,
        least_ms=least_gap_ms,
        unseen=whole and stream and runner_up is not None,
    )
    alone_ms = first_token_timeout_ms(own, None, aim, rules, alone=True) if stream else aim.hard_ms
    usual_ms = usual_gap_ms(writer, most_ms=gap_ms, least_ms=least_gap_ms) if stream else gap_ms
    return Waits(
        first_token_ns=round(wait_ms * 1e6),
        overdue_ns=round(overdue_ms * 1e6),
        silent_ns=round(silent_after_ms(writer, overdue_ms, rules) * 1e6),
        gap_ns=round(gap_ms * 1e6),
        alone_ns=round(alone_ms * 1e6),
        alone_gap_ns=round(most_gap_ms * 1e6),
        usual_gap_ns=round(usual_ms * 1e6),
        target_ns=order.latency_target_ns if order.is_promised else None,
    )


def hedge_ms(
    sellers: Sellers, order: Order, seats: Sequence[Seat], place: int, ended: Ended
) -> float | None:
    """After how much silence of `seats[place]` the next best is asked as well; None: never."""
    if not (sellers.settings.hedge and order.hedge and sellers.may_hedge()):
        return None
    own = sellers.forecast(seats[place].offer.id)
    other = sellers.runner_ups_forecast(order, seats, place, ended)
    if own is None or other is None:
        return None
    aim = order.aim(sellers.clock.monotonic_ns())
    patience_ms = first_token_timeout_ms(own, other, aim, sellers.settings.wait)
    early_ms = hedge_after_ms(own, other, aim)
    return patience_ms if early_ms is None else min(early_ms, patience_ms)


def slowness(
    sellers: Sellers, order: Order, seats: Sequence[Seat], place: int, ended: Ended
) -> Callable[[Attempt, int], bool] | None:
    """Whether an answer that nobody has seen yet should give way; None without a deadline."""
    if order.latency_target_ns is None:
        return None
    aim = order.aim(order.started_ns)._replace(ttft_ms=None)

    def too_slow(attempt: Attempt, now_ns: int) -> bool:
        meter = attempt.meter
        if meter.first_ns is None:
            return False
        return is_too_slow(
            elapsed_ms=(now_ns - order.started_ns) * 1e-6,
            writing_ms=(now_ns - meter.first_ns - attempt.clocks.stood_still_ns) * 1e-6,
            n_written=meter.n_tokens_since_first(),
            aim=aim,
            own=sellers.forecast(seats[place].offer.id),
            runner_up=sellers.runner_ups_forecast(order, seats, place, ended),
            rules=sellers.settings.wait,
        )

    return too_slow
