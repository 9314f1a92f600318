"""Two sellers asked for one answer: the second after a silence of the first, whoever is first."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from broker.attempt import Attempt
from broker.errors import SellersFailed
from broker.wire.neutral import Failed

_ASK_AGAIN_S = 0.1
"""How soon to see again whether somebody else may be asked."""


async def race(
    first: Attempt,
    hedge_ms: float,
    another: Callable[[set[str]], Awaitable[Attempt | None]],
    note: Callable[[Attempt, Failed], None],
    *,
    whole: bool,
) -> tuple[Attempt, Failed | None]:
    """`first`, and after `hedge_ms` of silence the next best as well.

    Where one of two fails and the other is silent still, the next best takes its place.

    Parameters
    ----------
    another : callable
        Begins the next best attempt beside the offers given; None where nobody may be asked as
        well: then `first` is given up when it would be without hedging, if only for another.
    note : callable
        Takes each attempt that failed.

    Returns
    -------
    tuple of (Attempt, Failed or None)
        The winner and None, or the attempt that ended last and how.
    """
    running = {asyncio.ensure_future(first.start(whole=whole)): first}
    timeout: float | None = hedge_ms * 1e-3
    denied = False
    last: tuple[Attempt, Failed | None] | None = None

    async def ask_another() -> bool:
        other = await another({attempt.seat.offer.id for attempt in running.values()})
        if other is not None:
            running[asyncio.ensure_future(other.start(whole=whole))] = other
        return other is not None

    try:
        while running:
            done, _ = await asyncio.wait(
                running, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                timeout = None
                if first.meter.first_ns is not None:
                    continue
                if denied and first.gives_way():
                    given_up = first.give_up("silence")
                    note(first, given_up)
                    return first, given_up
                if not await ask_another():
                    denied, timeout = True, max(first.overdue_in_s, _ASK_AGAIN_S)
            for task in done:
                attempt = running.pop(task)
                failed = task.result()
                last = (attempt, failed)
                if failed is None:
                    return last
                note(attempt, failed)
            silent = all(attempt.meter.first_ns is None for attempt in running.values())
            if done and running and silent:
                await ask_another()
    finally:
        for task, attempt in running.items():
            if last is not None and last[1] is None:
                attempt.lose()
            task.cancel()
        if running:
            await asyncio.gather(*running, return_exceptions=True)
        for attempt in running.values():
            attempt.hang_up()
    if last is None:
        raise SellersFailed([])
    return last
