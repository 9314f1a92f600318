"""Keys made, renewed and taken back while the market runs: on the log, in force within seconds."""

from __future__ import annotations

import time

import pytest

from broker.key_commands import all_keys, create_key, revoke_key, rotate_key
from feeds.control_records import KeyPolicy
from tests.fakes.up_rig import Market, polled

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def status(market: Market, key: str) -> int:
    async with market.http.get(
        f"{market.up.url}/v1/models", headers={"Authorization": f"Bearer {key}"}
    ) as response:
        return response.status


async def test_a_key_lives_and_dies_on_a_running_market(market: Market) -> None:
    settings = market.up.settings
    key, record = await create_key(
        settings, "newcomer", ("app",), policy=KeyPolicy(limit_rpm=500), label="test"
    )

    async def works(secret: str = key, wanted: int = 200) -> bool:
        return await status(market, secret) == wanted

    await polled(works, "the new key", 2.0)
    newer, _ = await rotate_key(settings, record.key_id, 600.0)
    await polled(lambda: works(newer), "the renewed key", 2.0)
    assert await works(key)
    listed = {r.key_id: r for r in await all_keys(settings)}
    assert listed[record.key_id].policy == KeyPolicy(limit_rpm=500)
    assert key not in str(listed)
    begun = time.monotonic()
    assert await revoke_key(settings, record.key_id)
    await polled(lambda: works(newer, 401), "the end of the key", 2.0)
    assert time.monotonic() - begun < 3.0
    assert await works(key, 401)
    assert next(r for r in await all_keys(settings) if r.key_id == record.key_id).revoked
