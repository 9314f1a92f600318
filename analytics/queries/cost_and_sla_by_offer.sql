-- Question: What does each offer cost us, and does it keep what it promises?
-- Grain: one row per offer that delivered.
-- Cost: rollups offer_delivery_hours and offer_score_hours: hours x tasks x offers.
-- Param: since DateTime = 24h | from when
-- Param: until DateTime = now | up to when
-- Param: task String = | only this kind of task
SELECT
    d.offer AS offer,
    d.requests AS requests,
    d.cost_usd AS cost_usd,
    round(1000 * d.cost_usd / d.requests, 6) AS usd_per_1000,
    round(d.on_time, 4) AS on_time_share,
    round(d.p_on_time, 4) AS on_time_predicted,
    round(s.quality, 4) AS quality,
    round(d.p_good, 4) AS quality_predicted,
    ifNull(s.scores, 0) AS scores
FROM
(
    SELECT
        offer,
        sum(n) AS requests,
        sum(cost_nusd) / 1e9 AS cost_usd,
        sum(n_on_time) / nullIf(sum(n_deadline), 0) AS on_time,
        sum(p_on_time_sum_e6) / 1e6 / nullIf(sum(n_p_on_time), 0) AS p_on_time,
        sum(p_good_sum_e6) / 1e6 / nullIf(sum(n_p_good), 0) AS p_good
    FROM market.offer_delivery_hours
    WHERE hour >= toStartOfHour({since:DateTime}) AND hour < {until:DateTime}
        AND offer != '' AND ({task:String} = '' OR task = {task:String})
    GROUP BY offer
) AS d
LEFT JOIN
(
    SELECT
        offer,
        sum(n) AS scores,
        sum(quality_sum_e6) / 1e6 / nullIf(sum(n), 0) AS quality
    FROM market.offer_score_hours
    WHERE hour >= toStartOfHour({since:DateTime}) AND hour < {until:DateTime}
        AND ({task:String} = '' OR task = {task:String})
    GROUP BY offer
) AS s ON s.offer = d.offer
ORDER BY d.cost_usd DESC, offer
