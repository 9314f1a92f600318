-- What sellers may have written and billed after we had hung up on them: estimates, apart from costs.

ALTER TABLE market_raw.attempts${cluster}
    ADD COLUMN IF NOT EXISTS unseen_tokens Int64 DEFAULT 0 CODEC(T64, ZSTD),
    ADD COLUMN IF NOT EXISTS unseen_nusd Int64 DEFAULT 0 CODEC(T64, ZSTD);

ALTER TABLE market_raw.attempts_feed${cluster}
    ADD COLUMN IF NOT EXISTS unseen_tokens Int64 DEFAULT 0,
    ADD COLUMN IF NOT EXISTS unseen_nusd Int64 DEFAULT 0;

CREATE VIEW IF NOT EXISTS market.cut_attempts${cluster}
(
    attempt_id String
        COMMENT 'the call',
    decision_id String
        COMMENT 'the request it was made for',
    at DateTime64(6, 'UTC')
        COMMENT 'when we hung up, UTC',
    offer LowCardinality(String)
        COMMENT 'whom we hung up on',
    provider LowCardinality(String)
        COMMENT 'its provider',
    tenant LowCardinality(String)
        COMMENT 'who asked',
    failure LowCardinality(String)
        COMMENT 'why: a timeout, a hedge that lost, an app that hung up',
    streaming Bool
        COMMENT 'whether the answer was to come as a stream',
    output_tokens Int64
        COMMENT 'tokens of the answer that we saw',
    cost_usd Float64
        COMMENT 'what is owed for what we saw',
    unseen_tokens Int64
        COMMENT 'tokens it may have written after that, as long as the answer was expected to be',
    unseen_usd Float64
        COMMENT 'what it may have billed beyond cost_usd; 0 where it is known to stop'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    attempt_id,
    decision_id,
    at,
    offer,
    provider,
    tenant,
    failure,
    streaming,
    output_tokens,
    cost_nusd / 1e9 AS cost_usd,
    unseen_tokens,
    unseen_nusd / 1e9 AS unseen_usd
FROM market_raw.attempts
WHERE source != 'pushed'
    AND failure IN ('timeout_ttft', 'timeout_gap', 'timeout_total', 'cancelled', 'hedge_lost')
COMMENT 'Calls that we ended before their answer was whole, and what they may have cost beside.';
