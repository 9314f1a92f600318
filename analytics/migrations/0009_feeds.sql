-- How feeds are doing, and more of what status pages say: when the page first told, whom it concerns.

CREATE TABLE IF NOT EXISTS market_raw.feeds${cluster}
(
    _log LowCardinality(String),
    _life UInt32,
    _topic LowCardinality(String) DEFAULT 'market.feeds',
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
    feed LowCardinality(String) DEFAULT _key,
    of LowCardinality(String) DEFAULT JSONExtractString(record, 'of'),
    provider LowCardinality(String) DEFAULT JSONExtractString(record, 'provider'),
    good_at DateTime64(6, 'UTC') DEFAULT
        fromUnixTimestamp64Micro(JSONExtractInt(record, 'good_at_us'), 'UTC'),
    n_polls Int64 DEFAULT JSONExtractInt(record, 'n_polls'),
    n_bad Int64 DEFAULT JSONExtractInt(record, 'n_bad'),
    n_refused Int64 DEFAULT arraySum(mapValues(JSONExtract(record, 'refused', 'Map(String, Int64)'))),
    n_items Int64 DEFAULT JSONExtractInt(record, 'n_items'),
    n_held Int64 DEFAULT JSONExtractInt(record, 'n_held'),
    error String DEFAULT JSONExtractString(record, 'error'),
    INDEX by_storing _stored_at TYPE minmax GRANULARITY 1,
    INDEX by_time at TYPE minmax GRANULARITY 1
)
ENGINE = ${engine}MergeTree
PARTITION BY _day
ORDER BY (_log, _partition, _offset)
TTL _day + INTERVAL 30 DAY
SETTINGS ${window} = 10000, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS market_raw.feeds_feed${cluster} AS market_raw.feeds ENGINE = Null;

CREATE MATERIALIZED VIEW IF NOT EXISTS market_raw.feeds_to_latest${cluster} TO market_raw.latest AS
SELECT
    _topic AS topic, _key AS key, bitShiftLeft(toUInt64(_life), 44) + toUInt64(_offset) AS version,
    _log AS log, _partition AS partition, _offset AS offset, record
FROM market_raw.feeds_feed;

CREATE VIEW IF NOT EXISTS market.feeds${cluster}
(
    feed LowCardinality(String)
        COMMENT 'its id',
    of LowCardinality(String)
        COMMENT 'status or prices',
    provider LowCardinality(String)
        COMMENT 'whose; empty for a list of many',
    at DateTime64(6, 'UTC')
        COMMENT 'when this was said of it, UTC',
    good_at DateTime64(6, 'UTC')
        COMMENT 'when its document was last understood or unchanged, UTC; 1970: never',
    n_polls Int64
        COMMENT 'times it was asked',
    n_bad Int64
        COMMENT 'documents that could not be read',
    n_refused Int64
        COMMENT 'documents that were not to be had, or refused unread',
    n_items Int64
        COMMENT 'incidents going on, or offers priced',
    n_held Int64
        COMMENT 'prices in quarantine',
    error String
        COMMENT 'what is wrong with it; empty when all is well',
    log LowCardinality(String)
        COMMENT 'log incarnation the record was on',
    log_partition Int32
        COMMENT 'log partition',
    log_offset Int64
        COMMENT 'offset in that partition',
    stored_at DateTime64(3, 'UTC')
        COMMENT 'when it came here, UTC'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    feed,
    of,
    provider,
    at,
    good_at,
    n_polls,
    n_bad,
    n_refused,
    n_items,
    n_held,
    error,
    _log AS log,
    _partition AS log_partition,
    _offset AS log_offset,
    _stored_at AS stored_at
FROM market_raw.feeds
COMMENT 'How feeds are doing, every few seconds and whenever that changes.';

ALTER TABLE market_raw.status${cluster}
    ADD COLUMN IF NOT EXISTS told DateTime64(6, 'UTC') DEFAULT
        fromUnixTimestamp64Micro(JSONExtractInt(record, 'told_us'), 'UTC'),
    ADD COLUMN IF NOT EXISTS scope LowCardinality(String) DEFAULT
        if(JSONHas(record, 'scope'), JSONExtractString(record, 'scope'), 'provider'),
    ADD COLUMN IF NOT EXISTS feed LowCardinality(String) DEFAULT JSONExtractString(record, 'feed');

ALTER TABLE market_raw.status_feed${cluster}
    ADD COLUMN IF NOT EXISTS told DateTime64(6, 'UTC'),
    ADD COLUMN IF NOT EXISTS scope LowCardinality(String),
    ADD COLUMN IF NOT EXISTS feed LowCardinality(String);

CREATE OR REPLACE VIEW market.incidents${cluster}
(
    provider LowCardinality(String)
        COMMENT 'who reports',
    at DateTime64(6, 'UTC')
        COMMENT 'when we read it, UTC',
    component LowCardinality(String)
        COMMENT 'part of the provider, by its own name',
    severity LowCardinality(String)
        COMMENT 'none, minor, major, critical or maintenance',
    state LowCardinality(String)
        COMMENT 'investigating, identified, monitoring, resolved …',
    since DateTime64(6, 'UTC')
        COMMENT 'when it began, by the provider\'s word',
    told DateTime64(6, 'UTC')
        COMMENT 'when the page first told, by its own word; 1970: it does not say',
    incident_id String
        COMMENT 'provider\'s id of it',
    title String
        COMMENT 'the provider\'s words',
    scope LowCardinality(String)
        COMMENT 'whom it concerns: all of the provider, models of it, or none of ours',
    models Array(String)
        COMMENT 'models concerned',
    feed LowCardinality(String)
        COMMENT 'the feed it was read on',
    log LowCardinality(String)
        COMMENT 'log incarnation the record was on',
    log_partition Int32
        COMMENT 'log partition',
    log_offset Int64
        COMMENT 'offset in that partition',
    stored_at DateTime64(3, 'UTC')
        COMMENT 'when it came here, UTC'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    provider,
    at,
    component,
    severity,
    state,
    since,
    told,
    incident_id,
    title,
    scope,
    models,
    feed,
    _log AS log,
    _partition AS log_partition,
    _offset AS log_offset,
    _stored_at AS stored_at
FROM market_raw.status
COMMENT 'What providers say of themselves on their status pages.';
