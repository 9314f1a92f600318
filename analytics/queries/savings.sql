-- Question: What have we saved against always buying the best, and paid over always the cheapest?
-- Grain: one row per tenant and task.
-- Cost: rollup tenant_hours. Compared are the bids' own expected costs, requests with both only.
-- Param: since DateTime = 7d | from when
-- Param: until DateTime = now | up to when
-- Param: tenant String = | only this tenant
SELECT
    tenant,
    task,
    sum(n) AS requests,
    sum(cost_nusd) / 1e9 AS paid_usd,
    sum(n_compared) AS compared,
    sum(expected_cost_nusd) / 1e9 AS expected_usd,
    sum(best_cost_nusd) / 1e9 AS always_best_usd,
    sum(cheapest_cost_nusd) / 1e9 AS always_cheapest_usd,
    round(1 - expected_usd / nullIf(always_best_usd, 0), 4) AS saved_share
FROM market.tenant_hours
WHERE hour >= toStartOfHour({since:DateTime}) AND hour < {until:DateTime}
    AND ({tenant:String} = '' OR tenant = {tenant:String})
GROUP BY tenant, task
ORDER BY always_best_usd - expected_usd DESC, tenant, task
