-- Question: How often is one call not enough, and does falling back help?
-- Grain: one row per number of calls a request took.
-- Cost: decisions of the period, four columns.
-- Param: since DateTime = 24h | from when
-- Param: until DateTime = now | up to when
SELECT
    n_attempts AS attempts,
    count() AS requests,
    round(count() / sum(count()) OVER (), 5) AS share,
    round(countIf(failure = 'ok') / count(), 4) AS answered_share,
    round(countIf(on_time) / nullIf(count(on_time), 0), 4) AS on_time_share,
    round(avg(total_ms), 1) AS mean_total_ms,
    sum(cost_nusd) / 1e9 AS cost_usd
FROM market.decisions
WHERE at >= {since:DateTime} AND at < {until:DateTime} AND NOT decided_only
GROUP BY attempts
ORDER BY attempts
