"""A history as big as asked for, made inside the engine, by the road that the recorder takes.

Attempts are appended to their table a block at a time and sent on to the feed on which the rollups
hang, exactly as a chain of the recorder does; only the rows come from `numbers()` and not from
JSON. What they hold is drawn with the spread that real ones have: ids of 128 random bits, times
to the microsecond, durations on the grid that gateways write, offers bought by a power law.

Params change every hour of the last two days. Decisions with all their bids are kept for the last
two days, scores for eight; older ones are sent
to the feeds alone, without what no rollup reads, so that the rollups are as full as after so many
days.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from analytics.store import Store

#: A little less than raw rows are kept for.
DAYS: Final = 88
N_OFFERS: Final = 131
N_TENANTS: Final = 20
N_VERSIONS: Final = 48
_BLOCK: Final = 1_000_000
_STREAMS: Final = 2
_DECISIONS_PER_ATTEMPT: Final = 0.95
_N_RANKED: Final = 8
_ONE_BLOCK: Final = {
    "max_insert_block_size": _BLOCK,
    "min_insert_block_size_rows": _BLOCK,
    "min_insert_block_size_bytes": 0,
    "max_block_size": _BLOCK,
    "preferred_block_size_bytes": 0,
    "max_threads": 1,
    "max_insert_threads": 1,
}

#: Row `i` of `n` in all: `u(k)` are independent uniforms of it, `z` a standard normal. Its decision
#: is number `{number}`, and it is well with 97 % where it is `{sound}`.
_ROW: Final = """
WITH
    number AS i,
    cityHash64(i, 1) / 18446744073709551616. AS u1,
    cityHash64(i, 2) / 18446744073709551616. AS u2,
    cityHash64(i, 3) / 18446744073709551616. AS u3,
    cityHash64(i, 4) / 18446744073709551616. AS u4,
    sqrt(-2 * log(u2 + 1e-12)) * cos(2 * pi() * u3) AS z,
    sqrt(-2 * log(u2 + 1e-12)) * sin(2 * pi() * u3) AS z2,
    toUInt32(floor(pow(u1, 3) * {n_offers:UInt32})) AS o,
    concat('provider-', toString(o % 21)) AS provider_,
    concat('model-', toString(o % 37)) AS model_,
    concat(provider_, '/', model_, '@', toString(o)) AS offer_,
    concat('tenant-', toString(cityHash64(i, 5) % {n_tenants:UInt32})) AS tenant_,
    ['chat', 'math', 'code', 'extract', 'summary'][1 + cityHash64(i, 6) % 5] AS task_,
    concat(tenant_, '|', task_, '|q0.9|t1000@0.95') AS class_,
    toDateTime64({until:DateTime}, 6, 'UTC')
        - toIntervalMicrosecond(toInt64(({n:UInt64} - i + u4) * {step_us:Float64})) AS at_,
    u4 < 0.97 AND {sound} AS ok,
    {number} AS of_,
    exp(5.5 + 0.02 * (o % 40) + 0.45 * z) AS ttft_,
    ttft_ + exp(6.5 + 0.6 * z2) AS total_,
    concat('dec_', lower(hex(cityHash64(of_, 7))), lower(hex(cityHash64(of_, 8)))) AS decision_,
    toInt64(exp(6 + 0.8 * z2)) AS in_,
    toInt64(exp(5 + 0.7 * z)) AS out_,
    greatest(1, intDiv(toInt64(toUnixTimestamp(at_)) - toInt64(toUnixTimestamp({until:DateTime})),
        3600) + {n_versions:UInt32}) AS version_
"""
# `nullIf`, because what stands under a null is stored too, and comes as 0 from the recorder.
_OK_TTFT: Final = "nullIf(if(ok, round(ttft_ * 1024) / 1024, 0), 0)"
_OK_TOTAL: Final = "nullIf(if(ok, round(total_ * 1024) / 1024, 0), 0)"
_WAITED: Final = "nullIf(if(ok, 0, round(ttft_ * 1024) / 1024), 0)"
_ON_LOG: Final = """
    {log:String} AS _log, 1 AS _life, 0 AS _partition, i AS _offset,
    {first:Int64} AS _batch_first, {last:Int64} AS _batch_last,
    toDate(toDateTime({until:DateTime}, 'UTC')
        - toIntervalMicrosecond(toInt64(({n:UInt64} - {first:Int64}) * {step_us:Float64}))) AS _day,
    toDateTime64(_day, 3, 'UTC') AS _stored_at
"""
_PLACE: Final = f"{_ON_LOG}, 'gateway-0' AS gateway, 'b1' AS boot, i AS seq"
#: Of every twenty attempts the first fails and the second is made in its place.
_OF_ATTEMPTS: Final = _ROW.replace("{sound}", "i % 20 != 0").replace(
    "{number}", "intDiv(i * 19, 20)"
)
_OF_DECISIONS: Final = _ROW.replace("{sound}", "true").replace("{number}", "i")
_OF_SCORES: Final = _ROW.replace("{sound}", "true").replace("{number}", "i * 5")
_ATTEMPTS: Final = f"""
INSERT INTO {{raw:Identifier}}.attempts (_log, _life, _partition, _offset, _batch_first,
    _batch_last, _day, _stored_at, gateway, boot, seq, attempt_id, decision_id, n, offer, provider,
    model, task, tenant, sla_class, source, at, started_at, failure, streaming, ttft_ms,
    total_ms, waited_ms, input_tokens, output_tokens, cached_tokens, usage_estimated, cost_nusd,
    n_inflight, http_status, retry_after_s, reason, hedge, trust)
{_OF_ATTEMPTS}
SELECT {_PLACE},
    concat(['1f3a9c02', '77b0d1ce', '90ffe213', 'c2a41d7b'][1 + i % 4], '-',
        lower(hex(intDiv(i, 4)))),
    decision_, if(i % 20 = 1, 2, 1), offer_, provider_, model_, task_,
    tenant_, class_, 'gateway', at_,
    at_ - toIntervalMicrosecond(toInt64(round(if(ok, total_, ttft_) * 1000))),
    multiIf(ok, 'ok', u1 < 0.5, 'rate_limited', u1 < 0.8, 'timeout_ttft', 'server_error'),
    u2 < 0.5, {_OK_TTFT}, {_OK_TOTAL}, {_WAITED},
    in_, if(ok, out_, 0), if(u3 < 0.2, intDiv(in_, 2), 0), false, in_ * 150 + out_ * 600,
    toInt64(u2 * 6), if(ok, 200, 429), NULL, if(ok, '', 'because'), u1 < 0.01, 1
FROM numbers({{first:UInt64}}, {{count:UInt64}})
"""
_SEND_ON: Final = """
INSERT INTO {raw:Identifier}.{feed:Identifier} SELECT * FROM {raw:Identifier}.{table:Identifier}
WHERE _log = {log:String} AND _partition = 0
  AND _offset >= {first:Int64} AND _offset <= {last:Int64}
"""
_DECISIONS: Final = f"""
INSERT INTO {{raw:Identifier}}.{{into:Identifier}} (_log, _life, _partition, _offset, _batch_first,
    _batch_last, _day, _stored_at, gateway, boot, seq, decision_id, at, task, tenant, sla_class,
    sla, input_tokens, max_output_tokens, features, streaming, seed, policy, params_version,
    view_number, winner, ranked, n_bids, no_bids, clearing_price_nusd, propensity, feasible,
    quality_price_nusd, punctuality_price_nusd, best_offer, best_cost_nusd, cheapest_offer,
    cheapest_cost_nusd, target_quality, target_on_time, delivered_offer, delivered_model, p_good,
    p_on_time, n_attempts, failure, ttft_ms, total_ms, on_time, input_tokens_billed,
    output_tokens, cost_nusd, overhead_us)
{_OF_DECISIONS},
    arrayMap(k -> (concat('provider-', toString((o + k) % 21), '/model-', toString((o + k) % 37),
        '@', toString((o + k) % {{n_offers:UInt32}})), toFloat64(in_ * 150 * (1 + k)) + u3,
        toFloat64(in_ * 140 * (1 + k)) + u2, 0.95 - 0.02 * k * u3, 0.99 - 0.01 * k * u4),
        range({{n_ranked:UInt32}})) AS bids
SELECT {_PLACE}, decision_, at_, task_, tenant_, class_, '{{{{"quality":0.9}}}}', in_, 512,
    {{features}}, u2 < 0.5, cityHash64(i, 9), 'priced', version_, intDiv(i, 3), offer_, bids, 8,
    map('circuit_open', toInt64(u3 * 3), 'region', 5), in_ * 170., 0.8, true, 1e6, 2e5, bids[-1].1,
    bids[-1].3, bids[1].1, bids[1].3, 0.9, 0.95, offer_, model_, 0.7 + 0.3 * u3, 0.8 + 0.2 * u4,
    if(i % 19 = 0, 2, 1), if(ok, 'ok', 'server_error'), round(ttft_ * 1024) / 1024,
    round(total_ * 1024) / 1024, ttft_ < 1000, in_, out_, in_ * 150 + out_ * 600, 150 + 50 * u2
FROM numbers({{first:UInt64}}, {{count:UInt64}})
"""
_SCORES: Final = f"""
INSERT INTO {{raw:Identifier}}.{{into:Identifier}} (_log, _life, _partition, _offset, _batch_first,
    _batch_last, _day, _stored_at, gateway, boot, seq, feedback_id, decision_id, at, task, tenant,
    sla_class, offer, model, quality, source, features, p_good, propensity, labelled_share, weight,
    params_version)
{_OF_SCORES}
SELECT {_PLACE}, concat('f', lower(hex(cityHash64(i, 10)))), decision_, at_, task_, tenant_, class_,
    offer_, model_, u3 < 0.9, 'verifier', {{features}}, 0.7 + 0.3 * u3, 0.8, 0.2, 1,
    version_
FROM numbers({{first:UInt64}}, {{count:UInt64}})
"""
_VIEWS: Final = f"""
INSERT INTO {{raw:Identifier}}.views (_log, _life, _partition, _offset, _batch_first, _batch_last,
    _day, _stored_at, gateway, boot, seq, view_number, at)
{_OF_DECISIONS}
SELECT {_PLACE}, i, at_ FROM numbers({{first:UInt64}}, {{count:UInt64}})
"""
_QUOTES: Final = f"""
INSERT INTO {{raw:Identifier}}.quotes (_log, _life, _partition, _offset, _batch_first, _batch_last,
    _day, _stored_at, _key, record, at, offer, quote)
{_OF_DECISIONS}
SELECT {_ON_LOG}, offer_, concat('state', lower(hex(sipHash128(i)))), at_, offer_,
    (5.5, 0.4, 100., 2., 0.3, 100., 0.01, 100., 'closed', 0, 0.)
FROM numbers({{first:UInt64}}, {{count:UInt64}})
"""
_INCIDENTS: Final = f"""
INSERT INTO {{raw:Identifier}}.status (_log, _life, _partition, _offset, _batch_first, _batch_last,
    _day, _stored_at, _key, record, at, provider, component, severity, state)
{_OF_DECISIONS}
SELECT {_ON_LOG}, provider_, concat('status', lower(hex(i))), at_, provider_, 'api', 'major',
    'investigating'
FROM numbers({{first:UInt64}}, {{count:UInt64}})
"""
_CHANGES: Final = f"""
INSERT INTO {{raw:Identifier}}.{{into:Identifier}} (_log, _life, _partition, _offset, _batch_first,
    _batch_last, _day, _stored_at, _key, record, at, scope, version, by, why, params, revision,
    event)
WITH number AS i
SELECT {_ON_LOG}, 'global', '', toDateTime64({{until:DateTime}}, 6, 'UTC')
        - toIntervalHour({{n_versions:UInt32}} - i), 'global', i + 1, 'ops', 'a reason',
    '{{{{}}}}', i + 1, 'set'
FROM numbers({{first:UInt64}}, {{count:UInt64}})
"""
_FEATURES: Final = "arrayMap(k -> round(u1 * k - u2, 4), range(32))"
_NO_FEATURES: Final = "[]"


class Load:
    """Loads one store.

    Parameters
    ----------
    n : attempts
    until_s : wall clock of the newest
    say : takes a line on how far it is
    """

    def __init__(self, store: Store, n: int, until_s: int, say: Callable[[str], None]) -> None:
        self._store = store
        self._n = n
        self._until_s = until_s
        self._say = say

    async def run(self) -> float:
        """Load everything; seconds that the attempts took."""
        begun_s = time.monotonic()
        await self.attempts()
        took_s = time.monotonic() - begun_s
        await self.others()
        return took_s

    async def attempts(self) -> None:
        """Every attempt, and what hangs on them."""
        await self._all("attempts", _ATTEMPTS, self._n, range(self._n), send_on=True)

    async def others(self) -> None:
        """Decisions, scores and the rest, as many as belong to the attempts."""
        for table, sql, per_attempt, days in (
            ("decisions", _DECISIONS, _DECISIONS_PER_ATTEMPT, 2),
            ("feedback", _SCORES, _DECISIONS_PER_ATTEMPT / 5, 8),
        ):
            n = round(self._n * per_attempt)
            kept = round(n * days / DAYS)
            whole = sql.replace("{features}", _FEATURES)
            await self._all(table, whole, n, range(n - kept, n), send_on=True)
            bare = sql.replace("{features}", _NO_FEATURES)
            await self._all(f"{table}_feed", bare, n, range(n - kept), send_on=False)
        quotes = min(self._n, 300_000)
        n = quotes * DAYS
        await self._all("quotes", _QUOTES, n, range(n - quotes, n), send_on=False)
        await self._all("status", _INCIDENTS, 300, range(300), send_on=False)
        await self._all("params", _CHANGES, N_VERSIONS, range(N_VERSIONS), send_on=False)
        newest = range(self._n - round(self._n / DAYS), self._n)
        await self._all("views", _VIEWS, self._n, newest, send_on=False)

    async def _all(self, into: str, sql: str, n: int, wanted: range, *, send_on: bool) -> None:
        """Those `wanted` of `n` rows that are spread over all days, two blocks at a time."""
        begun_s = time.monotonic()
        firsts = iter(wanted[::_BLOCK])

        async def blocks() -> None:
            for at in firsts:
                count = min(_BLOCK, wanted.stop - at)
                await self._block(into, sql, n, at, count, send_on=send_on)

        await asyncio.gather(*(blocks() for _ in range(_STREAMS)))
        self._say(f"{into}: {len(wanted):,} rows in {time.monotonic() - begun_s:.0f} s")

    async def _block(
        self, into: str, sql: str, n: int, at: int, count: int, *, send_on: bool
    ) -> None:
        place = {
            "into": into,
            "first": at,
            "last": at + count - 1,
            "count": count,
            "n": n,
            "step_us": DAYS * 86_400e6 / n,
            "until": self._until_s,
            "n_offers": N_OFFERS,
            "n_ranked": 1 if into.endswith("_feed") else _N_RANKED,
            "n_tenants": N_TENANTS,
            "n_versions": N_VERSIONS,
            "log": "scale",
            "table": into,
            "feed": f"{into}_feed",
        }
        await self._store.command(sql.replace("{{", "{").replace("}}", "}"), place, _ONE_BLOCK)
        if send_on:
            await self._store.command(_SEND_ON, place, _ONE_BLOCK)
