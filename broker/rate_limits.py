"""A key's limits of requests and tokens within any 60 seconds, exact over all workers.

The window slides in steps of a quarter second and the oldest step counts whole until it is out:
never above the limit, and under steady overload at most 1/240 below it. Tokens are taken as
estimated before the call and put right after it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from broker.errors import RateLimited
from broker.shared_state import SharedState, StateUnavailable, Take
from feeds.clock import Clock
from feeds.control_records import KeyPolicy

logger = logging.getLogger(__name__)

_LEAST_WAIT_S: Final = 0.05


class RateLimits:
    """Takes and corrects; one a process, over the state all processes share."""

    def __init__(self, state: SharedState, clock: Clock) -> None:
        self._state = state
        self._clock = clock
        self._giving: set[asyncio.Task[None]] = set()

    async def admit(self, key_id: str, policy: KeyPolicy, n_tokens: int) -> None:
        """Let one request of about `n_tokens` tokens (in and out) pass.

        Raises
        ------
        RateLimited
            With the time after which it fits.
        StateUnavailable
        """
        takes: list[tuple[str, Take]] = []
        if policy.limit_rpm is not None:
            takes.append(("requests", Take(f"{key_id}|rpm", 1, policy.limit_rpm)))
        if policy.limit_tpm is not None:
            takes.append(("tokens", Take(f"{key_id}|tpm", n_tokens, policy.limit_tpm)))
        if not takes:
            return
        taken = await self._state.take([take for _, take in takes], self._clock.now_us())
        for (what, take), got in zip(takes, taken, strict=True):
            if got.ok:
                continue
            if take.n > take.cap:
                raise RateLimited(
                    f"{take.n} {what} in one request, over this key's {take.cap} a minute",
                    retry_after_s=60.0,
                )
            raise RateLimited(
                f"this key may use {take.cap} {what} a minute and has {max(got.left, 0)} left",
                retry_after_s=max(got.wait_s, _LEAST_WAIT_S),
            )

    def correct_soon(self, key_id: str, policy: KeyPolicy, *, n_taken: int, n_used: int) -> None:
        """Tokens used otherwise than taken; nobody waits for it."""
        if policy.limit_tpm is None or n_taken == n_used:
            return
        task = asyncio.get_running_loop().create_task(self._give(f"{key_id}|tpm", n_taken - n_used))
        self._giving.add(task)
        task.add_done_callback(self._giving.discard)

    async def close(self) -> None:
        """Wait for what is being corrected."""
        await asyncio.gather(*self._giving, return_exceptions=True)

    async def _give(self, account: str, n: int) -> None:
        try:
            await self._state.give(account, n, self._clock.now_us())
        except StateUnavailable as error:
            logger.warning("token use of %s not corrected: %s", account, error)
