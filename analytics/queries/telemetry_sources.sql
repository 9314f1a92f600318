-- Question: Who pushes telemetry, how much, and who was caught telling what is not so?
-- Grain: one row per source and offer.
-- Cost: attempts of the period; table of mutes.
-- Param: since DateTime = 24h | from when
-- Param: until DateTime = now | up to when
-- Param: pusher String = | only this source
SELECT
    a.pusher AS source, a.offer AS offer, a.n AS events, a.failed_share AS claimed_failed_share,
    o.failed_share AS own_failed_share, o.n AS own_attempts,
    m.muted_at AS muted_at, m.muted_until AS muted_until, m.muted_about AS muted_about
FROM
(
    SELECT pusher, offer, count() AS n, round(avg(lesson = 'failure'), 4) AS failed_share
    FROM market.attempts
    WHERE at >= {since:DateTime} AND at < {until:DateTime} AND source = 'pushed'
        AND ({pusher:String} = '' OR pusher = {pusher:String})
    GROUP BY pusher, offer
) AS a
LEFT JOIN
(
    SELECT offer, count() AS n, round(avg(lesson = 'failure'), 4) AS failed_share
    FROM market.attempts
    WHERE at >= {since:DateTime} AND at < {until:DateTime} AND source != 'pushed'
    GROUP BY offer
) AS o ON o.offer = a.offer
LEFT JOIN
(
    SELECT
        source, argMax(at, at) AS muted_at, argMax(until, at) AS muted_until,
        argMax(offer, at) AS muted_about
    FROM market.source_mutes
    GROUP BY source
) AS m ON m.source = a.pusher
ORDER BY a.n DESC, source, offer
