-- Question: How late does each provider's status page tell us what our own calls had seen?
-- Grain: one row per provider with an incident that names offers.
-- Cost: table of reports, and rollup provider_minutes of the hours around them.
-- Param: since DateTime = 90d | from when
-- Param: until DateTime = now | up to when
-- Param: provider String = | only this provider
-- Param: percent UInt32 = 10 | failed percent of a minute that counts as trouble
-- Param: min_failed UInt32 = 2 | and failures in it
SELECT
    provider,
    count() AS incidents,
    countIf(lag_min IS NOT NULL) AS borne_out,
    round(quantileExactIf(0.5)(assumeNotNull(lag_min), lag_min IS NOT NULL), 1) AS median_lag_min,
    round(minIf(lag_min, lag_min IS NOT NULL), 1) AS earliest_min,
    round(maxIf(lag_min, lag_min IS NOT NULL), 1) AS latest_min,
    multiIf(
        borne_out = 0, 'nothing of what this page told was seen by our calls',
        median_lag_min >= 0.5, concat('this page tells you ', toString(round(median_lag_min)), ' minutes late'),
        median_lag_min <= -0.5, concat('this page tells you ', toString(round(-median_lag_min)), ' minutes early'),
        'this page tells you at once') AS says
FROM
(
    SELECT
        i.provider AS provider,
        i.incident_id AS incident_id,
        any(i.told_at) AS told_at,
        arraySort(groupArrayIf(toUnixTimestamp(m.minute), m.n_failed >= {min_failed:UInt32}
            AND 100 * m.n_failed >= {percent:UInt32} * m.n
            AND m.minute >= i.told_at - toIntervalHour(2)
            AND m.minute < i.told_at + toIntervalHour(2))) AS bad,
        arraySplit((x, gap) -> gap > 900, bad, arrayDifference(bad)) AS spells,
        arraySort(spell -> if(toUnixTimestamp(told_at) < spell[1], spell[1] - toUnixTimestamp(told_at),
            greatest(0, toInt64(toUnixTimestamp(told_at)) - spell[-1])), spells) AS nearest,
        if(empty(bad), NULL, (toUnixTimestamp(told_at) - nearest[1][1]) / 60) AS lag_min
    FROM
    (
        -- An incident once for each hour around it: hours are joined as equals, minutes would be compared.
        SELECT
            provider, incident_id, min(at) AS told_at,
            arrayJoin([-2, -1, 0, 1, 2]) * 3600 + toStartOfHour(toDateTime(told_at, 'UTC')) AS hour
        FROM market.incidents
        WHERE scope != 'none' AND severity IN ('minor', 'major', 'critical')
            AND state NOT IN ('resolved', 'scheduled')
            AND at >= {since:DateTime} AND at < {until:DateTime}
            AND ({provider:String} = '' OR provider = {provider:String})
        GROUP BY provider, incident_id
    ) AS i
    LEFT JOIN
    (
        SELECT
            provider, minute, toStartOfHour(minute) AS hour, sum(n) AS n, sum(n_failed) AS n_failed
        FROM market.provider_minutes
        WHERE source != 'pushed' AND minute >= {since:DateTime} - toIntervalHour(2)
            AND minute < {until:DateTime} + toIntervalHour(2)
            AND (provider, toStartOfHour(minute)) IN
            (
                SELECT
                    provider,
                    arrayJoin([-2, -1, 0, 1, 2]) * 3600 + toStartOfHour(toDateTime(at, 'UTC'))
                FROM market.incidents
                WHERE at >= {since:DateTime} AND at < {until:DateTime}
            )
        GROUP BY provider, minute
    ) AS m ON m.provider = i.provider AND m.hour = i.hour
    GROUP BY provider, incident_id
)
GROUP BY provider
ORDER BY median_lag_min DESC, provider
