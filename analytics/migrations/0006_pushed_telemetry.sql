-- Telemetry that others push: who told us. Seasons are learned from calls we have seen ourselves, so
-- what is pushed stays out of the hours of the week.

ALTER TABLE market_raw.attempts${cluster}
    ADD COLUMN IF NOT EXISTS pusher LowCardinality(String);

ALTER TABLE market_raw.attempts_feed${cluster}
    ADD COLUMN IF NOT EXISTS pusher LowCardinality(String);

CREATE OR REPLACE VIEW market.attempts${cluster}
(
    attempt_id String
        COMMENT 'id of this call',
    decision_id String
        COMMENT 'decision it served',
    attempt Int64
        COMMENT '1 for the first call of a decision, 2 for the next',
    offer LowCardinality(String)
        COMMENT 'provider/model[@region]',
    provider LowCardinality(String)
        COMMENT 'who runs the model',
    model LowCardinality(String)
        COMMENT 'canonical model',
    task LowCardinality(String)
        COMMENT 'kind of task',
    tenant LowCardinality(String)
        COMMENT 'who asked',
    sla_class LowCardinality(String)
        COMMENT 'tenant, task and targets',
    source LowCardinality(String)
        COMMENT 'gateway, probe, pushed or app',
    at DateTime64(6, 'UTC')
        COMMENT 'end of the call, UTC',
    started_at DateTime64(6, 'UTC')
        COMMENT 'begin of the call, UTC',
    failure LowCardinality(String)
        COMMENT 'ok, or how it failed',
    lesson LowCardinality(String)
        COMMENT 'what it teaches of the offer: success, failure, capacity or nothing',
    streaming Bool
        COMMENT 'answer was streamed',
    ttft_ms Nullable(Float64)
        COMMENT 'time to first token; null when none came',
    total_ms Nullable(Float64)
        COMMENT 'time to the end',
    waited_ms Nullable(Float64)
        COMMENT 'how long a timeout waited in vain',
    input_tokens Int64
        COMMENT 'tokens in, cached ones included',
    output_tokens Int64
        COMMENT 'tokens out',
    cached_tokens Int64
        COMMENT 'tokens in that were read from the prompt cache',
    usage_estimated Bool
        COMMENT 'tokens were counted by us, not by the provider',
    cost_usd Float64
        COMMENT 'what the call cost',
    cost_nusd Int64
        COMMENT 'the same in whole nano-dollars',
    n_inflight Int64
        COMMENT 'our own calls open at the offer when it began',
    http_status Int64
        COMMENT 'the provider\'s status, 0 for none',
    retry_after_s Nullable(Float64)
        COMMENT 'how long the provider asked us to wait',
    reason String
        COMMENT 'the provider\'s words on a failure, shortened',
    hedge Bool
        COMMENT 'a second call beside a slow first',
    trust Float64
        COMMENT 'weight of the source, 1 for our own calls',
    pusher LowCardinality(String)
        COMMENT 'who told us, where source is pushed',
    gateway LowCardinality(String)
        COMMENT 'writer of the record',
    boot LowCardinality(String)
        COMMENT 'random number of the writer\'s start',
    seq Int64
        COMMENT 'running number since that start; a gap is a loss',
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
    attempt_id,
    decision_id,
    n AS attempt,
    offer,
    provider,
    model,
    task,
    tenant,
    sla_class,
    source,
    at,
    started_at,
    failure,
    lesson,
    streaming,
    ttft_ms,
    total_ms,
    waited_ms,
    input_tokens,
    output_tokens,
    cached_tokens,
    usage_estimated,
    cost_nusd / 1e9 AS cost_usd,
    cost_nusd,
    n_inflight,
    http_status,
    retry_after_s,
    reason,
    hedge,
    trust,
    pusher,
    gateway,
    boot,
    seq,
    _log AS log,
    _partition AS log_partition,
    _offset AS log_offset,
    _stored_at AS stored_at
FROM market_raw.attempts
COMMENT 'One call at one offer: who was asked, how it ended, what it took and cost.';

ALTER TABLE market_raw.attempts_to_offer_hours_of_week${cluster} MODIFY QUERY
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
WHERE a.source != 'pushed'
GROUP BY offer, hour_of_week, week;
