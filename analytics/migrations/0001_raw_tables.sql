-- One table a topic, one row a record. Names beginning with _ are the record's place on the log:
-- _log is the log's incarnation and _life its number in order of appearance, _batch_first and
-- _batch_last the range of offsets that was appended with it, _day the day of that. A batch
-- is one block in one partition, so it is there whole or not at all; the window makes ClickHouse
-- remember the tokens of that many inserts (docs/decisions/0004-exactly-once.md).
-- Sorted by place on the log, which is nearly by time, so that a batch is found by the primary key.

CREATE DATABASE IF NOT EXISTS market_raw${cluster};

CREATE DATABASE IF NOT EXISTS market${cluster};

-- Which log came when: offsets mean something only within one life. A life is settled when a later
-- one has begun and its last batches are known to be in all rollups.
CREATE TABLE IF NOT EXISTS market_raw.lives${cluster}
(
    log String,
    life UInt32,
    settled UInt8,
    noted_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ${engine}ReplacingMergeTree(settled)
ORDER BY log;

CREATE TABLE IF NOT EXISTS market_raw.attempts${cluster}
(
    _log LowCardinality(String),
    _life UInt32,
    _topic LowCardinality(String) DEFAULT 'market.attempts',
    _partition Int32,
    _offset Int64 CODEC(Delta, ZSTD),
    _batch_first Int64 CODEC(Delta, ZSTD),
    _batch_last Int64 CODEC(Delta, ZSTD),
    _day Date,
    _stored_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD),
    gateway LowCardinality(String),
    boot LowCardinality(String),
    seq Int64 CODEC(Delta, ZSTD),
    attempt_id String CODEC(ZSTD),
    decision_id String CODEC(ZSTD),
    n Int64 CODEC(T64, ZSTD),
    offer LowCardinality(String),
    provider LowCardinality(String),
    model LowCardinality(String),
    task LowCardinality(String),
    tenant LowCardinality(String),
    sla_class LowCardinality(String),
    source LowCardinality(String),
    at_us Int64 EPHEMERAL,
    at DateTime64(6, 'UTC') DEFAULT fromUnixTimestamp64Micro(at_us, 'UTC') CODEC(Delta, ZSTD),
    started_at_us Int64 EPHEMERAL,
    started_at DateTime64(6, 'UTC') DEFAULT fromUnixTimestamp64Micro(started_at_us, 'UTC')
        CODEC(Delta, ZSTD),
    failure LowCardinality(String),
    -- What the ending teaches of the offer, as `bidding.outcome.lesson`.
    lesson LowCardinality(String) DEFAULT multiIf(
        failure = 'ok', 'success',
        failure IN ('rate_limited', 'overloaded', 'quota'), 'capacity',
        failure IN ('bad_request', 'cancelled', 'hedge_lost', 'refused', 'context_too_long'),
        'nothing', 'failure'),
    streaming Bool,
    ttft_ms Nullable(Float64) CODEC(ZSTD),
    total_ms Nullable(Float64) CODEC(ZSTD),
    waited_ms Nullable(Float64) CODEC(ZSTD),
    input_tokens Int64 CODEC(T64, ZSTD),
    output_tokens Int64 CODEC(T64, ZSTD),
    cached_tokens Int64 CODEC(T64, ZSTD),
    usage_estimated Bool,
    cost_nusd Int64 CODEC(T64, ZSTD),
    n_inflight Int64 CODEC(T64, ZSTD),
    http_status Int64 CODEC(T64, ZSTD),
    retry_after_s Nullable(Float64) CODEC(ZSTD),
    reason String CODEC(ZSTD),
    hedge Bool,
    trust Float64 CODEC(ZSTD),
    INDEX by_storing _stored_at TYPE minmax GRANULARITY 1,
    INDEX by_time at TYPE minmax GRANULARITY 1,
    INDEX by_decision decision_id TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = ${engine}MergeTree
PARTITION BY _day
ORDER BY (_log, _partition, _offset)
TTL _day + INTERVAL 90 DAY
SETTINGS ${window} = 10000, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS market_raw.decisions${cluster}
(
    _log LowCardinality(String),
    _life UInt32,
    _topic LowCardinality(String) DEFAULT 'market.decisions',
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
    at_us Int64 EPHEMERAL,
    at DateTime64(6, 'UTC') DEFAULT fromUnixTimestamp64Micro(at_us, 'UTC') CODEC(Delta, ZSTD),
    task LowCardinality(String),
    tenant LowCardinality(String),
    sla_class LowCardinality(String),
    sla String CODEC(ZSTD),
    input_tokens Int64 CODEC(T64, ZSTD),
    max_output_tokens Nullable(Int64) CODEC(ZSTD),
    needs Int64 CODEC(T64, ZSTD),
    candidates Array(LowCardinality(String)),
    features Array(Float64) CODEC(ZSTD),
    incumbent LowCardinality(String),
    incumbent_cached_tokens Int64 CODEC(T64, ZSTD),
    reserve_nusd Nullable(Float64) CODEC(ZSTD),
    streaming Bool,
    seed UInt64 CODEC(ZSTD),
    policy LowCardinality(String),
    params_version Int64 CODEC(T64, ZSTD),
    view_number Int64 CODEC(Delta, ZSTD),
    winner LowCardinality(String),
    ranked Array(Tuple(offer LowCardinality(String), score_nusd Float64, cost_nusd Float64,
        p_good Float64, p_on_time Float64)) CODEC(ZSTD),
    n_bids Int64 CODEC(T64, ZSTD),
    no_bids Map(LowCardinality(String), Int64),
    clearing_price_nusd Nullable(Float64) CODEC(ZSTD),
    propensity Nullable(Float64) CODEC(ZSTD),
    feasible Bool,
    quality_price_nusd Float64 CODEC(ZSTD),
    punctuality_price_nusd Float64 CODEC(ZSTD),
    best_offer LowCardinality(String),
    best_cost_nusd Nullable(Float64) CODEC(ZSTD),
    cheapest_offer LowCardinality(String),
    cheapest_cost_nusd Nullable(Float64) CODEC(ZSTD),
    target_quality Nullable(Float64) CODEC(ZSTD),
    target_on_time Nullable(Float64) CODEC(ZSTD),
    only Bool,
    delivered_offer LowCardinality(String),
    delivered_model LowCardinality(String),
    p_good Nullable(Float64) CODEC(ZSTD),
    p_on_time Nullable(Float64) CODEC(ZSTD),
    n_attempts Int64 CODEC(T64, ZSTD),
    failure LowCardinality(String),
    ttft_ms Nullable(Float64) CODEC(ZSTD),
    total_ms Nullable(Float64) CODEC(ZSTD),
    on_time Nullable(Bool),
    input_tokens_billed Int64 CODEC(T64, ZSTD),
    output_tokens Int64 CODEC(T64, ZSTD),
    cost_nusd Int64 CODEC(T64, ZSTD),
    overhead_us Nullable(Float64) CODEC(ZSTD),
    INDEX by_storing _stored_at TYPE minmax GRANULARITY 1,
    INDEX by_time at TYPE minmax GRANULARITY 1,
    INDEX by_decision decision_id TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = ${engine}MergeTree
PARTITION BY _day
ORDER BY (_log, _partition, _offset)
TTL _day + INTERVAL 90 DAY
SETTINGS ${window} = 10000, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS market_raw.feedback${cluster}
(
    _log LowCardinality(String),
    _life UInt32,
    _topic LowCardinality(String) DEFAULT 'market.feedback',
    _partition Int32,
    _offset Int64 CODEC(Delta, ZSTD),
    _batch_first Int64 CODEC(Delta, ZSTD),
    _batch_last Int64 CODEC(Delta, ZSTD),
    _day Date,
    _stored_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD),
    gateway LowCardinality(String),
    boot LowCardinality(String),
    seq Int64 CODEC(Delta, ZSTD),
    feedback_id String CODEC(ZSTD),
    decision_id String CODEC(ZSTD),
    at_us Int64 EPHEMERAL,
    at DateTime64(6, 'UTC') DEFAULT fromUnixTimestamp64Micro(at_us, 'UTC') CODEC(Delta, ZSTD),
    task LowCardinality(String),
    tenant LowCardinality(String),
    sla_class LowCardinality(String),
    offer LowCardinality(String),
    model LowCardinality(String),
    quality Float64 CODEC(ZSTD),
    source LowCardinality(String),
    features Array(Float64) CODEC(ZSTD),
    p_good Nullable(Float64) CODEC(ZSTD),
    propensity Nullable(Float64) CODEC(ZSTD),
    labelled_share Float64 CODEC(ZSTD),
    weight Float64 CODEC(ZSTD),
    INDEX by_storing _stored_at TYPE minmax GRANULARITY 1,
    INDEX by_time at TYPE minmax GRANULARITY 1,
    INDEX by_decision decision_id TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = ${engine}MergeTree
PARTITION BY _day
ORDER BY (_log, _partition, _offset)
TTL _day + INTERVAL 180 DAY
SETTINGS ${window} = 10000, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS market_raw.views${cluster}
(
    _log LowCardinality(String),
    _life UInt32,
    _topic LowCardinality(String) DEFAULT 'market.views',
    _partition Int32,
    _offset Int64 CODEC(Delta, ZSTD),
    _batch_first Int64 CODEC(Delta, ZSTD),
    _batch_last Int64 CODEC(Delta, ZSTD),
    _day Date,
    _stored_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD),
    gateway LowCardinality(String),
    boot LowCardinality(String),
    seq Int64 CODEC(Delta, ZSTD),
    view_number Int64 CODEC(Delta, ZSTD),
    at_us Int64 EPHEMERAL,
    at DateTime64(6, 'UTC') DEFAULT fromUnixTimestamp64Micro(at_us, 'UTC') CODEC(Delta, ZSTD),
    positions Array(Tuple(log LowCardinality(String), topic LowCardinality(String),
        partition Int64, offset Int64)) CODEC(ZSTD),
    overlay Map(LowCardinality(String), Array(Float64)) CODEC(ZSTD),
    INDEX by_storing _stored_at TYPE minmax GRANULARITY 1,
    INDEX by_time at TYPE minmax GRANULARITY 1,
    INDEX by_view view_number TYPE minmax GRANULARITY 1
)
ENGINE = ${engine}MergeTree
PARTITION BY _day
ORDER BY (_log, _partition, _offset)
TTL _day + INTERVAL 30 DAY
SETTINGS ${window} = 10000, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS market_raw.dead${cluster}
(
    _log LowCardinality(String),
    _life UInt32,
    _topic LowCardinality(String) DEFAULT 'market.dead',
    _partition Int32,
    _offset Int64 CODEC(Delta, ZSTD),
    _batch_first Int64 CODEC(Delta, ZSTD),
    _batch_last Int64 CODEC(Delta, ZSTD),
    _day Date,
    _stored_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD),
    gateway LowCardinality(String),
    boot LowCardinality(String),
    seq Int64 CODEC(Delta, ZSTD),
    at_us Int64 EPHEMERAL,
    at DateTime64(6, 'UTC') DEFAULT fromUnixTimestamp64Micro(at_us, 'UTC') CODEC(Delta, ZSTD),
    topic LowCardinality(String),
    partition Int64,
    offset Int64,
    reason String CODEC(ZSTD),
    -- Base64, as on the log: the bytes may be anything.
    payload String CODEC(ZSTD),
    INDEX by_storing _stored_at TYPE minmax GRANULARITY 1,
    INDEX by_time at TYPE minmax GRANULARITY 1
)
ENGINE = ${engine}MergeTree
PARTITION BY _day
ORDER BY (_log, _partition, _offset)
TTL _day + INTERVAL 90 DAY
SETTINGS ${window} = 10000, ttl_only_drop_parts = 1;
