-- Question: Who peaks at 3 pm on a Tuesday? Latency and failures by hour of the week.
-- Grain: one row per offer and hour of the week (UTC, 0 is Monday 00:00).
-- Cost: rollup offer_hours_of_week: 168 x offers x weeks.
-- Param: offer String = | only this offer
-- Param: since DateTime = 84d | oldest week
-- Param: min_n UInt64 = 20 | leave out cells with fewer first tokens
SELECT
    offer,
    hour_of_week,
    intDiv(hour_of_week, 24) + 1 AS day_of_week,
    hour_of_week % 24 AS hour,
    sum(n) AS calls,
    sum(n_ttft) AS first_tokens,
    round(exp(sum(log_ttft_sum_e6) / 1e6 / sum(n_ttft)), 3) AS ttft_geometric_mean_ms,
    round(exp(sum(log_ttft_sum_e6) / 1e6 / sum(n_ttft)
        - sum(sum(log_ttft_sum_e6)) OVER (PARTITION BY offer) / 1e6
            / sum(sum(n_ttft)) OVER (PARTITION BY offer)), 4) AS ttft_against_own_mean,
    round(sum(n_failed) / sum(n), 4) AS failed_share
FROM market.offer_hours_of_week
WHERE week >= toMonday({since:DateTime}) AND ({offer:String} = '' OR offer = {offer:String})
GROUP BY offer, hour_of_week
HAVING first_tokens >= {min_n:UInt64}
ORDER BY offer, hour_of_week
