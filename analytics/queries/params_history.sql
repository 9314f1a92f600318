-- Question: Who changed the bandit's parameters, when and why?
-- Grain: one row per version.
-- Cost: table of params: one row a change.
-- Param: since DateTime = 365d | from when
-- Param: until DateTime = now | up to when
SELECT at, scope, version, by, why, params
FROM market.params_history
WHERE at >= {since:DateTime} AND at < {until:DateTime}
ORDER BY at DESC, scope, version DESC
