-- Question: When providers reported an incident, did our calls there fail as well?
-- Grain: one row per report on a status page, with our calls in the hour after it.
-- Cost: table of reports, and rollup provider_minutes of the hours around them.
-- Param: since DateTime = 30d | from when
-- Param: until DateTime = now | up to when
-- Param: provider String = | only this provider
SELECT
    i.at AS at, i.provider AS provider, i.component AS component, i.severity AS severity,
    i.state AS state, i.since AS since, i.title AS title,
    sum(m.n) AS calls_in_next_hour,
    round(sum(m.n_failed) / nullIf(sum(m.n), 0), 4) AS failed_share
FROM market.incidents AS i
LEFT JOIN
(
    SELECT provider, minute, sum(n) AS n, sum(n_failed) AS n_failed
    FROM market.provider_minutes
    WHERE minute >= {since:DateTime} AND minute < {until:DateTime} + toIntervalHour(1)
        AND (provider, toStartOfHour(minute)) IN
        (
            SELECT provider, arrayJoin([0, 1, 2]) * 3600 + toStartOfHour(toDateTime(at, 'UTC')) - 3600
            FROM market.incidents WHERE at >= {since:DateTime} AND at < {until:DateTime}
        )
    GROUP BY provider, minute
) AS m ON m.provider = i.provider AND m.minute >= i.at - toIntervalMinute(1)
    AND m.minute < i.at + toIntervalHour(1)
WHERE i.at >= {since:DateTime} AND i.at < {until:DateTime}
    AND ({provider:String} = '' OR i.provider = {provider:String})
GROUP BY at, provider, component, severity, state, since, title
ORDER BY at DESC, provider, component
