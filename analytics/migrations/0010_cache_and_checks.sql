-- What a decision says of an answer served again from the response cache, and of the checks its
-- answers had to pass.

ALTER TABLE market_raw.decisions${cluster}
    ADD COLUMN IF NOT EXISTS cached_from String CODEC(ZSTD),
    ADD COLUMN IF NOT EXISTS verdicts Array(Tuple(n Int64, offer LowCardinality(String),
        model LowCardinality(String), check LowCardinality(String), score Float64,
        took_ms Float64, cost_nusd Int64)) CODEC(ZSTD);

ALTER TABLE market_raw.decisions_feed${cluster}
    ADD COLUMN IF NOT EXISTS cached_from String,
    ADD COLUMN IF NOT EXISTS verdicts Array(Tuple(n Int64, offer LowCardinality(String),
        model LowCardinality(String), check LowCardinality(String), score Float64,
        took_ms Float64, cost_nusd Int64));

CREATE OR REPLACE VIEW market.checks${cluster}
(
    decision_id String
        COMMENT 'the decision',
    at DateTime64(6, 'UTC')
        COMMENT 'settlement, UTC',
    tenant LowCardinality(String)
        COMMENT 'who asked',
    task LowCardinality(String)
        COMMENT 'kind of task',
    n Int64
        COMMENT 'number of the answer among those the decision bought',
    offer LowCardinality(String)
        COMMENT 'who gave it',
    model LowCardinality(String)
        COMMENT 'its model',
    check LowCardinality(String)
        COMMENT 'the check that settled it: the one it failed, else passed',
    score Float64
        COMMENT '1 passed, 0 failed, or what the webhook said',
    took_ms Float64
        COMMENT 'time the check took',
    cost_usd Float64
        COMMENT 'what the answer cost',
    delivered Bool
        COMMENT 'this answer was returned'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    decision_id,
    at,
    tenant,
    task,
    verdict.n AS n,
    verdict.offer AS offer,
    verdict.model AS model,
    verdict.check AS check,
    verdict.score AS score,
    verdict.took_ms AS took_ms,
    verdict.cost_nusd / 1e9 AS cost_usd,
    verdict.offer = delivered_offer AS delivered
FROM market_raw.decisions
ARRAY JOIN verdicts AS verdict
COMMENT 'Every answer that was checked before it was returned (sla.verify), and the verdict.';
