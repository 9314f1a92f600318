"""What gateways share beside the log: money set aside, calls counted, sessions, revoked keys.

Everything here must be true at once for all workers, which a log is too slow for, and small
enough to be asked about in well under a millisecond. On one machine it is a SQLite file
(`state_sqlite`), on many a Redis (`state_redis`); one suite of contract tests holds for both.
Money is whole nano-dollars, times are wall clock in µs since the epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Literal, Protocol

import msgspec
from msgspec import Meta, Struct

from bidding.errors import MarketError

SLOT_US: Final = 250_000
"""A minute's window moves on in steps of this: what leaves late is at most 1/240 of a limit."""
WINDOW_SLOTS: Final = 240
PERIOD_KEPT_US: Final = 2 * 86_400_000_000
"""A request may end long after the period that it was paid from."""
SWEPT_AT_ONCE: Final = 16
"""Periods that are over, forgotten in the course of one reservation."""


class StateSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where it is kept. `path` is relative to the data directory; `url` is Redis's.

    `timeout_s` is how long a request waits for it, on a busy machine for a while, before what
    depends on it is refused.
    """

    kind: Literal["sqlite", "redis"] = "sqlite"
    path: str = "state.sqlite"
    url: str = ""
    prefix: str = "mmb:"
    timeout_s: Annotated[float, Meta(gt=0, le=10)] = 5.0
    session_ttl_s: Annotated[float, Meta(gt=0, le=31_536_000)] = 86_400.0
    max_sessions: Annotated[int, Meta(ge=1)] = 1_000_000


class StateUnavailable(MarketError):
    """The shared state does not answer; what depends on it must be refused or done without."""


class Cap(Struct, frozen=True):
    """A budget of one period: its name (unique over keys and periods), its size, and when the
    period ends; what was spent in it is forgotten `PERIOD_KEPT_US` later (0: never).
    """

    period: str
    cap_nusd: int
    ends_us: int = 0


class Wanted(Struct, frozen=True, kw_only=True):
    """Money to be set aside for one request under all of `caps` at once.

    `worst_nusd` is set aside where it is at most `worst_share` of what is left under every cap,
    else `likely_nusd` where that fits, else nothing. What is not settled by `expires_us`
    (its worker died) counts as spent in full.
    """

    id: str
    caps: tuple[Cap, ...]
    worst_nusd: int
    likely_nusd: int
    worst_share: float
    now_us: int
    expires_us: int


class Reserved(Struct, frozen=True):
    """`nusd` set aside (0: nothing fits), `left_nusd` beside it under the tightest cap;
    `tied_nusd` of that cap are set aside for others and may come back.
    """

    nusd: int
    left_nusd: int
    tied_nusd: int = 0
    tightest: str = ""


class Take(Struct, frozen=True):
    """`n` units of an account that may use `cap` within any minute."""

    account: str
    n: int
    cap: int


class Taken(Struct, frozen=True):
    """Whether it fits; if not, when it may, in seconds; `left` is what is free after it."""

    ok: bool
    left: int
    wait_s: float = 0.0


def fits(take: Take, slots: Sequence[tuple[int, int]], now_us: int) -> Taken:
    """Whether a take fits beside what each slot of its window has used; if not, when it will.

    Examples
    --------
    >>> fits(Take("k", 1, 2), [(0, 1)], 0), fits(Take("k", 1, 1), [(0, 1)], 0)
    (Taken(ok=True, left=0, wait_s=0.0), Taken(ok=False, left=0, wait_s=60.0))
    """
    left = take.cap - sum(n for _, n in slots)
    if take.n <= left:
        return Taken(True, left - take.n)
    missing = take.n - left
    for slot, n in sorted(slots):
        missing -= n
        if missing <= 0:
            return Taken(False, left, ((slot + WINDOW_SLOTS) * SLOT_US - now_us) * 1e-6)
    return Taken(False, left, WINDOW_SLOTS * SLOT_US * 1e-6)


def session_in(value: bytes) -> str:
    """The session that a kept step is of; "" where it cannot be read.

    Examples
    --------
    >>> session_in(msgspec.msgpack.encode(["s_1", 3]))
    's_1'
    """
    try:
        fields = msgspec.msgpack.decode(value)
    except msgspec.DecodeError:
        return ""
    return fields[0] if isinstance(fields, list) and isinstance(fields[0], str) else ""


class SharedState(Protocol):
    """What a backend offers. Every method may raise `StateUnavailable`."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def reserve(self, wanted: Wanted) -> Reserved: ...

    async def settle(self, reservation: str, spent_nusd: int) -> None:
        """Put what was in fact spent in the place of what was set aside; once."""
        ...

    async def spent(self, periods: Sequence[str]) -> list[tuple[int, int]]:
        """What is spent and what is set aside in each period, nano-dollars."""
        ...

    async def take(self, takes: Sequence[Take], now_us: int) -> list[Taken]:
        """All of `takes` or none of them."""
        ...

    async def give(self, account: str, n: int, now_us: int) -> None:
        """Correct an account by `n` units (negative: more was used than taken)."""
        ...

    async def session(self, key: str, now_us: int) -> bytes | None: ...

    async def keep_sessions(self, sessions: Sequence[tuple[str, bytes]], now_us: int) -> None: ...

    async def forget_sessions(self, sessions: frozenset[str]) -> int:
        """Drop every step of these sessions; how many there were."""
        ...

    async def revoke(self, key_id: str, at_us: int, by: str) -> None:
        """Note a key as revoked, and that the log has not been told."""
        ...

    async def revoked(self) -> dict[str, int]:
        """Key ids revoked here and when."""
        ...

    async def claim_untold(self) -> list[tuple[str, int, str]]:
        """Revocations the log has not been told of, each handed out once."""
        ...

    async def untell(self, key_id: str) -> None:
        """The log was told of this one already."""
        ...
