-- Question: How fast is each offer?
-- Grain: one row per offer.
-- Cost: rollup offer_hours with its sketches (1 % relative error): hours x offers.
-- Param: since DateTime = 24h | from the hour of
-- Param: until DateTime = now | up to when
SELECT
    offer,
    sum(n_ttft) AS first_tokens,
    round(quantilesDDMerge(0.01, 0.5, 0.9, 0.95, 0.99)(ttft_sketch)[1], 1) AS ttft_p50_ms,
    round(quantilesDDMerge(0.01, 0.5, 0.9, 0.95, 0.99)(ttft_sketch)[3], 1) AS ttft_p95_ms,
    round(quantilesDDMerge(0.01, 0.5, 0.9, 0.95, 0.99)(ttft_sketch)[4], 1) AS ttft_p99_ms,
    round(quantilesDDMerge(0.01, 0.5, 0.9, 0.95, 0.99)(total_sketch)[1], 1) AS total_p50_ms,
    round(quantilesDDMerge(0.01, 0.5, 0.9, 0.95, 0.99)(total_sketch)[3], 1) AS total_p95_ms,
    round(quantilesDDMerge(0.01, 0.5, 0.9, 0.95, 0.99)(total_sketch)[4], 1) AS total_p99_ms,
    round(sum(ttft_sum_us) / 1000 / nullIf(sum(n_ttft), 0), 1) AS ttft_mean_ms
FROM market.offer_hours
WHERE hour >= toStartOfHour({since:DateTime}) AND hour < {until:DateTime}
GROUP BY offer
HAVING first_tokens > 0
ORDER BY ttft_p50_ms, offer
