-- What became of sellers' spot asks: one row an ask, reason and second of each gateway.

CREATE TABLE IF NOT EXISTS market_raw.notices${cluster}
(
    _log LowCardinality(String),
    _life UInt32,
    _topic LowCardinality(String) DEFAULT 'market.notices',
    _partition Int32,
    _offset Int64 CODEC(Delta, ZSTD),
    _batch_first Int64 CODEC(Delta, ZSTD),
    _batch_last Int64 CODEC(Delta, ZSTD),
    _day Date,
    _stored_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD),
    gateway LowCardinality(String),
    boot LowCardinality(String),
    seq Int64 CODEC(Delta, ZSTD),
    ask_id String CODEC(ZSTD),
    offer LowCardinality(String),
    seller LowCardinality(String),
    at_us Int64 EPHEMERAL,
    at DateTime64(6, 'UTC') DEFAULT fromUnixTimestamp64Micro(at_us, 'UTC') CODEC(Delta, ZSTD),
    result LowCardinality(String),
    reason LowCardinality(String),
    n Int64 CODEC(T64, ZSTD),
    clearing_price_nusd Nullable(Float64) CODEC(ZSTD),
    short_nusd Nullable(Float64) CODEC(ZSTD),
    INDEX by_storing _stored_at TYPE minmax GRANULARITY 1,
    INDEX by_time at TYPE minmax GRANULARITY 1
)
ENGINE = ${engine}MergeTree
PARTITION BY _day
ORDER BY (_log, _partition, _offset)
TTL _day + INTERVAL 90 DAY
SETTINGS ${window} = 10000, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS market_raw.notices_feed${cluster} AS market_raw.notices ENGINE = Null;

CREATE VIEW IF NOT EXISTS market.ask_notices${cluster}
(
    at DateTime64(6, 'UTC')
        COMMENT 'when it was told, UTC',
    ask_id String
        COMMENT 'the ask',
    offer LowCardinality(String)
        COMMENT 'provider/model[@region]',
    seller LowCardinality(String)
        COMMENT 'who asked',
    result LowCardinality(String)
        COMMENT 'won or lost',
    reason LowCardinality(String)
        COMMENT 'won, outbid, or why it could not bid',
    n Int64
        COMMENT 'auctions since the last notice',
    clearing_price_usd Nullable(Float64)
        COMMENT 'won: what it could have charged; lost: what the winner was expected to cost; mean',
    short_usd Nullable(Float64)
        COMMENT 'by how much its bids lost, where they were ranked; mean',
    stored_at DateTime64(3, 'UTC')
        COMMENT 'when it came here, UTC'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    at,
    ask_id,
    offer,
    seller,
    result,
    reason,
    n,
    clearing_price_nusd / 1e9 AS clearing_price_usd,
    short_nusd / 1e9 AS short_usd,
    _stored_at AS stored_at
FROM market_raw.notices
COMMENT 'What became of sellers\' spot asks.';
