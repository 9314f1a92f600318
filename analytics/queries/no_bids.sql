-- Question: Why were offers turned away?
-- Grain: one row per task and reason.
-- Cost: decisions of the period, two columns.
-- Param: since DateTime = 24h | from when
-- Param: until DateTime = now | up to when
SELECT
    task, reason, sum(times) AS offers_turned_away, count() AS requests
FROM market.decisions
ARRAY JOIN mapKeys(no_bids) AS reason, mapValues(no_bids) AS times
WHERE at >= {since:DateTime} AND at < {until:DateTime}
GROUP BY task, reason
ORDER BY offers_turned_away DESC, task, reason
