-- Question: What does a good or a punctual answer cost at the margin, and is the class on target?
-- Grain: one row per SLA class and bucket of time: its last state there.
-- Cost: changelog of skills in the period.
-- Param: since DateTime = 24h | from when
-- Param: until DateTime = now | up to when
-- Param: sla_class String = | only this class
-- Param: bucket_minutes UInt32 = 15 | length of a bucket
SELECT
    toStartOfInterval(at, toIntervalMinute({bucket_minutes:UInt32})) AS bucket,
    sla_class,
    argMax(quality_price_usd, at) AS quality_price_usd,
    argMax(punctuality_price_usd, at) AS punctuality_price_usd,
    argMax(tuple(target_quality), at).1 AS quality_promised,
    argMax(tuple(delivered_quality), at).1 AS quality_delivered,
    argMax(tuple(target_on_time), at).1 AS on_time_promised,
    argMax(tuple(delivered_on_time), at).1 AS on_time_delivered,
    argMax(quality_binding OR punctuality_binding, at) AS at_cap
FROM market.class_prices AS p
WHERE p.at >= {since:DateTime} AND p.at < {until:DateTime}
    AND ({sla_class:String} = '' OR sla_class = {sla_class:String})
GROUP BY bucket, sla_class
ORDER BY bucket, sla_class
