-- Question: How do calls fail, where, and what do providers say about it?
-- Grain: one row per offer and failure class.
-- Cost: attempts of the period, five columns.
-- Param: since DateTime = 24h | from when
-- Param: until DateTime = now | up to when
-- Param: provider String = | only this provider
SELECT
    offer, provider, failure, lesson, calls, round(calls / calls_of_offer, 5) AS share_of_offer,
    last_at, frequent_reasons
FROM
(
    SELECT
        a.offer AS offer, a.provider AS provider, a.failure AS failure, a.lesson AS lesson,
        count() AS calls,
        sum(count()) OVER (PARTITION BY offer) AS calls_of_offer,
        max(a.at) AS last_at,
        topKIf(3)(a.reason, a.reason != '') AS frequent_reasons
    FROM market.attempts AS a
    WHERE a.at >= {since:DateTime} AND a.at < {until:DateTime}
        AND ({provider:String} = '' OR a.provider = {provider:String})
    GROUP BY offer, provider, failure, lesson
)
WHERE failure != 'ok'
ORDER BY calls DESC, offer, failure
