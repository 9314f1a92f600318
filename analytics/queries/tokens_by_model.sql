-- Question: How many tokens does each model take and give?
-- Grain: one row per model.
-- Cost: rollup offer_hours: hours x offers.
-- Param: since DateTime = 24h | from the hour of
-- Param: until DateTime = now | up to when
SELECT
    model,
    sum(n_ok) AS answers,
    sum(input_tokens) AS tokens_in,
    sum(output_tokens) AS tokens_out,
    sum(cached_tokens) AS tokens_cached,
    round(tokens_cached / nullIf(tokens_in, 0), 4) AS cached_share,
    round(tokens_out / nullIf(answers, 0), 1) AS tokens_out_per_answer,
    sum(cost_nusd) / 1e9 AS cost_usd
FROM market.offer_hours
WHERE hour >= toStartOfHour({since:DateTime}) AND hour < {until:DateTime}
GROUP BY model
ORDER BY cost_usd DESC, model
