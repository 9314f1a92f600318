-- Question: How has one offer done, minute by minute?
-- Grain: one row per minute.
-- Cost: rollup offer_minutes, one offer.
-- Param: offer String | the offer
-- Param: since DateTime = 6h | from when
-- Param: until DateTime = now | up to when
SELECT
    m.minute AS minute,
    sum(m.n) AS calls,
    sum(m.n_failed) AS failed,
    sum(m.n_capacity) AS turned_away,
    sum(m.n_timeouts) AS timeouts,
    round(quantilesDDMerge(0.01, 0.5, 0.9, 0.95, 0.99)(m.ttft_sketch)[1], 1) AS ttft_p50_ms,
    round(quantilesDDMerge(0.01, 0.5, 0.9, 0.95, 0.99)(m.ttft_sketch)[3], 1) AS ttft_p95_ms,
    sum(m.cost_nusd) / 1e9 AS cost_usd
FROM market.offer_minutes AS m
WHERE m.offer = {offer:String} AND m.minute >= {since:DateTime} AND m.minute < {until:DateTime}
GROUP BY minute
ORDER BY minute
