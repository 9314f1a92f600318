-- Sources of telemetry that are not heard, and the hours of the week of every offer: two compacted
-- topics, kept whole like the others.

CREATE TABLE IF NOT EXISTS market_raw.sources${cluster}
(
    _log LowCardinality(String),
    _life UInt32,
    _topic LowCardinality(String) DEFAULT 'market.sources',
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
    source LowCardinality(String) DEFAULT _key,
    until DateTime64(6, 'UTC') DEFAULT
        fromUnixTimestamp64Micro(JSONExtractInt(record, 'until_us'), 'UTC'),
    offer LowCardinality(String) DEFAULT JSONExtractString(record, 'offer'),
    n_conflicts Float64 DEFAULT JSONExtractFloat(record, 'n_conflicts'),
    claimed_fail_share Float64 DEFAULT JSONExtractFloat(record, 'claimed_fail_share'),
    own_fail_share Float64 DEFAULT JSONExtractFloat(record, 'own_fail_share'),
    claimed_ttft_ms Float64 DEFAULT JSONExtractFloat(record, 'claimed_ttft_ms'),
    own_ttft_ms Float64 DEFAULT JSONExtractFloat(record, 'own_ttft_ms'),
    INDEX by_storing _stored_at TYPE minmax GRANULARITY 1,
    INDEX by_time at TYPE minmax GRANULARITY 1
)
ENGINE = ${engine}MergeTree
PARTITION BY toYYYYMM(_day)
ORDER BY (_log, _partition, _offset)
SETTINGS ${window} = 10000;

CREATE TABLE IF NOT EXISTS market_raw.sources_feed${cluster} AS market_raw.sources ENGINE = Null;

CREATE MATERIALIZED VIEW IF NOT EXISTS market_raw.sources_to_latest${cluster} TO market_raw.latest AS
SELECT
    _topic AS topic, _key AS key, bitShiftLeft(toUInt64(_life), 44) + toUInt64(_offset) AS version,
    _log AS log, _partition AS partition, _offset AS offset, record
FROM market_raw.sources_feed;

CREATE TABLE IF NOT EXISTS market_raw.seasons${cluster}
(
    _log LowCardinality(String),
    _life UInt32,
    _topic LowCardinality(String) DEFAULT 'market.seasons',
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
    latency Array(Float64) DEFAULT JSONExtract(record, 'latency', 'Array(Float64)') CODEC(ZSTD),
    errors Array(Float64) DEFAULT JSONExtract(record, 'errors', 'Array(Float64)') CODEC(ZSTD),
    n_calls Float64 DEFAULT JSONExtractFloat(record, 'n_calls'),
    n_weeks Float64 DEFAULT JSONExtractFloat(record, 'n_weeks'),
    INDEX by_storing _stored_at TYPE minmax GRANULARITY 1,
    INDEX by_time at TYPE minmax GRANULARITY 1
)
ENGINE = ${engine}MergeTree
PARTITION BY toYYYYMM(_day)
ORDER BY (_log, _partition, _offset)
SETTINGS ${window} = 10000;

CREATE TABLE IF NOT EXISTS market_raw.seasons_feed${cluster} AS market_raw.seasons ENGINE = Null;

CREATE MATERIALIZED VIEW IF NOT EXISTS market_raw.seasons_to_latest${cluster} TO market_raw.latest AS
SELECT
    _topic AS topic, _key AS key, bitShiftLeft(toUInt64(_life), 44) + toUInt64(_offset) AS version,
    _log AS log, _partition AS partition, _offset AS offset, record
FROM market_raw.seasons_feed;

CREATE VIEW IF NOT EXISTS market.source_mutes${cluster}
(
    source LowCardinality(String)
        COMMENT 'who pushed telemetry',
    at DateTime64(6, 'UTC')
        COMMENT 'since when it is not heard, UTC',
    until DateTime64(6, 'UTC')
        COMMENT 'until when, UTC; not after at: it is heard again',
    offer LowCardinality(String)
        COMMENT 'the offer its claims conflicted about',
    n_conflicts Float64
        COMMENT 'its events in conflict with our own attempts',
    claimed_fail_share Float64
        COMMENT 'share of failures it claimed',
    own_fail_share Float64
        COMMENT 'share of failures we saw in the same minutes',
    claimed_ttft_ms Float64
        COMMENT 'time to first token it claimed, geometric mean',
    own_ttft_ms Float64
        COMMENT 'time to first token we saw, geometric mean',
    stored_at DateTime64(3, 'UTC')
        COMMENT 'when it came here, UTC'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    source,
    at,
    until,
    offer,
    n_conflicts,
    claimed_fail_share,
    own_fail_share,
    claimed_ttft_ms,
    own_ttft_ms,
    _stored_at AS stored_at
FROM market_raw.sources
COMMENT 'Sources of pushed telemetry that conflicted with our own attempts and are not heard.';

CREATE VIEW IF NOT EXISTS market.seasons${cluster}
(
    offer LowCardinality(String)
        COMMENT 'provider/model[@region]',
    at DateTime64(6, 'UTC')
        COMMENT 'when it was worked out, UTC',
    hour_of_week UInt8
        COMMENT '0 is Monday 00:00 UTC',
    latency Float64
        COMMENT 'time to first token at this hour, as a multiple of the offer\'s usual one',
    errors Float64
        COMMENT 'odds of failure at this hour, as a multiple of the offer\'s usual ones',
    n_calls Float64
        COMMENT 'calls behind all hours, older weeks weighing less',
    n_weeks Float64
        COMMENT 'weeks they were seen in',
    stored_at DateTime64(3, 'UTC')
        COMMENT 'when it came here, UTC'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    offer,
    at,
    toUInt8(hour - 1) AS hour_of_week,
    latency[hour] AS latency,
    errors[hour] AS errors,
    n_calls,
    n_weeks,
    stored_at
FROM
(
    SELECT
        offer, at, latency, errors, n_calls, n_weeks, _stored_at AS stored_at,
        arrayJoin(range(1, 169)) AS hour
    FROM market_raw.seasons
)
COMMENT 'Who peaks when: each offer\'s hours of the week against its own week.';
