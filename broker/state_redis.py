"""The shared state of many machines: a Redis, through redis-py (extra `redis`).

What must be one step is one Lua script, so concurrent gateways see each other's reservations.
All keys of a budget carry the same hash tag, which lets a Redis cluster run the script.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, Final

import msgspec

from broker.shared_state import (
    PERIOD_KEPT_US,
    SLOT_US,
    SWEPT_AT_ONCE,
    WINDOW_SLOTS,
    Reserved,
    StateSettings,
    StateUnavailable,
    Take,
    Taken,
    Wanted,
    fits,
    session_in,
)

_CONNECTIONS: Final = 32

_SETTLE_LOST: Final = """
local function settle(id, spent)
  local held = redis.call('HGET', KEYS[2], id)
  if not held then return end
  redis.call('HDEL', KEYS[2], id)
  redis.call('ZREM', KEYS[3], id)
  local r = cjson.decode(held)
  for _, period in ipairs(r[1]) do
    redis.call('HINCRBY', KEYS[1], 'r:' .. period, -r[2])
    redis.call('HINCRBY', KEYS[1], 's:' .. period, spent or r[2])
  end
end
"""
_RESERVE: Final = (
    _SETTLE_LOST
    + """
local now, expires = tonumber(ARGV[2]), tonumber(ARGV[3])
local worst, likely, share = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', '(' .. ARGV[2])) do
  settle(id, nil)
end
local over = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', '(' .. ARGV[7], 'LIMIT', 0, ARGV[8])
for _, period in ipairs(over) do
  redis.call('HDEL', KEYS[1], 's:' .. period, 'r:' .. period)
  redis.call('ZREM', KEYS[4], period)
end
local left, tied, tightest = 4611686018427387904, 0, ''
local periods, ends = {}, {}
for i = 9, #ARGV, 3 do
  local s = tonumber(redis.call('HGET', KEYS[1], 's:' .. ARGV[i]) or 0)
  local r = tonumber(redis.call('HGET', KEYS[1], 'r:' .. ARGV[i]) or 0)
  periods[#periods + 1] = ARGV[i]
  ends[#ends + 1] = tonumber(ARGV[i + 2])
  local here = tonumber(ARGV[i + 1]) - s - r
  if here < left then left, tied, tightest = here, r, ARGV[i] end
end
local amount = 0
if worst <= share * left then amount = worst elseif likely <= left then amount = likely end
if amount > 0 then
  for i, period in ipairs(periods) do
    redis.call('HINCRBY', KEYS[1], 'r:' .. period, amount)
    if ends[i] > 0 then redis.call('ZADD', KEYS[4], ends[i], period) end
  end
  redis.call('HSET', KEYS[2], ARGV[1], cjson.encode({periods, amount}))
  redis.call('ZADD', KEYS[3], expires, ARGV[1])
end
return {amount, left - amount, tied, tightest}
"""
)
_SETTLE: Final = _SETTLE_LOST + "settle(ARGV[1], tonumber(ARGV[2]))"
_TAKE: Final = """
local slot, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local seen, all = {}, true
for i, key in ipairs(KEYS) do
  local n, cap = tonumber(ARGV[1 + 2 * i]), tonumber(ARGV[2 + 2 * i])
  local flat, used = redis.call('HGETALL', key), 0
  local kept = {}
  for j = 1, #flat, 2 do
    if tonumber(flat[j]) <= slot - window then redis.call('HDEL', key, flat[j])
    else
      used = used + tonumber(flat[j + 1])
      kept[#kept + 1] = {tonumber(flat[j]), tonumber(flat[j + 1])}
    end
  end
  if n > cap - used then all = false end
  seen[i] = kept
end
if all then
  for i, key in ipairs(KEYS) do
    redis.call('HINCRBY', key, slot, tonumber(ARGV[1 + 2 * i]))
    redis.call('PEXPIRE', key, 61000)
  end
end
return cjson.encode(seen)
"""


class RedisState:
    """See `SharedState`."""

    def __init__(self, settings: StateSettings) -> None:
        from redis.asyncio import BlockingConnectionPool, Redis

        self._settings = settings
        self._prefix = settings.prefix
        pool = BlockingConnectionPool.from_url(
            settings.url,
            max_connections=_CONNECTIONS,
            timeout=settings.timeout_s,
            socket_timeout=settings.timeout_s,
            socket_connect_timeout=settings.timeout_s,
        )
        self._redis = Redis.from_pool(pool)
        self._reserve = self._redis.register_script(_RESERVE)
        self._settle = self._redis.register_script(_SETTLE)
        self._take = self._redis.register_script(_TAKE)
        tag = self._prefix + "{money}"
        self._money = [f"{tag}:levels", f"{tag}:reservations", f"{tag}:ends", f"{tag}:periods"]

    async def start(self) -> None:
        await self._asked(self._redis.ping())

    async def close(self) -> None:
        await self._redis.aclose()

    async def reserve(self, wanted: Wanted) -> Reserved:
        caps = [x for cap in wanted.caps for x in (cap.period, cap.cap_nusd, cap.ends_us)]
        amounts = [wanted.worst_nusd, wanted.likely_nusd, wanted.worst_share]
        sweep = [wanted.now_us - PERIOD_KEPT_US, SWEPT_AT_ONCE]
        amount, left, tied, tightest = await self._asked(
            self._reserve(
                keys=self._money,
                args=[wanted.id, wanted.now_us, wanted.expires_us, *amounts, *sweep, *caps],
            )
        )
        return Reserved(amount, left, tied, tightest.decode())

    async def settle(self, reservation: str, spent_nusd: int) -> None:
        await self._asked(self._settle(keys=self._money, args=[reservation, spent_nusd]))

    async def spent(self, periods: Sequence[str]) -> list[tuple[int, int]]:
        names = [f"{kind}:{period}" for period in periods for kind in ("s", "r")]
        levels = await self._asked(self._redis.hmget(self._money[0], names))
        numbers = [int(x or 0) for x in levels]
        return list(zip(numbers[::2], numbers[1::2], strict=True))

    async def take(self, takes: Sequence[Take], now_us: int) -> list[Taken]:
        asked = [x for take in takes for x in (take.n, take.cap)]
        answer = await self._asked(
            self._take(
                keys=[self._account(take.account) for take in takes],
                args=[now_us // SLOT_US, WINDOW_SLOTS, *asked],
            )
        )
        # Lua's JSON writes an empty table as an object.
        seen = [list(map(tuple, slots)) if slots else [] for slots in msgspec.json.decode(answer)]
        return [fits(take, slots, now_us) for take, slots in zip(takes, seen, strict=True)]

    async def give(self, account: str, n: int, now_us: int) -> None:
        await self._asked(self._redis.hincrby(self._account(account), now_us // SLOT_US, -n))

    async def session(self, key: str, now_us: int) -> bytes | None:
        value: bytes | None = await self._asked(self._redis.get(f"{self._prefix}session:{key}"))
        return value

    async def keep_sessions(self, sessions: Sequence[tuple[str, bytes]], now_us: int) -> None:
        ttl_ms = round(self._settings.session_ttl_s * 1e3)
        pipe = self._redis.pipeline(transaction=False)
        for key, value in sessions:
            pipe.set(f"{self._prefix}session:{key}", value, px=ttl_ms)
        await self._asked(pipe.execute())

    async def forget_sessions(self, sessions: frozenset[str]) -> int:
        n = 0
        async for name in self._redis.scan_iter(f"{self._prefix}session:*", count=1000):
            value = await self._asked(self._redis.get(name))
            if value is not None and session_in(value) in sessions:
                n += await self._asked(self._redis.delete(name))
        return n

    async def revoke(self, key_id: str, at_us: int, by: str) -> None:
        if await self._asked(self._redis.hsetnx(f"{self._prefix}revoked", key_id, at_us)):
            await self._asked(self._redis.hset(f"{self._prefix}untold", key_id, f"{at_us} {by}"))

    async def revoked(self) -> dict[str, int]:
        found = await self._asked(self._redis.hgetall(f"{self._prefix}revoked"))
        return {key.decode(): int(at) for key, at in found.items()}

    async def claim_untold(self) -> list[tuple[str, int, str]]:
        name = f"{self._prefix}untold"
        claimed = []
        for key, told in (await self._asked(self._redis.hgetall(name))).items():
            if await self._asked(self._redis.hdel(name, key)):
                at, _, by = told.decode().partition(" ")
                claimed.append((key.decode(), int(at), by))
        return claimed

    async def untell(self, key_id: str) -> None:
        await self._asked(self._redis.hdel(f"{self._prefix}untold", key_id))

    def _account(self, account: str) -> str:
        # One tag for an account's limits, so that one script may take from all of them.
        return f"{self._prefix}used:{{{account.partition('|')[0]}}}{account}"

    async def _asked(self, coming: Awaitable[Any]) -> Any:
        from redis.exceptions import RedisError

        try:
            async with asyncio.timeout(self._settings.timeout_s):
                return await coming
        except (RedisError, OSError, TimeoutError) as error:
            raise StateUnavailable(f"Redis: {error}") from error
