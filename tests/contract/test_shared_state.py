"""What every shared state must hold, SQLite and Redis alike, used by two workers at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from broker.shared_state import Cap, SharedState, StateSettings, StateUnavailable, Take, Wanted
from broker.state_redis import RedisState
from broker.state_sqlite import SqliteState
from tests.fakes.redis_server import has_redis, redis_server

MINUTE_US = 60_000_000
CAP = Cap("k|day 2026-01-01", 1_000)


@pytest_asyncio.fixture(params=["sqlite", "redis"])
async def workers(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[tuple[SharedState, SharedState]]:
    """The same state as two processes would see it."""
    both: tuple[SharedState, SharedState]
    async with AsyncExitStack() as stack:
        if request.param == "sqlite":
            both = (SqliteState(tmp_path / "s.sqlite"), SqliteState(tmp_path / "s.sqlite"))
        else:
            if not has_redis():
                pytest.skip("no redis-server on this machine: the Redis backend is not tested here")
            url = await stack.enter_async_context(redis_server(tmp_path))
            settings = StateSettings(kind="redis", url=url)
            both = (RedisState(settings), RedisState(settings))
        for state in both:
            await state.start()
            stack.push_async_callback(state.close)
        yield both


def wanted(name: str, likely: int, *, worst: int | None = None, now_us: int = 0) -> Wanted:
    return Wanted(
        id=name,
        caps=(CAP, Cap("k|month 2026-01", 5_000)),
        worst_nusd=likely if worst is None else worst,
        likely_nusd=likely,
        worst_share=0.01,
        now_us=now_us,
        expires_us=now_us + MINUTE_US,
    )


async def test_no_number_of_requests_at_once_reserves_more_than_there_is(
    workers: tuple[SharedState, SharedState],
) -> None:
    asked = [workers[i % 2].reserve(wanted(f"r{i}", 7)) for i in range(300)]
    got = await asyncio.gather(*asked)
    assert sum(r.nusd for r in got) == 994  # 142 times 7 of 1,000
    assert {r.tightest for r in got} == {CAP.period}
    await asyncio.gather(*(workers[0].settle(f"r{i}", 2) for i in range(300)))
    assert await workers[1].spent([CAP.period]) == [(284, 0)]


async def test_the_worst_case_is_set_aside_only_while_it_is_small(
    workers: tuple[SharedState, SharedState],
) -> None:
    first = await workers[0].reserve(wanted("a", 3, worst=10))
    second = await workers[1].reserve(wanted("b", 3, worst=10))
    assert (first.nusd, second.nusd) == (10, 3)
    assert second.left_nusd == 987


async def test_settling_twice_counts_once_and_what_was_never_settled_counts_whole(
    workers: tuple[SharedState, SharedState],
) -> None:
    a, b = workers
    await a.reserve(wanted("done", 100))
    await a.settle("done", 40)
    await b.settle("done", 40)
    await a.reserve(wanted("lost", 50))
    await b.reserve(wanted("later", 10, now_us=2 * MINUTE_US))
    assert await a.spent([CAP.period]) == [(90, 10)]
    await a.settle("lost", 1)
    assert await a.spent([CAP.period]) == [(90, 10)]


async def test_periods_long_over_are_forgotten(
    workers: tuple[SharedState, SharedState],
) -> None:
    hour_us = 60 * MINUTE_US
    hours = [f"k|nightly|hour {i}" for i in range(60)]
    for i, hour in enumerate(hours):
        now_us = i * hour_us
        caps = (Cap(hour, 1_000, now_us + hour_us), CAP)
        asked = msgspec.structs.replace(wanted(f"r{i}", 7, now_us=now_us), caps=caps)
        assert (await workers[i % 2].reserve(asked)).nusd == 7
        await workers[0].settle(f"r{i}", 3)
    levels = await workers[1].spent([*hours, CAP.period])
    # Kept for two days after their end; what never ends is kept.
    assert levels == [(0, 0)] * 10 + [(3, 0)] * 50 + [(180, 0)]


async def test_a_minute_holds_its_limit_and_slides(
    workers: tuple[SharedState, SharedState],
) -> None:
    at = 1_000 * MINUTE_US
    takes = [workers[i % 2].take([Take("k|rpm", 1, 100)], at + i * 1000) for i in range(150)]
    got = [t[0] for t in await asyncio.gather(*takes)]
    assert sum(t.ok for t in got) == 100
    waits = {round(t.wait_s) for t in got if not t.ok}
    assert waits == {60}
    (early,) = await workers[0].take([Take("k|rpm", 1, 100)], at + MINUTE_US - 250_001)
    (then,) = await workers[0].take([Take("k|rpm", 1, 100)], at + MINUTE_US + 250_000)
    assert (early.ok, then.ok) == (False, True)


async def test_several_limits_are_taken_together_or_not_at_all(
    workers: tuple[SharedState, SharedState],
) -> None:
    both = [Take("k|rpm", 1, 10), Take("k|tpm", 600, 1000)]
    first = await workers[0].take(both, 0)
    second = await workers[1].take(both, 0)
    assert [t.ok for t in first] == [True, True]
    assert [t.ok for t in second] == [True, False]
    await workers[0].give("k|tpm", 500, 0)
    third = await workers[1].take(both, 0)
    assert [t.ok for t in third] == [True, True]
    assert [t.left for t in third] == [8, 300]


async def test_sessions_are_seen_by_all(workers: tuple[SharedState, SharedState]) -> None:
    a, b = workers
    assert await b.session("s", 0) is None
    await a.keep_sessions([("s", b"\x00one"), ("t", b"two")], 5)
    await a.keep_sessions([("s", b"three")], 6)
    assert await b.session("s", 7) == b"three"
    assert await b.session("t", 7) == b"two"


async def test_sessions_are_bounded_in_age_and_number(tmp_path: Path) -> None:
    settings = StateSettings(session_ttl_s=60.0, max_sessions=100)
    state = SqliteState(tmp_path / "s.sqlite", settings)
    await state.start()
    try:
        for i in range(30):
            await state.keep_sessions([(f"s{i}-{k}", b"x") for k in range(10)], i)
        kept = [await state.session(f"s{i}-0", 30) for i in range(30)]
        assert 5 <= sum(value is not None for value in kept) <= 11  # the last hundred or so
        assert kept[-1] == b"x"
        assert kept[0] is None
        assert await state.session("s29-0", 70_000_000) is None
    finally:
        await state.close()
    with pytest.raises(StateUnavailable):
        await state.session("s29-0", 30)


async def test_revocations_are_seen_by_all_and_told_once(
    workers: tuple[SharedState, SharedState],
) -> None:
    a, b = workers
    await a.revoke("k1", 17, "ops")
    await a.revoke("k1", 18, "again")
    await b.revoke("k2", 19, "ops two")
    await b.untell("k2")
    assert await b.revoked() == {"k1": 17, "k2": 19}
    told = await asyncio.gather(a.claim_untold(), b.claim_untold())
    assert [t for each in told for t in each] == [("k1", 17, "ops")]
