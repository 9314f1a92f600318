-- Question: What may providers have billed for answers after we hung up on them?
-- Grain: one row per provider and reason.
-- Cost: attempts of the period, six columns.
-- Param: since DateTime = 7d | from when
-- Param: until DateTime = now | up to when
-- Param: provider String = | only this provider
SELECT
    provider,
    failure,
    count() AS calls,
    countIf(unseen_usd > 0) AS calls_that_may_go_on,
    sum(output_tokens) AS tokens_seen,
    sum(unseen_tokens) AS tokens_unseen,
    sum(cost_usd) AS cost_seen_usd,
    sum(unseen_usd) AS may_be_billed_usd
FROM market.cut_attempts
WHERE at >= {since:DateTime} AND at < {until:DateTime}
    AND ({provider:String} = '' OR provider = {provider:String})
GROUP BY provider, failure
ORDER BY may_be_billed_usd DESC, calls DESC, provider, failure
