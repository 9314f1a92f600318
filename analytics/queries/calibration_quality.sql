-- Question: When we say an answer is good with 90 %, is it?
-- Grain: one row per tenth of predicted P(good).
-- Cost: scores of the period, three columns.
-- Param: since DateTime = 7d | from when
-- Param: until DateTime = now | up to when
-- Param: model String = | only this model
SELECT
    least(intDiv(toUInt32(p_good * 100), 10), 9) / 10 AS predicted_from,
    count() AS scores,
    round(avg(p_good), 4) AS predicted,
    round(avg(quality), 4) AS delivered,
    round(sqrt(varPop(quality) / count()), 4) AS standard_error
FROM market.feedback
WHERE at >= {since:DateTime} AND at < {until:DateTime} AND p_good IS NOT NULL
    AND ({model:String} = '' OR model = {model:String})
GROUP BY predicted_from
ORDER BY predicted_from
