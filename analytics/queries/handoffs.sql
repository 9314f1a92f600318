-- Question: Which sessions changed sellers, why, and what did it cost?
-- Grain: one row per seller left, seller gone to and reason.
-- Cost: steps of sessions of the period, eight columns.
-- Param: since DateTime = 24h | from when
-- Param: until DateTime = now | up to when
-- Param: tenant String = | only this tenant
-- Param: session String = | only this session
SELECT
    incumbent AS from_offer, delivered_offer AS to_offer, handoff AS why,
    count() AS times,
    uniqExact(session) AS sessions,
    round(avg(lost_cache_usd + consistency_usd + translation_usd), 9) AS mean_cost_usd,
    round(avg(gain_usd), 9) AS mean_gain_usd
FROM market.sessions
WHERE at >= {since:DateTime} AND at < {until:DateTime} AND handoff != ''
    AND ({tenant:String} = '' OR tenant = {tenant:String})
    AND ({session:String} = '' OR session = {session:String})
GROUP BY from_offer, to_offer, why
ORDER BY times DESC, from_offer, to_offer, why
