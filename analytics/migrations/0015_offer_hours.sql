-- Rollups once more in the orders and widths in which they are asked: attempts by hour and by provider,
-- deliveries and scores by offer. A rollup's own order is by its name, so a question about all offers
-- of a day read whole granules of 8,192 rows for each, and summed classes that nobody asked for.
--
-- Projections, not tables: the engine writes them with the part they belong to and builds those of
-- parts that are there already, so there is no moment in which a row is counted by neither or by
-- both (0027). Until a part's is built, questions read the part itself. They hold sums of whole
-- numbers and sketches that merge exactly, so they equal the raw rows as their rollup does.

ALTER TABLE market_raw.offer_minutes${cluster}
    MODIFY SETTING deduplicate_merge_projection_mode = 'rebuild';

ALTER TABLE market_raw.delivery_hours${cluster}
    MODIFY SETTING deduplicate_merge_projection_mode = 'rebuild';

ALTER TABLE market_raw.score_hours${cluster}
    MODIFY SETTING deduplicate_merge_projection_mode = 'rebuild';

ALTER TABLE market_raw.offer_minutes${cluster} ADD PROJECTION IF NOT EXISTS by_hour
(
    SELECT
        toStartOfHour(minute), offer, provider, model, source,
        sum(n), sum(n_ok), sum(n_failed), sum(n_capacity), sum(n_timeouts), sum(n_hedges),
        sum(n_fallbacks), sum(input_tokens), sum(output_tokens), sum(cached_tokens),
        sum(cost_nusd), sum(n_ttft), sum(ttft_sum_us), sum(n_total), sum(total_sum_us),
        quantilesDDMergeState(0.01, 0.5, 0.9, 0.95, 0.99)(ttft_sketch),
        quantilesDDMergeState(0.01, 0.5, 0.9, 0.95, 0.99)(total_sketch)
    GROUP BY toStartOfHour(minute), offer, provider, model, source
);

ALTER TABLE market_raw.offer_minutes${cluster} ADD PROJECTION IF NOT EXISTS by_provider
(
    SELECT provider, minute, source, sum(n), sum(n_failed), sum(n_capacity), sum(n_timeouts)
    GROUP BY provider, minute, source
);

ALTER TABLE market_raw.delivery_hours${cluster} ADD PROJECTION IF NOT EXISTS by_offer
(
    SELECT
        hour, offer, task,
        sum(n), sum(n_ok), sum(cost_nusd), sum(n_deadline), sum(n_on_time), sum(n_p_on_time),
        sum(p_on_time_sum_e6), sum(n_p_good), sum(p_good_sum_e6)
    GROUP BY hour, offer, task
);

ALTER TABLE market_raw.score_hours${cluster} ADD PROJECTION IF NOT EXISTS by_offer
(
    SELECT
        hour, offer, task, source,
        sum(n), sum(quality_sum_e6), sum(n_p_good), sum(p_good_sum_e6)
    GROUP BY hour, offer, task, source
);

ALTER TABLE market_raw.offer_minutes${cluster} MATERIALIZE PROJECTION by_hour
    SETTINGS mutations_sync = 0;

ALTER TABLE market_raw.offer_minutes${cluster} MATERIALIZE PROJECTION by_provider
    SETTINGS mutations_sync = 0;

ALTER TABLE market_raw.delivery_hours${cluster} MATERIALIZE PROJECTION by_offer
    SETTINGS mutations_sync = 0;

ALTER TABLE market_raw.score_hours${cluster} MATERIALIZE PROJECTION by_offer
    SETTINGS mutations_sync = 0;

CREATE VIEW IF NOT EXISTS market.offer_hours${cluster}
(
    hour DateTime('UTC')
        COMMENT 'begin of the hour, UTC',
    offer LowCardinality(String)
        COMMENT 'provider/model[@region]',
    provider LowCardinality(String)
        COMMENT 'who runs the model',
    model LowCardinality(String)
        COMMENT 'canonical model',
    source LowCardinality(String)
        COMMENT 'who said so: gateway, probe, pushed, app',
    n UInt64
        COMMENT 'attempts',
    n_ok UInt64
        COMMENT 'that succeeded',
    n_failed UInt64
        COMMENT 'failures of the offer\'s making',
    n_capacity UInt64
        COMMENT 'turned away as full',
    n_timeouts UInt64
        COMMENT 'timeouts',
    n_hedges UInt64
        COMMENT 'hedges',
    n_fallbacks UInt64
        COMMENT 'second and later calls of a decision',
    input_tokens Int64
        COMMENT 'tokens in',
    output_tokens Int64
        COMMENT 'tokens out',
    cached_tokens Int64
        COMMENT 'cached tokens in',
    cost_nusd Int64
        COMMENT 'cost in nano-dollars',
    n_ttft UInt64
        COMMENT 'attempts with a first token',
    ttft_sum_us Int64
        COMMENT 'sum of their times to it, µs',
    n_total UInt64
        COMMENT 'attempts with an end',
    total_sum_us Int64
        COMMENT 'sum of their times to it, µs',
    ttft_sketch AggregateFunction(quantilesDD(0.01, 0.5, 0.9, 0.95, 0.99), Float64)
        COMMENT 'use quantilesDDMerge(0.01, 0.5, 0.9, 0.95, 0.99)(ttft_sketch): milliseconds',
    total_sketch AggregateFunction(quantilesDD(0.01, 0.5, 0.9, 0.95, 0.99), Float64)
        COMMENT 'the same of total times'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    toStartOfHour(r.minute) AS hour,
    r.offer AS offer,
    r.provider AS provider,
    r.model AS model,
    r.source AS source,
    sum(r.n) AS n,
    sum(r.n_ok) AS n_ok,
    sum(r.n_failed) AS n_failed,
    sum(r.n_capacity) AS n_capacity,
    sum(r.n_timeouts) AS n_timeouts,
    sum(r.n_hedges) AS n_hedges,
    sum(r.n_fallbacks) AS n_fallbacks,
    sum(r.input_tokens) AS input_tokens,
    sum(r.output_tokens) AS output_tokens,
    sum(r.cached_tokens) AS cached_tokens,
    sum(r.cost_nusd) AS cost_nusd,
    sum(r.n_ttft) AS n_ttft,
    sum(r.ttft_sum_us) AS ttft_sum_us,
    sum(r.n_total) AS n_total,
    sum(r.total_sum_us) AS total_sum_us,
    quantilesDDMergeState(0.01, 0.5, 0.9, 0.95, 0.99)(r.ttft_sketch) AS ttft_sketch,
    quantilesDDMergeState(0.01, 0.5, 0.9, 0.95, 0.99)(r.total_sketch) AS total_sketch
FROM market_raw.offer_minutes AS r
GROUP BY hour, offer, provider, model, source
COMMENT 'Attempts by offer and hour.';

CREATE VIEW IF NOT EXISTS market.provider_minutes${cluster}
(
    minute DateTime('UTC')
        COMMENT 'begin of the minute, UTC',
    provider LowCardinality(String)
        COMMENT 'who runs the models',
    source LowCardinality(String)
        COMMENT 'who said so: gateway, probe, pushed, app',
    n UInt64
        COMMENT 'attempts',
    n_failed UInt64
        COMMENT 'failures of the provider\'s making',
    n_capacity UInt64
        COMMENT 'turned away as full',
    n_timeouts UInt64
        COMMENT 'timeouts'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    r.minute AS minute,
    r.provider AS provider,
    r.source AS source,
    sum(r.n) AS n,
    sum(r.n_failed) AS n_failed,
    sum(r.n_capacity) AS n_capacity,
    sum(r.n_timeouts) AS n_timeouts
FROM market_raw.offer_minutes AS r
GROUP BY provider, minute, source
COMMENT 'Attempts by provider and minute.';

CREATE VIEW IF NOT EXISTS market.offer_delivery_hours${cluster}
(
    hour DateTime('UTC')
        COMMENT 'begin of the hour, UTC',
    offer LowCardinality(String)
        COMMENT 'that delivered; empty when none did',
    task LowCardinality(String)
        COMMENT 'kind of task',
    n UInt64
        COMMENT 'requests',
    n_ok UInt64
        COMMENT 'that were answered',
    cost_nusd Int64
        COMMENT 'cost in nano-dollars',
    n_deadline UInt64
        COMMENT 'requests with a deadline',
    n_on_time UInt64
        COMMENT 'of those, on time',
    n_p_on_time UInt64
        COMMENT 'of those, with a predicted chance',
    p_on_time_sum_e6 Int64
        COMMENT 'sum of those chances, millionths',
    n_p_good UInt64
        COMMENT 'requests with a predicted chance of a good answer',
    p_good_sum_e6 Int64
        COMMENT 'sum of those chances, millionths'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    r.hour AS hour,
    r.offer AS offer,
    r.task AS task,
    sum(r.n) AS n,
    sum(r.n_ok) AS n_ok,
    sum(r.cost_nusd) AS cost_nusd,
    sum(r.n_deadline) AS n_deadline,
    sum(r.n_on_time) AS n_on_time,
    sum(r.n_p_on_time) AS n_p_on_time,
    sum(r.p_on_time_sum_e6) AS p_on_time_sum_e6,
    sum(r.n_p_good) AS n_p_good,
    sum(r.p_good_sum_e6) AS p_good_sum_e6
FROM market_raw.delivery_hours AS r
GROUP BY hour, offer, task
COMMENT 'Delivery by offer, task and hour, all classes together.';

CREATE VIEW IF NOT EXISTS market.offer_score_hours${cluster}
(
    hour DateTime('UTC')
        COMMENT 'begin of the hour, UTC',
    offer LowCardinality(String)
        COMMENT 'whose answers',
    task LowCardinality(String)
        COMMENT 'kind of task',
    source LowCardinality(String)
        COMMENT 'who scored: user, verifier, judge, app',
    n UInt64
        COMMENT 'scores',
    quality_sum_e6 Int64
        COMMENT 'their sum, millionths',
    n_p_good UInt64
        COMMENT 'scores of answers with a predicted chance',
    p_good_sum_e6 Int64
        COMMENT 'sum of those chances, millionths'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    r.hour AS hour,
    r.offer AS offer,
    r.task AS task,
    r.source AS source,
    sum(r.n) AS n,
    sum(r.quality_sum_e6) AS quality_sum_e6,
    sum(r.n_p_good) AS n_p_good,
    sum(r.p_good_sum_e6) AS p_good_sum_e6
FROM market_raw.score_hours AS r
GROUP BY hour, offer, task, source
COMMENT 'Scores by offer, task and hour, all classes together.';

-- A bid beside the least of its decision, so that gaps need no sorting of all bids.
CREATE OR REPLACE VIEW market.bids${cluster}
(
    decision_id String
        COMMENT 'decision',
    at DateTime64(6, 'UTC')
        COMMENT 'settlement, UTC',
    task LowCardinality(String)
        COMMENT 'kind of task',
    tenant LowCardinality(String)
        COMMENT 'who asked',
    sla_class LowCardinality(String)
        COMMENT 'tenant, task and targets',
    rank UInt32
        COMMENT 'place in the ranking, from 1',
    offer LowCardinality(String)
        COMMENT 'who bid',
    score_usd Float64
        COMMENT 'cost less the prices of quality and punctuality; lowest wins',
    cost_usd Float64
        COMMENT 'expected cost',
    p_good Float64
        COMMENT 'P(good) as predicted',
    p_on_time Float64
        COMMENT 'P(on time) as predicted',
    least_score_usd Float64
        COMMENT 'least score of the decision\'s bids',
    won UInt8
        COMMENT 'it won',
    delivered UInt8
        COMMENT 'its answer was returned'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    decision_id,
    at,
    task,
    tenant,
    sla_class,
    bid_rank AS rank,
    bid.offer AS offer,
    bid.score_nusd / 1e9 AS score_usd,
    bid.cost_nusd / 1e9 AS cost_usd,
    bid.p_good AS p_good,
    bid.p_on_time AS p_on_time,
    arrayMin(ranked.score_nusd) / 1e9 AS least_score_usd,
    bid_rank = 1 AS won,
    bid.offer = delivered_offer AS delivered
FROM market_raw.decisions
ARRAY JOIN ranked AS bid, arrayEnumerate(ranked) AS bid_rank
COMMENT 'Every ranked bid of every decision; rank 1 won.';
