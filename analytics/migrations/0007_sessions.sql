-- What a session's step is recorded with: its number, what the auction made of leaving the offer
-- that served the step before, the hand-off if there was one, and those of earlier steps.

ALTER TABLE market_raw.decisions${cluster}
    ADD COLUMN IF NOT EXISTS session_step Int64 DEFAULT 0 CODEC(T64, ZSTD),
    ADD COLUMN IF NOT EXISTS switch String CODEC(ZSTD),
    ADD COLUMN IF NOT EXISTS handoff LowCardinality(String),
    ADD COLUMN IF NOT EXISTS handoff_dropped Int64 DEFAULT 0 CODEC(T64, ZSTD),
    ADD COLUMN IF NOT EXISTS earlier_handoffs Array(Tuple(decision_id String, step Int64,
        source LowCardinality(String), target LowCardinality(String), why LowCardinality(String),
        cost_nusd Float64, gain_nusd Nullable(Float64), n_dropped Int64)) CODEC(ZSTD);

ALTER TABLE market_raw.decisions_feed${cluster}
    ADD COLUMN IF NOT EXISTS session_step Int64 DEFAULT 0,
    ADD COLUMN IF NOT EXISTS switch String,
    ADD COLUMN IF NOT EXISTS handoff LowCardinality(String),
    ADD COLUMN IF NOT EXISTS handoff_dropped Int64 DEFAULT 0,
    ADD COLUMN IF NOT EXISTS earlier_handoffs Array(Tuple(decision_id String, step Int64,
        source LowCardinality(String), target LowCardinality(String), why LowCardinality(String),
        cost_nusd Float64, gain_nusd Nullable(Float64), n_dropped Int64));

CREATE OR REPLACE VIEW market.sessions${cluster}
(
    session String
        COMMENT 'its name here, which says nothing of what the app calls it',
    step Int64
        COMMENT 'number of the step in its session',
    at DateTime64(6, 'UTC')
        COMMENT 'settlement, UTC',
    decision_id String
        COMMENT 'the decision',
    tenant LowCardinality(String)
        COMMENT 'who asked',
    task LowCardinality(String)
        COMMENT 'kind of task',
    incumbent LowCardinality(String)
        COMMENT 'offer that served the step before; empty at the first',
    delivered_offer LowCardinality(String)
        COMMENT 'offer that served this one',
    handoff LowCardinality(String)
        COMMENT 'why another offer served it than the step before; empty where none did',
    cached_tokens Int64
        COMMENT 'tokens of the prompt believed warm at the incumbent',
    lost_cache_usd Float64
        COMMENT 'what the move gave up of the warm cache',
    consistency_usd Float64
        COMMENT 'tax on another model\'s voice',
    translation_usd Float64
        COMMENT 'harm of what the new model cannot read of the history',
    gain_usd Nullable(Float64)
        COMMENT 'by how much the new offer was better before these',
    rival String
        COMMENT 'where it stayed: who would have won without the session',
    rival_gain_usd Float64
        COMMENT 'by how much',
    rival_cost_usd Float64
        COMMENT 'what moving there would have cost',
    dropped_blocks Int64
        COMMENT 'reasoning blocks of the history the new model was not shown'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    session,
    session_step AS step,
    at,
    decision_id,
    tenant,
    task,
    incumbent,
    delivered_offer,
    handoff,
    incumbent_cached_tokens AS cached_tokens,
    JSONExtractFloat(switch, 'lost_cache_nusd') / 1e9 AS lost_cache_usd,
    JSONExtractFloat(switch, 'consistency_nusd') / 1e9 AS consistency_usd,
    JSONExtractFloat(switch, 'translation_nusd') / 1e9 AS translation_usd,
    JSONExtract(switch, 'gain_nusd', 'Nullable(Float64)') / 1e9 AS gain_usd,
    JSONExtractString(switch, 'rival') AS rival,
    JSONExtractFloat(switch, 'rival_gain_nusd') / 1e9 AS rival_gain_usd,
    JSONExtractFloat(switch, 'rival_cost_nusd') / 1e9 AS rival_cost_usd,
    handoff_dropped AS dropped_blocks
FROM market_raw.decisions
WHERE session != ''
COMMENT 'Every step of every session: who served it, and why it stayed or moved.';
