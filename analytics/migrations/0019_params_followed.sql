-- What followed a change of params: delivery and scores by the version they were bought under, in
-- steps of ten minutes. Projections of the raw rows (0027, 0037), so they hold what was stored
-- before as well and equal the raw rows while these are kept. Scores name their version from now on;
-- -1 stands for those that came before, and for answers that were not bought or not returned.

ALTER TABLE market_raw.feedback${cluster}
    ADD COLUMN IF NOT EXISTS params_version Int64 DEFAULT -1 CODEC(T64, ZSTD);

ALTER TABLE market_raw.feedback_feed${cluster}
    ADD COLUMN IF NOT EXISTS params_version Int64 DEFAULT -1;

ALTER TABLE market_raw.decisions${cluster} ADD PROJECTION IF NOT EXISTS by_params
(
    SELECT
        toStartOfTenMinutes(at), params_version, arm, sla_class,
        multiIf(only, 'decided only', NOT empty(lower(cached_from)), 'cache',
            winner != '' AND failure IN ('cancelled', 'bad_request'), 'given up', ''),
        count(), countIf(failure = 'ok'), sum(cost_nusd),
        sum(toInt128(cost_nusd) * toInt128(cost_nusd)),
        count(on_time), countIf(ifNull(on_time, false)),
        countIf(JSONExtractFloat(sla, 'ttft_ms') > 0),
        countIf(failure = 'ok'
            AND ifNull(ifNull(ttft_ms, total_ms) <= JSONExtractFloat(sla, 'ttft_ms'), false)),
        countIf(JSONExtractFloat(sla, 'latency_ms') > 0),
        countIf(failure = 'ok'
            AND ifNull(total_ms <= JSONExtractFloat(sla, 'latency_ms'), false))
    GROUP BY
        toStartOfTenMinutes(at), params_version, arm, sla_class,
        multiIf(only, 'decided only', NOT empty(lower(cached_from)), 'cache',
            winner != '' AND failure IN ('cancelled', 'bad_request'), 'given up', '')
);

ALTER TABLE market_raw.feedback${cluster} ADD PROJECTION IF NOT EXISTS by_params
(
    SELECT
        toStartOfTenMinutes(at), params_version, sla_class,
        count(), sum(toInt64(round(1e6 * least(1, greatest(0, quality)))))
    GROUP BY toStartOfTenMinutes(at), params_version, sla_class
);

ALTER TABLE market_raw.decisions${cluster} MATERIALIZE PROJECTION by_params
    SETTINGS mutations_sync = 0;

ALTER TABLE market_raw.feedback${cluster} MATERIALIZE PROJECTION by_params
    SETTINGS mutations_sync = 0;

CREATE VIEW IF NOT EXISTS market.params_delivery${cluster}
(
    since DateTime('UTC')
        COMMENT 'begin of the ten minutes, UTC',
    params_version Int64
        COMMENT 'version of the params that the requests were bought under',
    arm LowCardinality(String)
        COMMENT 'the canary they were part of; empty for none',
    sla_class LowCardinality(String)
        COMMENT 'tenant, task and targets; with ~ and the arm in a canary',
    set_apart String
        COMMENT 'why params had no say in what came of them: decided only, cache, given up; or empty',
    n UInt64
        COMMENT 'requests',
    n_ok UInt64
        COMMENT 'that were answered',
    cost_nusd Int64
        COMMENT 'cost in nano-dollars',
    cost_square_sum Int128
        COMMENT 'sum of the squares of those costs',
    n_deadline UInt64
        COMMENT 'requests with a deadline',
    n_on_time UInt64
        COMMENT 'of those, on time',
    n_ttft UInt64
        COMMENT 'requests with a deadline for the first token',
    n_ttft_kept UInt64
        COMMENT 'of those, kept',
    n_latency UInt64
        COMMENT 'requests with a deadline for the whole answer',
    n_latency_kept UInt64
        COMMENT 'of those, kept'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    toStartOfTenMinutes(d.at) AS since,
    d.params_version AS params_version,
    d.arm AS arm,
    d.sla_class AS sla_class,
    multiIf(d.only, 'decided only', NOT empty(lower(d.cached_from)), 'cache',
        d.winner != '' AND d.failure IN ('cancelled', 'bad_request'), 'given up', '') AS set_apart,
    count() AS n,
    countIf(d.failure = 'ok') AS n_ok,
    sum(d.cost_nusd) AS cost_nusd,
    sum(toInt128(d.cost_nusd) * toInt128(d.cost_nusd)) AS cost_square_sum,
    count(d.on_time) AS n_deadline,
    countIf(ifNull(d.on_time, false)) AS n_on_time,
    countIf(JSONExtractFloat(d.sla, 'ttft_ms') > 0) AS n_ttft,
    countIf(d.failure = 'ok'
        AND ifNull(ifNull(d.ttft_ms, d.total_ms) <= JSONExtractFloat(d.sla, 'ttft_ms'), false))
        AS n_ttft_kept,
    countIf(JSONExtractFloat(d.sla, 'latency_ms') > 0) AS n_latency,
    countIf(d.failure = 'ok'
        AND ifNull(d.total_ms <= JSONExtractFloat(d.sla, 'latency_ms'), false))
        AS n_latency_kept
FROM market_raw.decisions AS d
GROUP BY since, params_version, arm, sla_class, set_apart
COMMENT 'What was delivered under each version of the params, by SLA class and ten minutes.';

CREATE VIEW IF NOT EXISTS market.params_scores${cluster}
(
    since DateTime('UTC')
        COMMENT 'begin of the ten minutes in which the scores came, UTC',
    params_version Int64
        COMMENT 'version of the params that the answers were bought under; -1: not known, or none',
    sla_class LowCardinality(String)
        COMMENT 'tenant, task and targets; with ~ and the arm in a canary',
    n UInt64
        COMMENT 'scores',
    quality_sum_e6 Int64
        COMMENT 'their sum, millionths'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    toStartOfTenMinutes(f.at) AS since,
    f.params_version AS params_version,
    f.sla_class AS sla_class,
    count() AS n,
    sum(toInt64(round(1e6 * least(1, greatest(0, f.quality))))) AS quality_sum_e6
FROM market_raw.feedback AS f
GROUP BY since, params_version, sla_class
COMMENT 'Scores of answers by the version of the params they were bought under.';
