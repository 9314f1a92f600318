-- Prompts of tenants whose operator chose to keep them: ciphertext, in a table that no view shows. The
-- body is erased at its time; its row stays as a mark on the log, so that the recorder's chain keeps
-- its end. And how many rows were forgotten, so that the ledger does not take them for lost.

CREATE TABLE IF NOT EXISTS market_raw.prompts${cluster}
(
    _log LowCardinality(String),
    _life UInt32,
    _topic LowCardinality(String) DEFAULT 'market.prompts',
    _partition Int32,
    _offset Int64 CODEC(Delta, ZSTD),
    _batch_first Int64 CODEC(Delta, ZSTD),
    _batch_last Int64 CODEC(Delta, ZSTD),
    _day Date,
    _stored_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD),
    gateway LowCardinality(String),
    boot LowCardinality(String),
    seq Int64 CODEC(Delta, ZSTD),
    decision_id String CODEC(ZSTD),
    tenant LowCardinality(String),
    session String CODEC(ZSTD),
    at_us Int64 EPHEMERAL,
    at DateTime64(6, 'UTC') DEFAULT fromUnixTimestamp64Micro(at_us, 'UTC') CODEC(Delta, ZSTD),
    expires_at_us Int64 EPHEMERAL,
    expires_at DateTime('UTC') DEFAULT toDateTime(intDiv(expires_at_us, 1000000), 'UTC')
        CODEC(Delta, ZSTD),
    body String CODEC(NONE) TTL expires_at,
    INDEX by_storing _stored_at TYPE minmax GRANULARITY 1,
    INDEX by_decision decision_id TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = ${engine}MergeTree
PARTITION BY _day
ORDER BY (_log, _partition, _offset)
SETTINGS ${window} = 10000, merge_with_ttl_timeout = 3600;

CREATE TABLE IF NOT EXISTS market_raw.forgettings${cluster}
(
    at DateTime64(3, 'UTC') DEFAULT now64(3),
    scope LowCardinality(String),
    topic LowCardinality(String),
    gateway LowCardinality(String),
    boot LowCardinality(String),
    n UInt64
)
ENGINE = ${engine}MergeTree
ORDER BY at
SETTINGS ${window} = 10000;

CREATE VIEW IF NOT EXISTS market.forgettings${cluster}
(
    at DateTime64(3, 'UTC')
        COMMENT 'when, UTC',
    scope LowCardinality(String)
        COMMENT 'tenant or session; never which',
    topic LowCardinality(String)
        COMMENT 'what kind of rows',
    gateway LowCardinality(String)
        COMMENT 'writer of the rows',
    boot LowCardinality(String)
        COMMENT 'random number of the writer\'s start',
    n UInt64
        COMMENT 'rows removed'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT at, scope, topic, gateway, boot, n
FROM market_raw.forgettings
COMMENT 'Rows removed because a tenant or a session was to be forgotten: how many, never whose.';
