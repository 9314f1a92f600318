-- Question: What has just been decided?
-- Grain: one row per decision, newest first.
-- Cost: decisions of the period, read from the newest.
-- Param: since DateTime = 1h | from when
-- Param: until DateTime = now | up to when
-- Param: tenant String = | only this tenant
-- Param: failed_only Bool = false | only requests that failed or were late
-- Param: limit UInt32 = 50 | how many
SELECT
    at, decision_id, tenant, task, sla_class, delivered_offer AS offer, failure, on_time,
    n_attempts AS attempts, round(ttft_ms, 1) AS ttft_ms, round(total_ms, 1) AS total_ms, cost_usd,
    round(p_good, 4) AS p_good, round(p_on_time, 4) AS p_on_time, n_bids AS bids
FROM market.decisions
WHERE at >= {since:DateTime} AND at < {until:DateTime}
    AND ({tenant:String} = '' OR tenant = {tenant:String})
    AND (NOT {failed_only:Bool} OR failure NOT IN ('ok', '') OR on_time = false)
ORDER BY at DESC, decision_id
LIMIT {limit:UInt32}
