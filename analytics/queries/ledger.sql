-- Question: Has anything a gateway wrote been lost, or stored twice?
-- Grain: one row per start of a writer and topic, on which its records carry a running number.
-- Cost: writer's three columns of attempts, decisions, feedback and views of the period. At the
--   period's edges records not yet written, or written before, are not missed: gaps are inside.
--   Rows that were forgotten (`broker forget`) are not missed either.
-- Param: since DateTime = 6h | from when
-- Param: until DateTime = now | up to when
SELECT
    w.gateway AS gateway, w.boot AS boot, w.topic AS topic,
    w.stored AS stored,
    w.different AS different,
    w.stored - w.different AS duplicated,
    greatest(0, w.gaps - toInt64(f.n)) AS missing,
    w.last_at AS last_at
FROM
(
SELECT
    gateway, boot, topic,
    count() AS stored,
    groupBitmap(toUInt64(seq)) AS different,
    toInt64(max(seq)) - toInt64(min(seq)) + 1 - toInt64(different) AS gaps,
    max(at) AS last_at
FROM
(
    SELECT gateway, boot, 'attempts' AS topic, seq, at FROM market.attempts
    WHERE at >= {since:DateTime} AND at < {until:DateTime} AND boot != ''
    UNION ALL
    SELECT gateway, boot, 'decisions' AS topic, seq, at FROM market.decisions
    WHERE at >= {since:DateTime} AND at < {until:DateTime} AND boot != ''
    UNION ALL
    SELECT gateway, boot, 'feedback' AS topic, seq, at FROM market.feedback
    WHERE at >= {since:DateTime} AND at < {until:DateTime} AND boot != ''
    UNION ALL
    SELECT gateway, boot, 'views' AS topic, seq, at FROM market.market_views
    WHERE at >= {since:DateTime} AND at < {until:DateTime} AND boot != ''
)
GROUP BY gateway, boot, topic
) AS w
LEFT JOIN
(
    SELECT gateway, boot, topic, sum(n) AS n FROM market.forgettings GROUP BY gateway, boot, topic
) AS f ON f.gateway = w.gateway AND f.boot = w.boot AND f.topic = w.topic
ORDER BY duplicated DESC, missing DESC, gateway, boot, topic
