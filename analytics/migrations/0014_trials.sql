-- What decisions tell of trials of params: those bought in a canary, and those of which other params
-- told what they would have bought.

CREATE VIEW IF NOT EXISTS market.trial_decisions${cluster}
(
    decision_id String
        COMMENT 'the decision',
    at DateTime64(6, 'UTC')
        COMMENT 'settlement, UTC',
    task LowCardinality(String)
        COMMENT 'kind of task',
    tenant LowCardinality(String)
        COMMENT 'who asked',
    sla_class String
        COMMENT 'SLA class, without the arm',
    arm LowCardinality(String)
        COMMENT 'the canary it was bought in; empty for none',
    params_version Int64
        COMMENT 'version of the params it was bought under',
    winner LowCardinality(String)
        COMMENT 'offer that won; empty where nobody could bid',
    expected_cost_usd Nullable(Float64)
        COMMENT 'expected cost of the winner',
    p_good Nullable(Float64)
        COMMENT 'believed chance of a good answer from the winner',
    p_on_time Nullable(Float64)
        COMMENT 'believed chance that it is on time',
    other_version Int64
        COMMENT 'version of the params it was compared with: in the shadow, or of a canary in force',
    other_winner LowCardinality(String)
        COMMENT 'offer that would have won under them; empty where not computed, or nobody',
    other_cost_usd Nullable(Float64)
        COMMENT 'its expected cost',
    other_p_good Nullable(Float64)
        COMMENT 'its believed chance of a good answer',
    other_p_on_time Nullable(Float64)
        COMMENT 'its believed chance to be on time',
    failure LowCardinality(String)
        COMMENT 'how the delivery ended',
    on_time Nullable(Bool)
        COMMENT 'whether the deadlines were kept; NULL without one',
    cost_usd Float64
        COMMENT 'what was paid'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    decision_id,
    at,
    task,
    tenant,
    replaceRegexpOne(sla_class, '~[sv][0-9]+$$', '') AS sla_class,
    arm,
    params_version,
    winner,
    if(empty(ranked), NULL, ranked[1].cost_nusd / 1e9) AS expected_cost_usd,
    if(empty(ranked), NULL, ranked[1].p_good) AS p_good,
    if(empty(ranked), NULL, ranked[1].p_on_time) AS p_on_time,
    shadow_version AS other_version,
    shadow_winner AS other_winner,
    shadow_cost_nusd / 1e9 AS other_cost_usd,
    shadow_p_good AS other_p_good,
    shadow_p_on_time AS other_p_on_time,
    failure,
    on_time,
    cost_nusd / 1e9 AS cost_usd
FROM market_raw.decisions
WHERE arm != '' OR shadow_winner != ''
COMMENT 'Decisions that were part of a trial of params, or compared with one in the shadow.';
