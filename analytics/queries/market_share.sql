-- Question: Which offers are bought, and how does that change?
-- Grain: one row per bucket of time and offer.
-- Cost: rollup offer_hours where buckets are whole hours (from the hour of `since`), hours x offers;
--   otherwise offer_minutes.
-- Param: since DateTime = 24h | from when
-- Param: until DateTime = now | up to when
-- Param: bucket_minutes UInt32 = 60 | length of a bucket
SELECT
    toStartOfInterval(time, toIntervalMinute({bucket_minutes:UInt32})) AS bucket,
    offer,
    sum(n) AS calls,
    sum(cost_nusd) / 1e9 AS cost_usd,
    round(calls / sum(calls) OVER (PARTITION BY bucket), 4) AS share_of_calls,
    round(cost_usd / nullIf(sum(cost_usd) OVER (PARTITION BY bucket), 0), 4) AS share_of_spend
FROM
(
    SELECT hour AS time, offer, n, cost_nusd
    FROM market.offer_hours
    WHERE {bucket_minutes:UInt32} % 60 = 0 AND source = 'gateway'
        AND hour >= toStartOfHour({since:DateTime}) AND hour < {until:DateTime}
    UNION ALL
    SELECT minute, offer, n, cost_nusd
    FROM market.offer_minutes
    WHERE {bucket_minutes:UInt32} % 60 != 0 AND source = 'gateway'
        AND minute >= {since:DateTime} AND minute < {until:DateTime}
)
GROUP BY bucket, offer
ORDER BY bucket, cost_usd DESC, offer
