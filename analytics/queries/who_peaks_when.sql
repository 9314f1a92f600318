-- Question: Which offers are slow or failing at which hours of the week, against their own usual?
-- Grain: one row per offer and hour of the week (UTC, 0 is Monday 00:00), the newest estimate.
-- Cost: table of seasons, one row an offer and hour of publishing.
-- Param: offer String = | only this offer
-- Param: min_percent UInt64 = 25 | leave out hours that are not so much slower or worse
SELECT
    offer,
    hour_of_week,
    intDiv(hour_of_week, 24) + 1 AS day_of_week,
    hour_of_week % 24 AS hour,
    round(argMax(latency, at), 3) AS ttft_factor,
    round(argMax(errors, at), 3) AS failure_odds_factor,
    round(argMax(n_calls, at)) AS calls,
    argMax(n_weeks, at) AS weeks
FROM market.seasons
WHERE ({offer:String} = '' OR offer = {offer:String})
GROUP BY offer, hour_of_week
HAVING greatest(ttft_factor, failure_odds_factor) >= 1 + {min_percent:UInt64} / 100
ORDER BY greatest(ttft_factor, failure_odds_factor) DESC, offer, hour_of_week
