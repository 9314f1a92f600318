-- Question: What became of a session, step by step?
-- Grain: one row per step.
-- Cost: steps of sessions of the period.
-- Param: session String | the session, as x-broker-session names it
-- Param: since DateTime = 24h | from when
-- Param: until DateTime = now | up to when
SELECT
    step, at, decision_id, incumbent, delivered_offer AS offer, handoff AS why, cached_tokens,
    gain_usd, rival, rival_gain_usd, rival_cost_usd
FROM market.sessions
WHERE session = {session:String} AND at >= {since:DateTime} AND at < {until:DateTime}
ORDER BY step, at
