-- Question: Who spends what?
-- Grain: one row per tenant, task and bucket of time.
-- Cost: rollup tenant_hours.
-- Param: since DateTime = 7d | from when
-- Param: until DateTime = now | up to when
-- Param: bucket_hours UInt32 = 24 | length of a bucket
SELECT
    toStartOfInterval(hour, toIntervalHour({bucket_hours:UInt32})) AS bucket,
    tenant,
    task,
    sum(n) AS requests,
    round(sum(n_ok) / sum(n), 4) AS answered_share,
    sum(input_tokens) AS tokens_in,
    sum(output_tokens) AS tokens_out,
    sum(cost_nusd) / 1e9 AS cost_usd
FROM market.tenant_hours
WHERE hour >= toStartOfHour({since:DateTime}) AND hour < {until:DateTime}
GROUP BY bucket, tenant, task
ORDER BY bucket, cost_usd DESC, tenant, task
