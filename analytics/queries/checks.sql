-- Question: How do answers fare that are checked before they are returned (sla.verify)?
-- Grain: one row per task and model.
-- Cost: verdicts of the period, seven columns.
-- Param: since DateTime = 24h | from when
-- Param: until DateTime = now | up to when
-- Param: tenant String = | only this tenant
-- Param: task String = | only this kind of task
SELECT
    task, model,
    count() AS answers,
    round(countIf(check = 'passed') / count(), 4) AS passed_share,
    countIf(check = 'unknown') AS unknown,
    topKIf(3)(check, check NOT IN ('passed', 'unknown')) AS failed_checks,
    round(countIf(n > 1) / count(), 4) AS bought_again_share,
    sum(cost_usd) AS spent_usd,
    sumIf(cost_usd, NOT delivered) AS spent_on_failed_usd
FROM market.checks
WHERE at >= {since:DateTime} AND at < {until:DateTime}
    AND ({tenant:String} = '' OR tenant = {tenant:String})
    AND ({task:String} = '' OR task = {task:String})
GROUP BY task, model
ORDER BY task, answers DESC, model
