-- Question: When we say an answer comes in time with 95 %, does it?
-- Grain: one row per band of predicted P(on time); bands are narrower near 1.
-- Cost: decisions of the period, three columns.
-- Param: since DateTime = 24h | from when
-- Param: until DateTime = now | up to when
-- Param: offer String = | only where this offer delivered
SELECT
    multiIf(p_on_time < 0.5, 0, p_on_time < 0.8, 0.5, p_on_time < 0.9, 0.8, p_on_time < 0.95, 0.9,
        p_on_time < 0.98, 0.95, p_on_time < 0.99, 0.98, 0.99) AS predicted_from,
    count() AS requests,
    round(avg(p_on_time), 4) AS predicted,
    round(countIf(on_time) / count(), 4) AS delivered,
    round(sqrt(delivered * (1 - delivered) / count()), 4) AS standard_error
FROM market.decisions
WHERE at >= {since:DateTime} AND at < {until:DateTime}
    AND on_time IS NOT NULL AND p_on_time IS NOT NULL
    AND ({offer:String} = '' OR delivered_offer = {offer:String})
GROUP BY predicted_from
ORDER BY predicted_from
