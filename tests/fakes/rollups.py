"""Whether every rollup equals the same aggregation over the raw rows, to the last unit.

The raw side is written by hand where it can be, not taken from the views' own SQL.
"""

from __future__ import annotations

from typing import Final

from analytics.migrate import qualified
from analytics.store import Store

#: What both rollups of an offer's attempts are held against, by the minute and by the hour.
ATTEMPTS_BY: Final = """
    SELECT {start}(at), offer, provider, model, source, count(),
        sum(failure = 'ok'), sum(lesson = 'failure'), sum(lesson = 'capacity'),
        sum(failure IN ('timeout_ttft', 'timeout_gap', 'timeout_total')), sum(hedge),
        sum(n >= 2 AND hedge = 0),
        sum(input_tokens), sum(output_tokens), sum(cached_tokens), sum(cost_nusd),
        sum(ttft_ms IS NOT NULL), toInt64(sum(ifNull(round(ttft_ms * 1000), 0))),
        sum(total_ms IS NOT NULL), toInt64(sum(ifNull(round(total_ms * 1000), 0))),
        quantilesDD(0.01, 0.5, 0.9, 0.95, 0.99)(ttft_ms),
        quantilesDD(0.01, 0.5, 0.9, 0.95, 0.99)(total_ms)
    FROM market_raw.attempts GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
"""
# Per rollup: the rollup's sums, and the same from raw rows; both ordered by the rollup's key.
PAIRS: Final[dict[str, tuple[str, str]]] = {
    "offer_minutes": (
        """
        SELECT minute, offer, provider, model, source, sum(n), sum(n_ok), sum(n_failed),
            sum(n_capacity), sum(n_timeouts), sum(n_hedges), sum(n_fallbacks),
            sum(input_tokens), sum(output_tokens), sum(cached_tokens), sum(cost_nusd),
            sum(n_ttft), sum(ttft_sum_us), sum(n_total), sum(total_sum_us),
            quantilesDDMerge(0.01, 0.5, 0.9, 0.95, 0.99)(ttft_sketch),
            quantilesDDMerge(0.01, 0.5, 0.9, 0.95, 0.99)(total_sketch)
        FROM market_raw.offer_minutes GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
        """,
        ATTEMPTS_BY.format(start="toStartOfMinute"),
    ),
    "offer_hours_of_week": (
        """
        SELECT offer, week, hour_of_week, sum(n), sum(n_failed), sum(n_capacity), sum(n_ttft),
            sum(log_ttft_sum_e6), sum(log_ttft_square_sum_e6), sum(n_tpot), sum(log_tpot_sum_e6)
        FROM market_raw.offer_hours_of_week GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
        """,
        """
        SELECT offer, toMonday(at),
            toUInt8(dateDiff('hour', toDateTime(toMonday(at), 'UTC'), toDateTime(at, 'UTC'))),
            count(), sum(lesson = 'failure'), sum(lesson = 'capacity'), count(ttft_ms),
            sum(toInt64(round(log(ifNull(ttft_ms, 1)) * 1e6))),
            sum(toInt64(round(pow(log(ifNull(ttft_ms, 1)), 2) * 1e6))),
            sum(ifNull(total_ms > ttft_ms, 0) AND output_tokens >= 2),
            sum(toInt64(round(if(ifNull(total_ms > ttft_ms, 0) AND output_tokens >= 2,
                log(ifNull(total_ms - ttft_ms, 1) / (output_tokens - 1)) * 1e6, 0))))
        FROM market_raw.attempts WHERE source IN ('gateway', 'probe', 'app')
        GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
        """,
    ),
    "tenant_hours": (
        """
        SELECT hour, tenant, task, sum(n), sum(n_ok), sum(n_attempts), sum(input_tokens),
            sum(output_tokens), sum(cost_nusd), sum(n_compared), sum(expected_cost_nusd),
            sum(best_cost_nusd), sum(cheapest_cost_nusd)
        FROM market_raw.tenant_hours GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
        """,
        """
        SELECT toStartOfHour(at), tenant, task, count(), sum(failure = 'ok'), sum(n_attempts),
            sum(input_tokens_billed), sum(output_tokens), sum(cost_nusd),
            sum(length(ranked) > 0),
            sum(toInt64(if(length(ranked) > 0, round(ranked.cost_nusd[1]), 0))),
            sum(toInt64(ifNull(round(best_cost_nusd), 0))),
            sum(toInt64(ifNull(round(cheapest_cost_nusd), 0)))
        FROM market_raw.decisions GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
        """,
    ),
    "delivery_hours": (
        """
        SELECT hour, sla_class, task, offer, sum(n), sum(n_ok), sum(n_infeasible),
            sum(cost_nusd), sum(n_deadline), sum(n_on_time), sum(n_target_on_time),
            sum(target_on_time_sum_e6), sum(n_p_on_time), sum(p_on_time_sum_e6),
            sum(n_target_quality), sum(target_quality_sum_e6), sum(n_p_good), sum(p_good_sum_e6)
        FROM market_raw.delivery_hours GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
        """,
        """
        SELECT toStartOfHour(at), sla_class, task, delivered_offer, count(),
            sum(failure = 'ok'), sum(feasible = 0), sum(cost_nusd), sum(on_time IS NOT NULL),
            sum(ifNull(on_time, 0)), sum(target_on_time IS NOT NULL),
            sum(toInt64(round(ifNull(target_on_time, 0) * 1e6))),
            sum(on_time IS NOT NULL AND p_on_time IS NOT NULL),
            sum(if(on_time IS NULL, 0, toInt64(round(ifNull(p_on_time, 0) * 1e6)))),
            sum(target_quality IS NOT NULL),
            sum(toInt64(round(ifNull(target_quality, 0) * 1e6))),
            sum(p_good IS NOT NULL), sum(toInt64(round(ifNull(p_good, 0) * 1e6)))
        FROM market_raw.decisions GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
        """,
    ),
    "score_hours": (
        """
        SELECT hour, sla_class, task, offer, source, sum(n), sum(quality_sum_e6),
            sum(n_p_good), sum(p_good_sum_e6)
        FROM market_raw.score_hours GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
        """,
        """
        SELECT toStartOfHour(at), sla_class, task, offer, source, count(),
            sum(toInt64(round(quality * 1e6))), sum(p_good IS NOT NULL),
            sum(toInt64(round(ifNull(p_good, 0) * 1e6)))
        FROM market_raw.feedback GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
        """,
    ),
}
#: What is asked of a rollup through a projection: the view's sums and the raw rows'.
PROJECTED: Final[dict[str, tuple[str, str]]] = {
    "offer_hours": (
        """
        SELECT hour, offer, provider, model, source, n, n_ok, n_failed, n_capacity, n_timeouts,
            n_hedges, n_fallbacks, input_tokens, output_tokens, cached_tokens, cost_nusd, n_ttft,
            ttft_sum_us, n_total, total_sum_us,
            finalizeAggregation(ttft_sketch), finalizeAggregation(total_sketch)
        FROM market.offer_hours ORDER BY 1, 2, 3, 4, 5
        """,
        ATTEMPTS_BY.format(start="toStartOfHour"),
    ),
    "provider_minutes": (
        """
        SELECT minute, provider, source, n, n_failed, n_capacity, n_timeouts
        FROM market.provider_minutes ORDER BY 1, 2, 3
        """,
        """
        SELECT toStartOfMinute(at), provider, source, count(), sum(lesson = 'failure'),
            sum(lesson = 'capacity'),
            sum(failure IN ('timeout_ttft', 'timeout_gap', 'timeout_total'))
        FROM market_raw.attempts GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
        """,
    ),
    "offer_delivery_hours": (
        """
        SELECT hour, offer, task, n, n_ok, cost_nusd, n_deadline, n_on_time, n_p_on_time,
            p_on_time_sum_e6, n_p_good, p_good_sum_e6
        FROM market.offer_delivery_hours ORDER BY 1, 2, 3
        """,
        """
        SELECT toStartOfHour(at), delivered_offer, task, count(), sum(failure = 'ok'),
            sum(cost_nusd), sum(on_time IS NOT NULL), sum(ifNull(on_time, 0)),
            sum(on_time IS NOT NULL AND p_on_time IS NOT NULL),
            sum(if(on_time IS NULL, 0, toInt64(round(ifNull(p_on_time, 0) * 1e6)))),
            sum(p_good IS NOT NULL), sum(toInt64(round(ifNull(p_good, 0) * 1e6)))
        FROM market_raw.decisions GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
        """,
    ),
    "params_delivery": (
        """
        SELECT since, params_version, arm, sla_class, set_apart, n, n_ok, cost_nusd,
            cost_square_sum, n_deadline, n_on_time, n_ttft, n_ttft_kept, n_latency, n_latency_kept
        FROM market.params_delivery ORDER BY 1, 2, 3, 4, 5
        """,
        """
        SELECT toStartOfInterval(at, INTERVAL 10 MINUTE), params_version, arm, sla_class,
            if(only, 'decided only', if(cached_from != '', 'cache',
                if(winner != '' AND (failure = 'cancelled' OR failure = 'bad_request'),
                    'given up', ''))) AS why,
            sum(1), sum(failure = 'ok'), sum(cost_nusd),
            sum(toInt256(cost_nusd) * toInt256(cost_nusd)),
            sum(on_time IS NOT NULL), sum(ifNull(on_time, 0)),
            sum(JSONType(sla, 'ttft_ms') IN ('Double', 'Int64', 'UInt64')),
            sum(failure = 'ok'
                AND ifNull(if(ttft_ms IS NULL, total_ms, ttft_ms)
                    <= JSONExtract(sla, 'ttft_ms', 'Nullable(Float64)'), 0)),
            sum(JSONType(sla, 'latency_ms') IN ('Double', 'Int64', 'UInt64')),
            sum(failure = 'ok'
                AND ifNull(total_ms <= JSONExtract(sla, 'latency_ms', 'Nullable(Float64)'), 0))
        FROM market_raw.decisions GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
        """,
    ),
    "params_scores": (
        """
        SELECT since, params_version, sla_class, n, quality_sum_e6
        FROM market.params_scores ORDER BY 1, 2, 3
        """,
        """
        SELECT toStartOfInterval(at, INTERVAL 10 MINUTE), params_version, sla_class, sum(1),
            sum(toInt64(round(quality * 1e6)))
        FROM market_raw.feedback GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
        """,
    ),
    "offer_score_hours": (
        """
        SELECT hour, offer, task, source, n, quality_sum_e6, n_p_good, p_good_sum_e6
        FROM market.offer_score_hours ORDER BY 1, 2, 3, 4
        """,
        """
        SELECT toStartOfHour(at), offer, task, source, count(),
            sum(toInt64(round(quality * 1e6))), sum(p_good IS NOT NULL),
            sum(toInt64(round(ifNull(p_good, 0) * 1e6)))
        FROM market_raw.feedback GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
        """,
    ),
}


async def unequal(store: Store) -> list[str]:
    """Names of the rollups that differ from their raw rows."""
    found = []
    for name, (rollup, raw) in (PAIRS | PROJECTED).items():
        # Through text, so that NaN (no time in a group) equals itself.
        ours = await store.export(qualified(rollup, store.settings), fmt="TabSeparated")
        theirs = await store.export(qualified(raw, store.settings), fmt="TabSeparated")
        if ours != theirs:
            found.append(name)
    return found


async def assert_rollups_equal_raw(store: Store) -> None:
    """Fail, naming the first row that differs, unless every rollup equals its raw rows."""
    for name in await unequal(store):
        rollup, raw = (PAIRS | PROJECTED)[name]
        ours = (await store.query(qualified(rollup, store.settings))).rows
        theirs = (await store.query(qualified(raw, store.settings))).rows
        pairs = zip(ours, theirs, strict=False)
        first = next(((a, b) for a, b in pairs if str(a) != str(b)), (len(ours), len(theirs)))
        raise AssertionError(f"{name}: rollup {first[0]}\n   raw {first[1]}")
