-- Question: How much time does the broker itself take?
-- Grain: one row per gateway and bucket of time.
-- Cost: decisions of the period, three columns.
-- Param: since DateTime = 24h | from when
-- Param: until DateTime = now | up to when
-- Param: bucket_minutes UInt32 = 60 | length of a bucket
SELECT
    toStartOfInterval(at, toIntervalMinute({bucket_minutes:UInt32})) AS bucket,
    gateway,
    count(overhead_us) AS requests,
    round(quantileExact(0.5)(overhead_us)) AS p50_us,
    round(quantileExact(0.99)(overhead_us)) AS p99_us,
    round(max(overhead_us)) AS max_us
FROM market.decisions
WHERE at >= {since:DateTime} AND at < {until:DateTime} AND overhead_us IS NOT NULL
GROUP BY bucket, gateway
ORDER BY bucket, gateway
