-- Question: What would the params in the shadow have bought in place of what was bought?
-- Grain: one row per version in the shadow and SLA class.
-- Cost: decisions of the period, columns of the comparison.
-- Param: since DateTime = 24h | from when
-- Param: until DateTime = now | up to when
-- Param: version UInt64 = 0 | only this version; 0: every one
SELECT
    other_version AS shadow_version,
    sla_class,
    count() AS compared,
    round(countIf(other_winner != winner) / compared, 4) AS other_winner_share,
    round(1e3 * avg(expected_cost_usd), 6) AS usd_per_1000,
    round(1e3 * avg(other_cost_usd), 6) AS shadow_usd_per_1000,
    round(avg(p_good), 4) AS good_share,
    round(avg(other_p_good), 4) AS shadow_good_share,
    round(avg(p_on_time), 4) AS on_time_share,
    round(avg(other_p_on_time), 4) AS shadow_on_time_share,
    topKIf(1)(other_winner, other_winner != winner)[1] AS most_often_instead
FROM market.trial_decisions
WHERE at >= {since:DateTime} AND at < {until:DateTime} AND arm = '' AND other_winner != ''
    AND ({version:UInt64} = 0 OR other_version = {version:UInt64})
GROUP BY shadow_version, sla_class
ORDER BY shadow_version DESC, compared DESC, sla_class
