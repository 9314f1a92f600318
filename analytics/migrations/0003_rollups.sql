-- A number from the log may be anything finite, so each is brought within bounds before it is made
-- whole: a view that throws would stop the recorder.
--
-- Rollups: sums of whole numbers only (nano-dollars, microseconds, millionths), so that they equal
-- the same sums over raw rows to the last unit, whatever the order; quantiles are DDSketches of
-- 1 % relative error, which merge exactly too.

CREATE TABLE IF NOT EXISTS market_raw.offer_minutes${cluster}
(
    minute DateTime('UTC') CODEC(Delta, ZSTD),
    offer LowCardinality(String),
    provider LowCardinality(String),
    model LowCardinality(String),
    source LowCardinality(String),
    n SimpleAggregateFunction(sum, UInt64),
    n_ok SimpleAggregateFunction(sum, UInt64),
    n_failed SimpleAggregateFunction(sum, UInt64),
    n_capacity SimpleAggregateFunction(sum, UInt64),
    n_timeouts SimpleAggregateFunction(sum, UInt64),
    n_hedges SimpleAggregateFunction(sum, UInt64),
    n_fallbacks SimpleAggregateFunction(sum, UInt64),
    input_tokens SimpleAggregateFunction(sum, Int64),
    output_tokens SimpleAggregateFunction(sum, Int64),
    cached_tokens SimpleAggregateFunction(sum, Int64),
    cost_nusd SimpleAggregateFunction(sum, Int64),
    n_ttft SimpleAggregateFunction(sum, UInt64),
    ttft_sum_us SimpleAggregateFunction(sum, Int64),
    n_total SimpleAggregateFunction(sum, UInt64),
    total_sum_us SimpleAggregateFunction(sum, Int64),
    ttft_sketch AggregateFunction(quantilesDD(0.01, 0.5, 0.9, 0.95, 0.99), Float64),
    total_sketch AggregateFunction(quantilesDD(0.01, 0.5, 0.9, 0.95, 0.99), Float64)
)
ENGINE = ${engine}AggregatingMergeTree
PARTITION BY toYYYYMM(minute)
ORDER BY (offer, minute, source, provider, model)
TTL minute + INTERVAL 400 DAY
SETTINGS ${window} = 20000;

CREATE MATERIALIZED VIEW IF NOT EXISTS market_raw.attempts_to_offer_minutes${cluster}
TO market_raw.offer_minutes AS
SELECT
    toStartOfMinute(a.at) AS minute,
    a.offer AS offer,
    a.provider AS provider,
    a.model AS model,
    a.source AS source,
    count() AS n,
    countIf(a.lesson = 'success') AS n_ok,
    countIf(a.lesson = 'failure') AS n_failed,
    countIf(a.lesson = 'capacity') AS n_capacity,
    countIf(startsWith(a.failure, 'timeout')) AS n_timeouts,
    countIf(a.hedge) AS n_hedges,
    countIf(a.n > 1 AND NOT a.hedge) AS n_fallbacks,
    sum(a.input_tokens) AS input_tokens,
    sum(a.output_tokens) AS output_tokens,
    sum(a.cached_tokens) AS cached_tokens,
    sum(a.cost_nusd) AS cost_nusd,
    count(a.ttft_ms) AS n_ttft,
    sum(toInt64(round(1e3 * least(1e9, greatest(0, ifNull(a.ttft_ms, 0)))))) AS ttft_sum_us,
    count(a.total_ms) AS n_total,
    sum(toInt64(round(1e3 * least(1e9, greatest(0, ifNull(a.total_ms, 0)))))) AS total_sum_us,
    quantilesDDStateIf(0.01, 0.5, 0.9, 0.95, 0.99)(
        least(1e9, greatest(0, ifNull(a.ttft_ms, 0))), a.ttft_ms IS NOT NULL)
        AS ttft_sketch,
    quantilesDDStateIf(0.01, 0.5, 0.9, 0.95, 0.99)(
        least(1e9, greatest(0, ifNull(a.total_ms, 0))), a.total_ms IS NOT NULL)
        AS total_sketch
FROM market_raw.attempts_feed AS a
GROUP BY minute, offer, provider, model, source;

-- Hours of the week are UTC, 0 is Monday 00:00. Logarithms are of milliseconds, in millionths, so
-- that means and standard deviations of a cell come from whole numbers; a week is a row of its
-- own, so that old ones can weigh less.
CREATE TABLE IF NOT EXISTS market_raw.offer_hours_of_week${cluster}
(
    offer LowCardinality(String),
    hour_of_week UInt8,
    week Date,
    n SimpleAggregateFunction(sum, UInt64),
    n_failed SimpleAggregateFunction(sum, UInt64),
    n_capacity SimpleAggregateFunction(sum, UInt64),
    n_ttft SimpleAggregateFunction(sum, UInt64),
    log_ttft_sum_e6 SimpleAggregateFunction(sum, Int64),
    log_ttft_square_sum_e6 SimpleAggregateFunction(sum, Int64),
    n_tpot SimpleAggregateFunction(sum, UInt64),
    log_tpot_sum_e6 SimpleAggregateFunction(sum, Int64)
)
ENGINE = ${engine}AggregatingMergeTree
PARTITION BY toYear(week)
ORDER BY (offer, hour_of_week, week)
TTL week + INTERVAL 400 DAY
SETTINGS ${window} = 20000;

CREATE MATERIALIZED VIEW IF NOT EXISTS market_raw.attempts_to_offer_hours_of_week${cluster}
TO market_raw.offer_hours_of_week AS
WITH
    log(least(1e9, greatest(1e-3, ifNull(a.ttft_ms, 1)))) AS log_ttft,
    log(least(1e9, greatest(1e-3, ifNull(a.total_ms - a.ttft_ms, 1)))
        / greatest(1, a.output_tokens - 1)) AS log_tpot
SELECT
    a.offer AS offer,
    toUInt8((toDayOfWeek(a.at) - 1) * 24 + toHour(a.at)) AS hour_of_week,
    toMonday(a.at) AS week,
    count() AS n,
    countIf(a.lesson = 'failure') AS n_failed,
    countIf(a.lesson = 'capacity') AS n_capacity,
    countIf(a.ttft_ms > 0) AS n_ttft,
    sumIf(toInt64(round(log_ttft * 1e6)), a.ttft_ms > 0) AS log_ttft_sum_e6,
    sumIf(toInt64(round(log_ttft * log_ttft * 1e6)), a.ttft_ms > 0) AS log_ttft_square_sum_e6,
    countIf(a.total_ms > a.ttft_ms AND a.output_tokens > 1) AS n_tpot,
    sumIf(toInt64(round(log_tpot * 1e6)), a.total_ms > a.ttft_ms AND a.output_tokens > 1)
        AS log_tpot_sum_e6
FROM market_raw.attempts_feed AS a
GROUP BY offer, hour_of_week, week;

-- What tenants asked and paid. Expected costs are the bids' own, so that best and cheapest are
-- compared with what the winner was expected to cost, not with what it happened to cost.
CREATE TABLE IF NOT EXISTS market_raw.tenant_hours${cluster}
(
    hour DateTime('UTC') CODEC(Delta, ZSTD),
    tenant LowCardinality(String),
    task LowCardinality(String),
    n SimpleAggregateFunction(sum, UInt64),
    n_ok SimpleAggregateFunction(sum, UInt64),
    n_attempts SimpleAggregateFunction(sum, Int64),
    input_tokens SimpleAggregateFunction(sum, Int64),
    output_tokens SimpleAggregateFunction(sum, Int64),
    cost_nusd SimpleAggregateFunction(sum, Int64),
    n_compared SimpleAggregateFunction(sum, UInt64),
    expected_cost_nusd SimpleAggregateFunction(sum, Int64),
    best_cost_nusd SimpleAggregateFunction(sum, Int64),
    cheapest_cost_nusd SimpleAggregateFunction(sum, Int64)
)
ENGINE = ${engine}AggregatingMergeTree
PARTITION BY toYYYYMM(hour)
ORDER BY (tenant, hour, task)
TTL hour + INTERVAL 800 DAY
SETTINGS ${window} = 20000;

CREATE MATERIALIZED VIEW IF NOT EXISTS market_raw.decisions_to_tenant_hours${cluster}
TO market_raw.tenant_hours AS
WITH
    notEmpty(d.ranked) AND d.best_cost_nusd IS NOT NULL AND d.cheapest_cost_nusd IS NOT NULL
        AS is_compared
SELECT
    toStartOfHour(d.at) AS hour,
    d.tenant AS tenant,
    d.task AS task,
    count() AS n,
    countIf(d.failure = 'ok') AS n_ok,
    sum(d.n_attempts) AS n_attempts,
    sum(d.input_tokens_billed) AS input_tokens,
    sum(d.output_tokens) AS output_tokens,
    sum(d.cost_nusd) AS cost_nusd,
    countIf(is_compared) AS n_compared,
    sumIf(toInt64(round(least(1e18, greatest(-1e18, d.ranked[1].cost_nusd)))), is_compared)
        AS expected_cost_nusd,
    sumIf(toInt64(round(least(1e18, greatest(-1e18, ifNull(d.best_cost_nusd, 0))))), is_compared)
        AS best_cost_nusd,
    sumIf(toInt64(round(least(1e18, greatest(-1e18, ifNull(d.cheapest_cost_nusd, 0))))), is_compared)
        AS cheapest_cost_nusd
FROM market_raw.decisions_feed AS d
GROUP BY hour, tenant, task;

-- What was promised and delivered, by SLA class and by the offer that delivered (empty when none
-- did); probabilities are summed in millionths.
CREATE TABLE IF NOT EXISTS market_raw.delivery_hours${cluster}
(
    hour DateTime('UTC') CODEC(Delta, ZSTD),
    sla_class LowCardinality(String),
    task LowCardinality(String),
    offer LowCardinality(String),
    n SimpleAggregateFunction(sum, UInt64),
    n_ok SimpleAggregateFunction(sum, UInt64),
    n_infeasible SimpleAggregateFunction(sum, UInt64),
    cost_nusd SimpleAggregateFunction(sum, Int64),
    n_deadline SimpleAggregateFunction(sum, UInt64),
    n_on_time SimpleAggregateFunction(sum, UInt64),
    n_target_on_time SimpleAggregateFunction(sum, UInt64),
    target_on_time_sum_e6 SimpleAggregateFunction(sum, Int64),
    n_p_on_time SimpleAggregateFunction(sum, UInt64),
    p_on_time_sum_e6 SimpleAggregateFunction(sum, Int64),
    n_target_quality SimpleAggregateFunction(sum, UInt64),
    target_quality_sum_e6 SimpleAggregateFunction(sum, Int64),
    n_p_good SimpleAggregateFunction(sum, UInt64),
    p_good_sum_e6 SimpleAggregateFunction(sum, Int64)
)
ENGINE = ${engine}AggregatingMergeTree
PARTITION BY toYYYYMM(hour)
ORDER BY (sla_class, hour, task, offer)
TTL hour + INTERVAL 800 DAY
SETTINGS ${window} = 20000;

CREATE MATERIALIZED VIEW IF NOT EXISTS market_raw.decisions_to_delivery_hours${cluster}
TO market_raw.delivery_hours AS
SELECT
    toStartOfHour(d.at) AS hour,
    d.sla_class AS sla_class,
    d.task AS task,
    d.delivered_offer AS offer,
    count() AS n,
    countIf(d.failure = 'ok') AS n_ok,
    countIf(NOT d.feasible) AS n_infeasible,
    sum(d.cost_nusd) AS cost_nusd,
    count(d.on_time) AS n_deadline,
    countIf(ifNull(d.on_time, false)) AS n_on_time,
    count(d.target_on_time) AS n_target_on_time,
    sum(toInt64(round(1e6 * least(1, greatest(0, ifNull(d.target_on_time, 0)))))) AS target_on_time_sum_e6,
    countIf(d.on_time IS NOT NULL AND d.p_on_time IS NOT NULL) AS n_p_on_time,
    sumIf(toInt64(round(1e6 * least(1, greatest(0, ifNull(d.p_on_time, 0))))), d.on_time IS NOT NULL)
        AS p_on_time_sum_e6,
    count(d.target_quality) AS n_target_quality,
    sum(toInt64(round(1e6 * least(1, greatest(0, ifNull(d.target_quality, 0)))))) AS target_quality_sum_e6,
    count(d.p_good) AS n_p_good,
    sum(toInt64(round(1e6 * least(1, greatest(0, ifNull(d.p_good, 0)))))) AS p_good_sum_e6
FROM market_raw.decisions_feed AS d
GROUP BY hour, sla_class, task, offer;

-- Scores of answers, in millionths. A rollup hangs on one feed only: the count of inserts by which
-- the recorder judges whether a token is still remembered is that of one raw table.
CREATE TABLE IF NOT EXISTS market_raw.score_hours${cluster}
(
    hour DateTime('UTC') CODEC(Delta, ZSTD),
    sla_class LowCardinality(String),
    task LowCardinality(String),
    offer LowCardinality(String),
    source LowCardinality(String),
    n SimpleAggregateFunction(sum, UInt64),
    quality_sum_e6 SimpleAggregateFunction(sum, Int64),
    n_p_good SimpleAggregateFunction(sum, UInt64),
    p_good_sum_e6 SimpleAggregateFunction(sum, Int64)
)
ENGINE = ${engine}AggregatingMergeTree
PARTITION BY toYYYYMM(hour)
ORDER BY (offer, hour, task, sla_class, source)
TTL hour + INTERVAL 800 DAY
SETTINGS ${window} = 20000;

CREATE MATERIALIZED VIEW IF NOT EXISTS market_raw.feedback_to_score_hours${cluster}
TO market_raw.score_hours AS
SELECT
    toStartOfHour(f.at) AS hour,
    f.sla_class AS sla_class,
    f.task AS task,
    f.offer AS offer,
    f.source AS source,
    count() AS n,
    sum(toInt64(round(f.quality * 1e6))) AS quality_sum_e6,
    count(f.p_good) AS n_p_good,
    sum(toInt64(round(1e6 * least(1, greatest(0, ifNull(f.p_good, 0)))))) AS p_good_sum_e6
FROM market_raw.feedback_feed AS f
GROUP BY hour, sla_class, task, offer, source;
