-- Question: Has anything a gateway wrote been lost, or stored twice?
-- Grain: one row per start of a writer. Its records carry a running number over all topics.
-- Cost: writer's three columns of attempts, decisions, feedback and views of the period. At the
--   period's edges records not yet written, or written before, are not missed: gaps are inside.
-- Param: since DateTime = 24h | from when
-- Param: until DateTime = now | up to when
SELECT
    gateway, boot,
    count() AS stored,
    uniqExact(seq) AS different,
    stored - different AS duplicated,
    toInt64(max(seq)) - toInt64(min(seq)) + 1 - toInt64(different) AS missing,
    max(at) AS last_at
FROM
(
    SELECT gateway, boot, seq, at FROM market.attempts
    WHERE at >= {since:DateTime} AND at < {until:DateTime} AND boot != ''
    UNION ALL
    SELECT gateway, boot, seq, at FROM market.decisions
    WHERE at >= {since:DateTime} AND at < {until:DateTime} AND boot != ''
    UNION ALL
    SELECT gateway, boot, seq, at FROM market.feedback
    WHERE at >= {since:DateTime} AND at < {until:DateTime} AND boot != ''
    UNION ALL
    SELECT gateway, boot, seq, at FROM market.market_views
    WHERE at >= {since:DateTime} AND at < {until:DateTime} AND boot != ''
)
GROUP BY gateway, boot
ORDER BY duplicated DESC, missing DESC, gateway, boot
