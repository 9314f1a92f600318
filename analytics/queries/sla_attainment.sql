-- Question: Do SLA classes get what they were promised?
-- Grain: one row per SLA class.
-- Cost: rollups class_hours and score_hours: hours x classes.
-- Param: since DateTime = 24h | from when
-- Param: until DateTime = now | up to when
-- Param: sla_class String = | only this class
SELECT
    c.sla_class AS sla_class,
    c.requests AS requests,
    round(c.answered, 4) AS answered_share,
    round(c.target_on_time, 4) AS on_time_promised,
    round(c.on_time, 4) AS on_time_delivered,
    round(c.target_quality, 4) AS quality_promised,
    round(s.quality, 4) AS quality_delivered,
    round(c.p_good, 4) AS quality_predicted,
    ifNull(s.scores, 0) AS scores,
    c.best_effort AS best_effort,
    c.cost_usd AS cost_usd,
    on_time_delivered >= on_time_promised AS on_time_kept,
    quality_delivered >= quality_promised AS quality_kept
FROM
(
    SELECT
        sla_class,
        sum(n) AS requests,
        sum(n_ok) / requests AS answered,
        sum(n_infeasible) AS best_effort,
        sum(cost_nusd) / 1e9 AS cost_usd,
        sum(target_on_time_sum_e6) / 1e6 / nullIf(sum(n_target_on_time), 0) AS target_on_time,
        sum(n_on_time) / nullIf(sum(n_deadline), 0) AS on_time,
        sum(target_quality_sum_e6) / 1e6 / nullIf(sum(n_target_quality), 0) AS target_quality,
        sum(p_good_sum_e6) / 1e6 / nullIf(sum(n_p_good), 0) AS p_good
    FROM market.class_hours
    WHERE hour >= toStartOfHour({since:DateTime}) AND hour < {until:DateTime}
        AND ({sla_class:String} = '' OR sla_class = {sla_class:String})
    GROUP BY sla_class
) AS c
LEFT JOIN
(
    SELECT
        sla_class,
        sum(n) AS scores,
        sum(quality_sum_e6) / 1e6 / nullIf(sum(n), 0) AS quality
    FROM market.score_hours
    WHERE hour >= toStartOfHour({since:DateTime}) AND hour < {until:DateTime}
    GROUP BY sla_class
) AS s ON s.sla_class = c.sla_class
ORDER BY requests DESC, sla_class
