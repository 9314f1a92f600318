-- Question: What did the market believe of an offer, and when did it change its mind?
-- Grain: one row per bucket of time: the last quote there.
-- Cost: the offer's quotes of the period.
-- Param: offer String | the offer
-- Param: since DateTime = 24h | from when
-- Param: until DateTime = now | up to when
-- Param: bucket_seconds UInt32 = 60 | length of a bucket
SELECT
    toStartOfInterval(q.at, toIntervalSecond({bucket_seconds:UInt32})) AS bucket,
    round(argMax(q.ttft_median_ms, q.at), 2) AS ttft_median_ms,
    round(argMax(q.tpot_median_ms, q.at), 3) AS tpot_median_ms,
    round(argMax(q.fail_share, q.at), 5) AS fail_share,
    argMax(q.health, q.at) AS health,
    round(argMax(q.ttft_n, q.at), 1) AS evidence,
    count() AS quotes
FROM market.quotes_history AS q
WHERE q.offer = {offer:String} AND q.at >= {since:DateTime} AND q.at < {until:DateTime}
GROUP BY bucket
ORDER BY bucket
