-- What exact replay and trials of params need: a view's record as changes on an earlier one, the
-- trial a decision was part of, what params in the shadow would have bought, and who changed params
-- how. A feed has the columns of its table, in the same order.

ALTER TABLE market_raw.views${cluster}
    ADD COLUMN IF NOT EXISTS base Int64 DEFAULT 0 CODEC(Delta, ZSTD),
    ADD COLUMN IF NOT EXISTS applied Map(LowCardinality(String), Array(Int64)) CODEC(ZSTD),
    ADD COLUMN IF NOT EXISTS catalogue LowCardinality(String),
    ADD COLUMN IF NOT EXISTS defaults String CODEC(ZSTD);

ALTER TABLE market_raw.decisions${cluster}
    ADD COLUMN IF NOT EXISTS arm LowCardinality(String),
    ADD COLUMN IF NOT EXISTS session String CODEC(ZSTD),
    ADD COLUMN IF NOT EXISTS incumbent_blocks Int64 DEFAULT 0 CODEC(T64, ZSTD),
    ADD COLUMN IF NOT EXISTS money_price Float64 DEFAULT 0 CODEC(ZSTD),
    ADD COLUMN IF NOT EXISTS shadow_version Int64 DEFAULT 0 CODEC(T64, ZSTD),
    ADD COLUMN IF NOT EXISTS shadow_winner LowCardinality(String),
    ADD COLUMN IF NOT EXISTS shadow_cost_nusd Nullable(Float64) CODEC(ZSTD),
    ADD COLUMN IF NOT EXISTS shadow_p_good Nullable(Float64) CODEC(ZSTD),
    ADD COLUMN IF NOT EXISTS shadow_p_on_time Nullable(Float64) CODEC(ZSTD);

ALTER TABLE market_raw.decisions_feed${cluster}
    ADD COLUMN IF NOT EXISTS arm LowCardinality(String),
    ADD COLUMN IF NOT EXISTS session String,
    ADD COLUMN IF NOT EXISTS incumbent_blocks Int64 DEFAULT 0,
    ADD COLUMN IF NOT EXISTS money_price Float64 DEFAULT 0,
    ADD COLUMN IF NOT EXISTS shadow_version Int64 DEFAULT 0,
    ADD COLUMN IF NOT EXISTS shadow_winner LowCardinality(String),
    ADD COLUMN IF NOT EXISTS shadow_cost_nusd Nullable(Float64),
    ADD COLUMN IF NOT EXISTS shadow_p_good Nullable(Float64),
    ADD COLUMN IF NOT EXISTS shadow_p_on_time Nullable(Float64);

ALTER TABLE market_raw.catalogue${cluster}
    ADD COLUMN IF NOT EXISTS digest LowCardinality(String)
        DEFAULT JSONExtractString(record, 'digest');

ALTER TABLE market_raw.catalogue_feed${cluster}
    ADD COLUMN IF NOT EXISTS digest LowCardinality(String);

ALTER TABLE market_raw.params${cluster}
    ADD COLUMN IF NOT EXISTS revision Int64 DEFAULT JSONExtractInt(record, 'revision'),
    ADD COLUMN IF NOT EXISTS event LowCardinality(String) DEFAULT JSONExtractString(record, 'event'),
    ADD COLUMN IF NOT EXISTS share Float64 DEFAULT JSONExtractFloat(record, 'share'),
    ADD COLUMN IF NOT EXISTS tenant String DEFAULT JSONExtractString(record, 'tenant'),
    ADD COLUMN IF NOT EXISTS found String DEFAULT JSONExtractString(record, 'found');

ALTER TABLE market_raw.params_feed${cluster}
    ADD COLUMN IF NOT EXISTS revision Int64,
    ADD COLUMN IF NOT EXISTS event LowCardinality(String),
    ADD COLUMN IF NOT EXISTS share Float64,
    ADD COLUMN IF NOT EXISTS tenant String,
    ADD COLUMN IF NOT EXISTS found String;

CREATE OR REPLACE VIEW market.market_views${cluster}
(
    gateway LowCardinality(String)
        COMMENT 'gateway',
    boot LowCardinality(String)
        COMMENT 'its start',
    seq Int64
        COMMENT 'running number of its records',
    view_number Int64
        COMMENT 'number',
    at DateTime64(6, 'UTC')
        COMMENT 'UTC',
    base Int64
        COMMENT 'the view it is a change on; 0: it is all there',
    applied Map(LowCardinality(String), Array(Int64))
        COMMENT 'offsets of the records that moved the book, by log|topic|partition',
    overlay Map(LowCardinality(String), Array(Float64))
        COMMENT 'the gateway\'s own columns that changed, as row, value, row, value',
    catalogue String
        COMMENT 'digest of the catalogue, where base is 0'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    gateway,
    boot,
    seq,
    view_number,
    at,
    base,
    applied,
    overlay,
    catalogue
FROM market_raw.views
COMMENT 'What each numbered view of a gateway that a decision read was made of.';

CREATE OR REPLACE VIEW market.params_history${cluster}
(
    scope LowCardinality(String)
        COMMENT 'what they apply to',
    revision Int64
        COMMENT 'running number of the change',
    event LowCardinality(String)
        COMMENT 'set, shadow, canary, promote, rollback or end',
    version Int64
        COMMENT 'the version of the params that the change is about',
    at DateTime64(6, 'UTC')
        COMMENT 'UTC',
    by String
        COMMENT 'who',
    why String
        COMMENT 'reason given',
    share Float64
        COMMENT 'share of requests in a canary',
    tenant String
        COMMENT 'tenant a canary is limited to',
    found String
        COMMENT 'what the change was based on, as JSON: a preview or a guardrail',
    params String
        COMMENT 'all of them, as JSON'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    scope,
    revision,
    event,
    version,
    at,
    by,
    why,
    share,
    tenant,
    found,
    params
FROM market_raw.params
COMMENT 'Changes of the live params: who changed what and why, and what followed.';
