-- Compacted topics: the record whole, because `restore` writes it back to an empty log as it was,
-- and typed columns computed from it, because analysts ask for those. `latest` keeps the newest
-- record of every key; newer is by life and offset, never by a clock.

CREATE TABLE IF NOT EXISTS market_raw.quotes${cluster}
(
    _log LowCardinality(String),
    _life UInt32,
    _topic LowCardinality(String) DEFAULT 'market.quotes',
    _partition Int32,
    _offset Int64 CODEC(Delta, ZSTD),
    _batch_first Int64 CODEC(Delta, ZSTD),
    _batch_last Int64 CODEC(Delta, ZSTD),
    _day Date,
    _stored_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD),
    _key String,
    record String CODEC(ZSTD(3)),
    at DateTime64(6, 'UTC') DEFAULT
        fromUnixTimestamp64Micro(JSONExtractInt(record, 'at_us'), 'UTC') CODEC(Delta, ZSTD),
    offer LowCardinality(String) DEFAULT _key,
    quote Tuple(ttft_log_ms Float64, ttft_log_sd Float64, ttft_n Float64, tpot_log_ms Float64,
        tpot_log_sd Float64, tpot_n Float64, fail_share Float64, fail_n Float64, health String,
        retry_at_us Int64, capacity_share Float64)
        DEFAULT JSONExtract(record, 'quote', 'Tuple(ttft_log_ms Float64, ttft_log_sd Float64,
            ttft_n Float64, tpot_log_ms Float64, tpot_log_sd Float64, tpot_n Float64,
            fail_share Float64, fail_n Float64, health String, retry_at_us Int64,
            capacity_share Float64)') CODEC(ZSTD),
    INDEX by_storing _stored_at TYPE minmax GRANULARITY 1,
    INDEX by_time at TYPE minmax GRANULARITY 1
)
ENGINE = ${engine}MergeTree
PARTITION BY _day
ORDER BY (_log, _partition, _offset)
TTL _day + INTERVAL 30 DAY
SETTINGS ${window} = 10000, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS market_raw.skills${cluster}
(
    _log LowCardinality(String),
    _life UInt32,
    _topic LowCardinality(String) DEFAULT 'market.skills',
    _partition Int32,
    _offset Int64 CODEC(Delta, ZSTD),
    _batch_first Int64 CODEC(Delta, ZSTD),
    _batch_last Int64 CODEC(Delta, ZSTD),
    _day Date,
    _stored_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD),
    _key String,
    record String CODEC(ZSTD(3)),
    at DateTime64(6, 'UTC') DEFAULT
        fromUnixTimestamp64Micro(JSONExtractInt(record, 'at_us'), 'UTC') CODEC(Delta, ZSTD),
    task LowCardinality(String) DEFAULT _key,
    classes Array(Tuple(sla_class String, quality_price_nusd Float64,
        punctuality_price_nusd Float64, target_quality Nullable(Float64),
        target_on_time Nullable(Float64), delivered_quality Nullable(Float64),
        delivered_on_time Nullable(Float64), n Float64, n_labels Float64,
        quality_binding Bool, punctuality_binding Bool))
        DEFAULT JSONExtract(record, 'skill', 'classes', 'Array(Tuple(sla_class String,
            quality_price_nusd Float64, punctuality_price_nusd Float64,
            target_quality Nullable(Float64), target_on_time Nullable(Float64),
            delivered_quality Nullable(Float64), delivered_on_time Nullable(Float64), n Float64,
            n_labels Float64, quality_binding Bool, punctuality_binding Bool))') CODEC(ZSTD),
    INDEX by_storing _stored_at TYPE minmax GRANULARITY 1,
    INDEX by_time at TYPE minmax GRANULARITY 1
)
ENGINE = ${engine}MergeTree
PARTITION BY _day
ORDER BY (_log, _partition, _offset)
TTL _day + INTERVAL 30 DAY
SETTINGS ${window} = 10000, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS market_raw.prices${cluster}
(
    _log LowCardinality(String),
    _life UInt32,
    _topic LowCardinality(String) DEFAULT 'market.prices',
    _partition Int32,
    _offset Int64 CODEC(Delta, ZSTD),
    _batch_first Int64 CODEC(Delta, ZSTD),
    _batch_last Int64 CODEC(Delta, ZSTD),
    _day Date,
    _stored_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD),
    _key String,
    record String CODEC(ZSTD(3)),
    at DateTime64(6, 'UTC') DEFAULT
        fromUnixTimestamp64Micro(JSONExtractInt(record, 'at_us'), 'UTC') CODEC(Delta, ZSTD),
    offer LowCardinality(String) DEFAULT _key,
    prices Tuple(input_nusd_per_mtok Int64, output_nusd_per_mtok Int64,
        cache_read_nusd_per_mtok Nullable(Int64), cache_write_nusd_per_mtok Nullable(Int64),
        request_nusd Int64)
        DEFAULT JSONExtract(record, 'prices', 'Tuple(input_nusd_per_mtok Int64, output_nusd_per_mtok Int64,
            cache_read_nusd_per_mtok Nullable(Int64), cache_write_nusd_per_mtok Nullable(Int64),
            request_nusd Int64)'),
    old Tuple(input_nusd_per_mtok Nullable(Int64), output_nusd_per_mtok Nullable(Int64))
        DEFAULT JSONExtract(record, 'old', 'Tuple(input_nusd_per_mtok Nullable(Int64),
            output_nusd_per_mtok Nullable(Int64))'),
    source LowCardinality(String) DEFAULT JSONExtractString(record, 'source'),
    effective_at DateTime64(6, 'UTC') DEFAULT
        fromUnixTimestamp64Micro(JSONExtractInt(record, 'effective_at_us'), 'UTC'),
    quarantined String DEFAULT JSONExtractString(record, 'quarantined'),
    INDEX by_storing _stored_at TYPE minmax GRANULARITY 1,
    INDEX by_time at TYPE minmax GRANULARITY 1
)
ENGINE = ${engine}MergeTree
PARTITION BY toYYYYMM(_day)
ORDER BY (_log, _partition, _offset)
SETTINGS ${window} = 10000;

CREATE TABLE IF NOT EXISTS market_raw.status${cluster}
(
    _log LowCardinality(String),
    _life UInt32,
    _topic LowCardinality(String) DEFAULT 'market.status',
    _partition Int32,
    _offset Int64 CODEC(Delta, ZSTD),
    _batch_first Int64 CODEC(Delta, ZSTD),
    _batch_last Int64 CODEC(Delta, ZSTD),
    _day Date,
    _stored_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD),
    _key String,
    record String CODEC(ZSTD(3)),
    at DateTime64(6, 'UTC') DEFAULT
        fromUnixTimestamp64Micro(JSONExtractInt(record, 'at_us'), 'UTC') CODEC(Delta, ZSTD),
    provider LowCardinality(String) DEFAULT JSONExtractString(record, 'provider'),
    component LowCardinality(String) DEFAULT JSONExtractString(record, 'component'),
    severity LowCardinality(String) DEFAULT JSONExtractString(record, 'severity'),
    state LowCardinality(String) DEFAULT JSONExtractString(record, 'state'),
    since DateTime64(6, 'UTC') DEFAULT
        fromUnixTimestamp64Micro(JSONExtractInt(record, 'since_us'), 'UTC'),
    incident_id String DEFAULT JSONExtractString(record, 'incident_id'),
    title String DEFAULT JSONExtractString(record, 'title'),
    models Array(String) DEFAULT JSONExtract(record, 'models', 'Array(String)'),
    INDEX by_storing _stored_at TYPE minmax GRANULARITY 1,
    INDEX by_time at TYPE minmax GRANULARITY 1
)
ENGINE = ${engine}MergeTree
PARTITION BY toYYYYMM(_day)
ORDER BY (_log, _partition, _offset)
SETTINGS ${window} = 10000;

CREATE TABLE IF NOT EXISTS market_raw.params${cluster}
(
    _log LowCardinality(String),
    _life UInt32,
    _topic LowCardinality(String) DEFAULT 'control.params',
    _partition Int32,
    _offset Int64 CODEC(Delta, ZSTD),
    _batch_first Int64 CODEC(Delta, ZSTD),
    _batch_last Int64 CODEC(Delta, ZSTD),
    _day Date,
    _stored_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD),
    _key String,
    record String CODEC(ZSTD(3)),
    at DateTime64(6, 'UTC') DEFAULT
        fromUnixTimestamp64Micro(JSONExtractInt(record, 'at_us'), 'UTC') CODEC(Delta, ZSTD),
    scope LowCardinality(String) DEFAULT JSONExtractString(record, 'scope'),
    version Int64 DEFAULT JSONExtractInt(record, 'version'),
    by String DEFAULT JSONExtractString(record, 'by'),
    why String DEFAULT JSONExtractString(record, 'why'),
    params String DEFAULT JSONExtractString(record, 'params'),
    INDEX by_storing _stored_at TYPE minmax GRANULARITY 1,
    INDEX by_time at TYPE minmax GRANULARITY 1
)
ENGINE = ${engine}MergeTree
PARTITION BY toYYYYMM(_day)
ORDER BY (_log, _partition, _offset)
SETTINGS ${window} = 10000;

CREATE TABLE IF NOT EXISTS market_raw.keys${cluster}
(
    _log LowCardinality(String),
    _life UInt32,
    _topic LowCardinality(String) DEFAULT 'control.keys',
    _partition Int32,
    _offset Int64 CODEC(Delta, ZSTD),
    _batch_first Int64 CODEC(Delta, ZSTD),
    _batch_last Int64 CODEC(Delta, ZSTD),
    _day Date,
    _stored_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD),
    _key String,
    record String CODEC(ZSTD(3)),
    at DateTime64(6, 'UTC') DEFAULT
        fromUnixTimestamp64Micro(JSONExtractInt(record, 'at_us'), 'UTC') CODEC(Delta, ZSTD),
    tenant LowCardinality(String) DEFAULT JSONExtractString(record, 'tenant'),
    revoked Bool DEFAULT JSONExtractBool(record, 'revoked'),
    INDEX by_storing _stored_at TYPE minmax GRANULARITY 1,
    INDEX by_time at TYPE minmax GRANULARITY 1
)
ENGINE = ${engine}MergeTree
PARTITION BY toYYYYMM(_day)
ORDER BY (_log, _partition, _offset)
SETTINGS ${window} = 10000;

CREATE TABLE IF NOT EXISTS market_raw.catalogue${cluster}
(
    _log LowCardinality(String),
    _life UInt32,
    _topic LowCardinality(String) DEFAULT 'control.catalogue',
    _partition Int32,
    _offset Int64 CODEC(Delta, ZSTD),
    _batch_first Int64 CODEC(Delta, ZSTD),
    _batch_last Int64 CODEC(Delta, ZSTD),
    _day Date,
    _stored_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD),
    _key String,
    record String CODEC(ZSTD(3)),
    at DateTime64(6, 'UTC') DEFAULT
        fromUnixTimestamp64Micro(JSONExtractInt(record, 'at_us'), 'UTC') CODEC(Delta, ZSTD),
    n_providers UInt32 DEFAULT JSONLength(record, 'catalogue', 'providers'),
    n_models UInt32 DEFAULT JSONLength(record, 'catalogue', 'models'),
    n_offers UInt32 DEFAULT JSONLength(record, 'catalogue', 'offers'),
    INDEX by_storing _stored_at TYPE minmax GRANULARITY 1,
    INDEX by_time at TYPE minmax GRANULARITY 1
)
ENGINE = ${engine}MergeTree
PARTITION BY toYYYYMM(_day)
ORDER BY (_log, _partition, _offset)
SETTINGS ${window} = 10000;

CREATE TABLE IF NOT EXISTS market_raw.latest${cluster}
(
    topic LowCardinality(String),
    key String,
    version UInt64,
    log LowCardinality(String),
    partition Int32,
    offset Int64,
    record String CODEC(ZSTD(3))
)
ENGINE = ${engine}ReplacingMergeTree(version)
ORDER BY (topic, key)
SETTINGS ${window} = 10000;

-- What is appended to a table is sent on, from the table itself, to a feed of the same columns that
-- keeps nothing; rollups hang on the feeds. So whatever feeds them always sends what was stored.

CREATE TABLE IF NOT EXISTS market_raw.attempts_feed${cluster} AS market_raw.attempts ENGINE = Null;

CREATE TABLE IF NOT EXISTS market_raw.decisions_feed${cluster} AS market_raw.decisions ENGINE = Null;

CREATE TABLE IF NOT EXISTS market_raw.feedback_feed${cluster} AS market_raw.feedback ENGINE = Null;

CREATE TABLE IF NOT EXISTS market_raw.quotes_feed${cluster} AS market_raw.quotes ENGINE = Null;

CREATE TABLE IF NOT EXISTS market_raw.skills_feed${cluster} AS market_raw.skills ENGINE = Null;

CREATE TABLE IF NOT EXISTS market_raw.prices_feed${cluster} AS market_raw.prices ENGINE = Null;

CREATE TABLE IF NOT EXISTS market_raw.status_feed${cluster} AS market_raw.status ENGINE = Null;

CREATE TABLE IF NOT EXISTS market_raw.params_feed${cluster} AS market_raw.params ENGINE = Null;

CREATE TABLE IF NOT EXISTS market_raw.keys_feed${cluster} AS market_raw.keys ENGINE = Null;

CREATE TABLE IF NOT EXISTS market_raw.catalogue_feed${cluster} AS market_raw.catalogue ENGINE = Null;

CREATE MATERIALIZED VIEW IF NOT EXISTS market_raw.quotes_to_latest${cluster} TO market_raw.latest AS
SELECT
    _topic AS topic, _key AS key, bitShiftLeft(toUInt64(_life), 44) + toUInt64(_offset) AS version,
    _log AS log, _partition AS partition, _offset AS offset, record
FROM market_raw.quotes_feed;

CREATE MATERIALIZED VIEW IF NOT EXISTS market_raw.skills_to_latest${cluster} TO market_raw.latest AS
SELECT
    _topic AS topic, _key AS key, bitShiftLeft(toUInt64(_life), 44) + toUInt64(_offset) AS version,
    _log AS log, _partition AS partition, _offset AS offset, record
FROM market_raw.skills_feed;

CREATE MATERIALIZED VIEW IF NOT EXISTS market_raw.prices_to_latest${cluster} TO market_raw.latest AS
SELECT
    _topic AS topic, _key AS key, bitShiftLeft(toUInt64(_life), 44) + toUInt64(_offset) AS version,
    _log AS log, _partition AS partition, _offset AS offset, record
FROM market_raw.prices_feed;

CREATE MATERIALIZED VIEW IF NOT EXISTS market_raw.status_to_latest${cluster} TO market_raw.latest AS
SELECT
    _topic AS topic, _key AS key, bitShiftLeft(toUInt64(_life), 44) + toUInt64(_offset) AS version,
    _log AS log, _partition AS partition, _offset AS offset, record
FROM market_raw.status_feed;

CREATE MATERIALIZED VIEW IF NOT EXISTS market_raw.params_to_latest${cluster} TO market_raw.latest AS
SELECT
    _topic AS topic, _key AS key, bitShiftLeft(toUInt64(_life), 44) + toUInt64(_offset) AS version,
    _log AS log, _partition AS partition, _offset AS offset, record
FROM market_raw.params_feed;

CREATE MATERIALIZED VIEW IF NOT EXISTS market_raw.keys_to_latest${cluster} TO market_raw.latest AS
SELECT
    _topic AS topic, _key AS key, bitShiftLeft(toUInt64(_life), 44) + toUInt64(_offset) AS version,
    _log AS log, _partition AS partition, _offset AS offset, record
FROM market_raw.keys_feed;

CREATE MATERIALIZED VIEW IF NOT EXISTS market_raw.catalogue_to_latest${cluster} TO market_raw.latest AS
SELECT
    _topic AS topic, _key AS key, bitShiftLeft(toUInt64(_life), 44) + toUInt64(_offset) AS version,
    _log AS log, _partition AS partition, _offset AS offset, record
FROM market_raw.catalogue_feed;
