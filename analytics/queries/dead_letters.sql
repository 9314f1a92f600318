-- Question: What could not be read or stored, and why?
-- Grain: one row per topic and reason. A letter written twice counts once.
-- Cost: dead letters of the period.
-- Param: since DateTime = 7d | from when
-- Param: until DateTime = now | up to when
SELECT
    d.topic AS topic,
    d.reason AS reason,
    uniqExact(d.partition, d.offset) AS letters,
    max(d.at) AS last_at,
    left(any(d.payload), 200) AS example
FROM market.dead_letters AS d
WHERE d.at >= {since:DateTime} AND d.at < {until:DateTime}
GROUP BY topic, reason
ORDER BY letters DESC, topic, reason
