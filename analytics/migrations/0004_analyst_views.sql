-- What analysts ask: plain names, dollars beside nano-dollars, a word on every column. A view runs
-- with its maker's rights, so that a reader needs no right to the tables behind it.

CREATE VIEW IF NOT EXISTS market.attempts${cluster}
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
    gateway,
    boot,
    seq,
    _log AS log,
    _partition AS log_partition,
    _offset AS log_offset,
    _stored_at AS stored_at
FROM market_raw.attempts
COMMENT 'One call at one offer: who was asked, how it ended, what it took and cost.';

CREATE VIEW IF NOT EXISTS market.decisions${cluster}
(
    decision_id String
        COMMENT 'id, also in the answer\'s x-broker-decision',
    at DateTime64(6, 'UTC')
        COMMENT 'settlement, UTC',
    task LowCardinality(String)
        COMMENT 'kind of task',
    tenant LowCardinality(String)
        COMMENT 'who asked',
    sla_class LowCardinality(String)
        COMMENT 'tenant, task and targets',
    sla String
        COMMENT 'the SLA asked for, as JSON',
    input_tokens Int64
        COMMENT 'tokens in, as forecast',
    max_output_tokens Nullable(Int64)
        COMMENT 'bound the app set',
    needs Int64
        COMMENT 'mask of capabilities needed',
    candidates Array(LowCardinality(String))
        COMMENT 'offers or models the app limited the choice to; empty for any',
    features Array(Float64)
        COMMENT 'prompt features, never the prompt',
    incumbent LowCardinality(String)
        COMMENT 'offer that holds the session\'s cache',
    incumbent_cached_tokens Int64
        COMMENT 'tokens cached there',
    reserve_usd Nullable(Float64)
        COMMENT 'most the request may cost',
    streaming Bool
        COMMENT 'answer was streamed',
    seed UInt64
        COMMENT 'seed of the policy\'s draws',
    policy LowCardinality(String)
        COMMENT 'policy that chose',
    params_version Int64
        COMMENT 'live params in force',
    view_number Int64
        COMMENT 'market view it read',
    winner LowCardinality(String)
        COMMENT 'offer chosen first; empty when nobody bid',
    n_bids Int64
        COMMENT 'offers that bid',
    no_bids Map(LowCardinality(String), Int64)
        COMMENT 'offers turned away, by reason',
    expected_cost_usd Nullable(Float64)
        COMMENT 'the winner\'s bid: what it was expected to cost',
    clearing_price_usd Nullable(Float64)
        COMMENT 'what the winner could have charged and still won',
    propensity Nullable(Float64)
        COMMENT 'probability with which the policy chose the winner',
    feasible Bool
        COMMENT 'some bid met the request\'s strict floors',
    quality_price_usd Float64
        COMMENT 'price of a good answer in this class',
    punctuality_price_usd Float64
        COMMENT 'price of a punctual answer in this class',
    best_offer LowCardinality(String)
        COMMENT 'bid with the highest P(good)',
    best_cost_usd Nullable(Float64)
        COMMENT 'its expected cost',
    cheapest_offer LowCardinality(String)
        COMMENT 'bid with the lowest cost',
    cheapest_cost_usd Nullable(Float64)
        COMMENT 'its expected cost',
    target_quality Nullable(Float64)
        COMMENT 'share of good answers promised to the class',
    target_on_time Nullable(Float64)
        COMMENT 'share of punctual answers promised',
    decided_only Bool
        COMMENT 'the app made the call itself (POST /v1/auctions)',
    delivered_offer LowCardinality(String)
        COMMENT 'offer whose answer was returned',
    delivered_model LowCardinality(String)
        COMMENT 'its model',
    p_good Nullable(Float64)
        COMMENT 'P(good) of the delivered offer, as predicted',
    p_on_time Nullable(Float64)
        COMMENT 'P(on time) of it, as predicted',
    n_attempts Int64
        COMMENT 'calls made',
    failure LowCardinality(String)
        COMMENT 'ok, or how the request failed; empty when we made no call',
    ttft_ms Nullable(Float64)
        COMMENT 'time to first token seen by the app',
    total_ms Nullable(Float64)
        COMMENT 'time to the end',
    on_time Nullable(Bool)
        COMMENT 'deadlines met; null when there were none',
    input_tokens_billed Int64
        COMMENT 'tokens in, all calls',
    output_tokens Int64
        COMMENT 'tokens out, all calls',
    cost_usd Float64
        COMMENT 'what all its calls cost',
    cost_nusd Int64
        COMMENT 'the same in whole nano-dollars',
    overhead_us Nullable(Float64)
        COMMENT 'time the broker itself took',
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
    decision_id,
    at,
    task,
    tenant,
    sla_class,
    sla,
    input_tokens,
    max_output_tokens,
    needs,
    candidates,
    features,
    incumbent,
    incumbent_cached_tokens,
    reserve_nusd / 1e9 AS reserve_usd,
    streaming,
    seed,
    policy,
    params_version,
    view_number,
    winner,
    n_bids,
    no_bids,
    if(empty(ranked), NULL, ranked[1].cost_nusd / 1e9) AS expected_cost_usd,
    clearing_price_nusd / 1e9 AS clearing_price_usd,
    propensity,
    feasible,
    quality_price_nusd / 1e9 AS quality_price_usd,
    punctuality_price_nusd / 1e9 AS punctuality_price_usd,
    best_offer,
    best_cost_nusd / 1e9 AS best_cost_usd,
    cheapest_offer,
    cheapest_cost_nusd / 1e9 AS cheapest_cost_usd,
    target_quality,
    target_on_time,
    only AS decided_only,
    delivered_offer,
    delivered_model,
    p_good,
    p_on_time,
    n_attempts,
    failure,
    ttft_ms,
    total_ms,
    on_time,
    input_tokens_billed,
    output_tokens,
    cost_nusd / 1e9 AS cost_usd,
    cost_nusd,
    overhead_us,
    gateway,
    boot,
    seq,
    _log AS log,
    _partition AS log_partition,
    _offset AS log_offset,
    _stored_at AS stored_at
FROM market_raw.decisions
COMMENT 'One request: what was asked, which offer was chosen and why, what was delivered.';

CREATE VIEW IF NOT EXISTS market.bids${cluster}
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
    bid_rank = 1 AS won,
    bid.offer = delivered_offer AS delivered
FROM market_raw.decisions
ARRAY JOIN ranked AS bid, arrayEnumerate(ranked) AS bid_rank
COMMENT 'Every ranked bid of every decision; rank 1 won.';

CREATE VIEW IF NOT EXISTS market.feedback${cluster}
(
    feedback_id String
        COMMENT 'id',
    decision_id String
        COMMENT 'decision scored',
    at DateTime64(6, 'UTC')
        COMMENT 'UTC',
    task LowCardinality(String)
        COMMENT 'kind of task',
    tenant LowCardinality(String)
        COMMENT 'who asked',
    sla_class LowCardinality(String)
        COMMENT 'tenant, task and targets',
    offer LowCardinality(String)
        COMMENT 'offer that answered',
    model LowCardinality(String)
        COMMENT 'its model',
    quality Float64
        COMMENT 'score in 0..1',
    source LowCardinality(String)
        COMMENT 'user, verifier, judge or app',
    features Array(Float64)
        COMMENT 'prompt features of the decision',
    p_good Nullable(Float64)
        COMMENT 'P(good) as predicted at the decision',
    propensity Nullable(Float64)
        COMMENT 'of the decision',
    labelled_share Float64
        COMMENT 'probability that such an answer is scored at all',
    weight Float64
        COMMENT 'weight of the score in learning',
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
    feedback_id,
    decision_id,
    at,
    task,
    tenant,
    sla_class,
    offer,
    model,
    quality,
    source,
    features,
    p_good,
    propensity,
    labelled_share,
    weight,
    gateway,
    boot,
    seq,
    _log AS log,
    _partition AS log_partition,
    _offset AS log_offset,
    _stored_at AS stored_at
FROM market_raw.feedback
COMMENT 'Quality scores of answers and who gave them.';

CREATE VIEW IF NOT EXISTS market.quotes_history${cluster}
(
    offer LowCardinality(String)
        COMMENT 'provider/model[@region]',
    at DateTime64(6, 'UTC')
        COMMENT 'UTC',
    ttft_median_ms Float64
        COMMENT 'median time to first token of the next call',
    ttft_log_sd Float64
        COMMENT 'standard deviation of its logarithm',
    ttft_n Float64
        COMMENT 'decayed observations behind it',
    tpot_median_ms Float64
        COMMENT 'median time per further token',
    tpot_log_sd Float64
        COMMENT 'standard deviation of its logarithm',
    tpot_n Float64
        COMMENT 'decayed observations behind it',
    fail_share Float64
        COMMENT 'posterior mean of a failed attempt',
    fail_n Float64
        COMMENT 'decayed observations behind it',
    health String
        COMMENT 'circuit: closed, open or half_open',
    capacity_share Float64
        COMMENT 'share of recent calls turned away as full',
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
    offer,
    at,
    exp(quote.ttft_log_ms) AS ttft_median_ms,
    quote.ttft_log_sd AS ttft_log_sd,
    quote.ttft_n AS ttft_n,
    exp(quote.tpot_log_ms) AS tpot_median_ms,
    quote.tpot_log_sd AS tpot_log_sd,
    quote.tpot_n AS tpot_n,
    quote.fail_share AS fail_share,
    quote.fail_n AS fail_n,
    quote.health AS health,
    quote.capacity_share AS capacity_share,
    _log AS log,
    _partition AS log_partition,
    _offset AS log_offset,
    _stored_at AS stored_at
FROM market_raw.quotes
WHERE NOT startsWith(_key, '*')
COMMENT 'What the market believed of each offer, whenever that changed.';

CREATE VIEW IF NOT EXISTS market.class_prices${cluster}
(
    task LowCardinality(String)
        COMMENT 'kind of task',
    at DateTime64(6, 'UTC')
        COMMENT 'UTC',
    sla_class String
        COMMENT 'tenant, task and targets',
    quality_price_usd Float64
        COMMENT 'price of a good answer',
    punctuality_price_usd Float64
        COMMENT 'price of a punctual answer',
    target_quality Nullable(Float64)
        COMMENT 'promised',
    target_on_time Nullable(Float64)
        COMMENT 'promised',
    delivered_quality Nullable(Float64)
        COMMENT 'delivered, decayed',
    delivered_on_time Nullable(Float64)
        COMMENT 'delivered, decayed',
    n Float64
        COMMENT 'decayed requests behind it',
    n_labels Float64
        COMMENT 'decayed scores behind it',
    quality_binding Bool
        COMMENT 'its price is at the cap',
    punctuality_binding Bool
        COMMENT 'its price is at the cap'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    task,
    at,
    class.sla_class AS sla_class,
    class.quality_price_nusd / 1e9 AS quality_price_usd,
    class.punctuality_price_nusd / 1e9 AS punctuality_price_usd,
    class.target_quality AS target_quality,
    class.target_on_time AS target_on_time,
    class.delivered_quality AS delivered_quality,
    class.delivered_on_time AS delivered_on_time,
    class.n AS n,
    class.n_labels AS n_labels,
    class.quality_binding AS quality_binding,
    class.punctuality_binding AS punctuality_binding
FROM market_raw.skills
ARRAY JOIN classes AS class
COMMENT 'Prices of quality and punctuality of SLA classes, with what was promised and delivered, whenever that changed.';

CREATE VIEW IF NOT EXISTS market.prices${cluster}
(
    offer LowCardinality(String)
        COMMENT 'provider/model[@region]',
    at DateTime64(6, 'UTC')
        COMMENT 'when it was reported, UTC',
    effective_at DateTime64(6, 'UTC')
        COMMENT 'from when it holds; 1970 means at once',
    input_usd_per_mtok Float64
        COMMENT 'per million tokens in',
    output_usd_per_mtok Float64
        COMMENT 'per million tokens out',
    cache_read_usd_per_mtok Nullable(Float64)
        COMMENT 'per million cached tokens in',
    request_usd Float64
        COMMENT 'per call',
    old_input_usd_per_mtok Nullable(Float64)
        COMMENT 'before',
    old_output_usd_per_mtok Nullable(Float64)
        COMMENT 'before',
    source LowCardinality(String)
        COMMENT 'who said so',
    quarantined String
        COMMENT 'why it is held back until confirmed; empty when in force',
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
    offer,
    at,
    effective_at,
    prices.input_nusd_per_mtok / 1e9 AS input_usd_per_mtok,
    prices.output_nusd_per_mtok / 1e9 AS output_usd_per_mtok,
    prices.cache_read_nusd_per_mtok / 1e9 AS cache_read_usd_per_mtok,
    prices.request_nusd / 1e9 AS request_usd,
    old.input_nusd_per_mtok / 1e9 AS old_input_usd_per_mtok,
    old.output_nusd_per_mtok / 1e9 AS old_output_usd_per_mtok,
    source,
    quarantined,
    _log AS log,
    _partition AS log_partition,
    _offset AS log_offset,
    _stored_at AS stored_at
FROM market_raw.prices
COMMENT 'List prices and spot asks, whenever a source reported a change.';

CREATE VIEW IF NOT EXISTS market.incidents${cluster}
(
    provider LowCardinality(String)
        COMMENT 'provider',
    at DateTime64(6, 'UTC')
        COMMENT 'when we saw it, UTC',
    component LowCardinality(String)
        COMMENT 'part concerned',
    severity LowCardinality(String)
        COMMENT 'none, minor, major, critical or maintenance',
    state LowCardinality(String)
        COMMENT 'the provider\'s own word',
    since DateTime64(6, 'UTC')
        COMMENT 'begin, UTC',
    incident_id String
        COMMENT 'the provider\'s id',
    title String
        COMMENT 'the provider\'s words',
    models Array(String)
        COMMENT 'models concerned',
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
    incident_id,
    title,
    models,
    _log AS log,
    _partition AS log_partition,
    _offset AS log_offset,
    _stored_at AS stored_at
FROM market_raw.status
COMMENT 'What providers say of themselves on their status pages.';

CREATE VIEW IF NOT EXISTS market.params_history${cluster}
(
    scope LowCardinality(String)
        COMMENT 'what they apply to',
    version Int64
        COMMENT 'running number',
    at DateTime64(6, 'UTC')
        COMMENT 'UTC',
    by String
        COMMENT 'who',
    why String
        COMMENT 'reason given',
    params String
        COMMENT 'all of them, as JSON'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    scope,
    version,
    at,
    by,
    why,
    params
FROM market_raw.params
COMMENT 'Versions of the live params: who changed what and why.';

CREATE VIEW IF NOT EXISTS market.catalogue_history${cluster}
(
    at DateTime64(6, 'UTC')
        COMMENT 'UTC',
    n_providers UInt32
        COMMENT 'providers',
    n_models UInt32
        COMMENT 'models',
    n_offers UInt32
        COMMENT 'offers'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    at,
    n_providers,
    n_models,
    n_offers
FROM market_raw.catalogue
COMMENT 'How large the catalogue was at each change.';

CREATE VIEW IF NOT EXISTS market.market_views${cluster}
(
    gateway LowCardinality(String)
        COMMENT 'gateway',
    boot LowCardinality(String)
        COMMENT 'its start',
    seq Int64
        COMMENT 'running number of its records',
    view_number Int64
        COMMENT 'number',
    at DateTime64(6, 'UTC')
        COMMENT 'UTC',
    positions Array(Tuple(
    log LowCardinality(String),
    topic LowCardinality(String),
    partition Int64,
    offset Int64))
        COMMENT 'how far each topic was read',
    overlay Map(LowCardinality(String), Array(Float64))
        COMMENT 'the gateway\'s own corrections'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    gateway,
    boot,
    seq,
    view_number,
    at,
    positions,
    overlay
FROM market_raw.views
COMMENT 'What each numbered view of a gateway was made of.';

CREATE VIEW IF NOT EXISTS market.dead_letters${cluster}
(
    at DateTime64(6, 'UTC')
        COMMENT 'UTC',
    topic LowCardinality(String)
        COMMENT 'where it was',
    partition Int64
        COMMENT 'log partition',
    offset Int64
        COMMENT 'offset in it',
    reason String
        COMMENT 'why it could not be read',
    payload String
        COMMENT 'its bytes'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    at,
    topic,
    partition,
    offset,
    reason,
    base64Decode(payload) AS payload
FROM market_raw.dead
COMMENT 'Messages that could not be read or stored, and why.';

CREATE VIEW IF NOT EXISTS market.offer_minutes${cluster}
(
    minute DateTime('UTC')
        COMMENT 'begin of the minute, UTC',
    offer LowCardinality(String)
        COMMENT 'provider/model[@region]',
    provider LowCardinality(String)
        COMMENT 'who runs the model',
    model LowCardinality(String)
        COMMENT 'canonical model',
    source LowCardinality(String)
        COMMENT 'who said so: gateway, probe, pushed, app; for scores user, verifier, judge, app',
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
    r.minute AS minute,
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
GROUP BY minute, offer, provider, model, source
COMMENT 'Attempts by offer, minute and source. Sums of the columns are exact.';

CREATE VIEW IF NOT EXISTS market.offer_hours_of_week${cluster}
(
    offer LowCardinality(String)
        COMMENT 'provider/model[@region]',
    hour_of_week UInt8
        COMMENT '0 is Monday 00:00 UTC, 167 Sunday 23:00',
    week Date
        COMMENT 'Monday of the week',
    n UInt64
        COMMENT 'count',
    n_failed UInt64
        COMMENT 'failures of the offer\'s making',
    n_capacity UInt64
        COMMENT 'turned away as full',
    n_ttft UInt64
        COMMENT 'with a first token',
    log_ttft_sum_e6 Int64
        COMMENT 'sum of ln(ms) of time to first token, millionths',
    log_ttft_square_sum_e6 Int64
        COMMENT 'sum of its squares, millionths',
    n_tpot UInt64
        COMMENT 'with a measured pace',
    log_tpot_sum_e6 Int64
        COMMENT 'sum of ln(ms) per further token, millionths'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    r.offer AS offer,
    r.hour_of_week AS hour_of_week,
    r.week AS week,
    sum(r.n) AS n,
    sum(r.n_failed) AS n_failed,
    sum(r.n_capacity) AS n_capacity,
    sum(r.n_ttft) AS n_ttft,
    sum(r.log_ttft_sum_e6) AS log_ttft_sum_e6,
    sum(r.log_ttft_square_sum_e6) AS log_ttft_square_sum_e6,
    sum(r.n_tpot) AS n_tpot,
    sum(r.log_tpot_sum_e6) AS log_tpot_sum_e6
FROM market_raw.offer_hours_of_week AS r
GROUP BY offer, hour_of_week, week
COMMENT 'Attempts by offer, hour of the week and week.';

CREATE VIEW IF NOT EXISTS market.tenant_hours${cluster}
(
    hour DateTime('UTC')
        COMMENT 'begin of the hour, UTC',
    tenant LowCardinality(String)
        COMMENT 'who asked',
    task LowCardinality(String)
        COMMENT 'kind of task',
    n UInt64
        COMMENT 'count',
    n_ok UInt64
        COMMENT 'that succeeded',
    n_attempts Int64
        COMMENT 'calls made',
    input_tokens Int64
        COMMENT 'tokens in',
    output_tokens Int64
        COMMENT 'tokens out',
    cost_nusd Int64
        COMMENT 'cost in nano-dollars',
    n_compared UInt64
        COMMENT 'requests with a best and a cheapest bid',
    expected_cost_nusd Int64
        COMMENT 'the winners\' bids of those',
    best_cost_nusd Int64
        COMMENT 'bids of the offers with the highest P(good)',
    cheapest_cost_nusd Int64
        COMMENT 'the lowest bids'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    r.hour AS hour,
    r.tenant AS tenant,
    r.task AS task,
    sum(r.n) AS n,
    sum(r.n_ok) AS n_ok,
    sum(r.n_attempts) AS n_attempts,
    sum(r.input_tokens) AS input_tokens,
    sum(r.output_tokens) AS output_tokens,
    sum(r.cost_nusd) AS cost_nusd,
    sum(r.n_compared) AS n_compared,
    sum(r.expected_cost_nusd) AS expected_cost_nusd,
    sum(r.best_cost_nusd) AS best_cost_nusd,
    sum(r.cheapest_cost_nusd) AS cheapest_cost_nusd
FROM market_raw.tenant_hours AS r
GROUP BY hour, tenant, task
COMMENT 'Requests and spend by tenant, task and hour.';

CREATE VIEW IF NOT EXISTS market.delivery_hours${cluster}
(
    hour DateTime('UTC')
        COMMENT 'begin of the hour, UTC',
    sla_class LowCardinality(String)
        COMMENT 'tenant, task and targets',
    task LowCardinality(String)
        COMMENT 'kind of task',
    offer LowCardinality(String)
        COMMENT 'provider/model[@region]',
    n UInt64
        COMMENT 'count',
    n_ok UInt64
        COMMENT 'that succeeded',
    n_infeasible UInt64
        COMMENT 'where no bid met the strict floors',
    cost_nusd Int64
        COMMENT 'cost in nano-dollars',
    n_deadline UInt64
        COMMENT 'requests with deadlines',
    n_on_time UInt64
        COMMENT 'that met them',
    n_target_on_time UInt64
        COMMENT 'requests with a promise of punctuality',
    target_on_time_sum_e6 Int64
        COMMENT 'sum of promises, millionths',
    n_p_on_time UInt64
        COMMENT 'with a deadline and a prediction',
    p_on_time_sum_e6 Int64
        COMMENT 'sum of predictions, millionths',
    n_target_quality UInt64
        COMMENT 'requests with a promise of quality',
    target_quality_sum_e6 Int64
        COMMENT 'sum of promises, millionths',
    n_p_good UInt64
        COMMENT 'with a predicted quality',
    p_good_sum_e6 Int64
        COMMENT 'sum of predictions, millionths'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    r.hour AS hour,
    r.sla_class AS sla_class,
    r.task AS task,
    r.offer AS offer,
    sum(r.n) AS n,
    sum(r.n_ok) AS n_ok,
    sum(r.n_infeasible) AS n_infeasible,
    sum(r.cost_nusd) AS cost_nusd,
    sum(r.n_deadline) AS n_deadline,
    sum(r.n_on_time) AS n_on_time,
    sum(r.n_target_on_time) AS n_target_on_time,
    sum(r.target_on_time_sum_e6) AS target_on_time_sum_e6,
    sum(r.n_p_on_time) AS n_p_on_time,
    sum(r.p_on_time_sum_e6) AS p_on_time_sum_e6,
    sum(r.n_target_quality) AS n_target_quality,
    sum(r.target_quality_sum_e6) AS target_quality_sum_e6,
    sum(r.n_p_good) AS n_p_good,
    sum(r.p_good_sum_e6) AS p_good_sum_e6
FROM market_raw.delivery_hours AS r
GROUP BY hour, sla_class, task, offer
COMMENT 'Promise and delivery by SLA class, task, delivering offer and hour; scores are in score_hours.';

CREATE VIEW IF NOT EXISTS market.class_hours${cluster}
(
    hour DateTime('UTC')
        COMMENT 'begin of the hour, UTC',
    sla_class LowCardinality(String)
        COMMENT 'tenant, task and targets',
    n UInt64
        COMMENT 'count',
    n_ok UInt64
        COMMENT 'that succeeded',
    n_infeasible UInt64
        COMMENT 'where no bid met the strict floors',
    cost_nusd Int64
        COMMENT 'cost in nano-dollars',
    n_deadline UInt64
        COMMENT 'requests with deadlines',
    n_on_time UInt64
        COMMENT 'that met them',
    n_target_on_time UInt64
        COMMENT 'requests with a promise of punctuality',
    target_on_time_sum_e6 Int64
        COMMENT 'sum of promises, millionths',
    n_p_on_time UInt64
        COMMENT 'with a deadline and a prediction',
    p_on_time_sum_e6 Int64
        COMMENT 'sum of predictions, millionths',
    n_target_quality UInt64
        COMMENT 'requests with a promise of quality',
    target_quality_sum_e6 Int64
        COMMENT 'sum of promises, millionths',
    n_p_good UInt64
        COMMENT 'with a predicted quality',
    p_good_sum_e6 Int64
        COMMENT 'sum of predictions, millionths'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    r.hour AS hour,
    r.sla_class AS sla_class,
    sum(r.n) AS n,
    sum(r.n_ok) AS n_ok,
    sum(r.n_infeasible) AS n_infeasible,
    sum(r.cost_nusd) AS cost_nusd,
    sum(r.n_deadline) AS n_deadline,
    sum(r.n_on_time) AS n_on_time,
    sum(r.n_target_on_time) AS n_target_on_time,
    sum(r.target_on_time_sum_e6) AS target_on_time_sum_e6,
    sum(r.n_p_on_time) AS n_p_on_time,
    sum(r.p_on_time_sum_e6) AS p_on_time_sum_e6,
    sum(r.n_target_quality) AS n_target_quality,
    sum(r.target_quality_sum_e6) AS target_quality_sum_e6,
    sum(r.n_p_good) AS n_p_good,
    sum(r.p_good_sum_e6) AS p_good_sum_e6
FROM market_raw.delivery_hours AS r
GROUP BY hour, sla_class
COMMENT 'Promise and delivery by SLA class and hour; scores are in score_hours.';

CREATE VIEW IF NOT EXISTS market.score_hours${cluster}
(
    hour DateTime('UTC')
        COMMENT 'begin of the hour, UTC',
    sla_class LowCardinality(String)
        COMMENT 'tenant, task and targets',
    task LowCardinality(String)
        COMMENT 'kind of task',
    offer LowCardinality(String)
        COMMENT 'provider/model[@region]',
    source LowCardinality(String)
        COMMENT 'who said so: gateway, probe, pushed, app; for scores user, verifier, judge, app',
    n UInt64
        COMMENT 'count',
    quality_sum_e6 Int64
        COMMENT 'sum of scores, millionths',
    n_p_good UInt64
        COMMENT 'with a predicted quality',
    p_good_sum_e6 Int64
        COMMENT 'sum of predictions, millionths'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    r.hour AS hour,
    r.sla_class AS sla_class,
    r.task AS task,
    r.offer AS offer,
    r.source AS source,
    sum(r.n) AS n,
    sum(r.quality_sum_e6) AS quality_sum_e6,
    sum(r.n_p_good) AS n_p_good,
    sum(r.p_good_sum_e6) AS p_good_sum_e6
FROM market_raw.score_hours AS r
GROUP BY hour, sla_class, task, offer, source
COMMENT 'Quality scores by offer, task, SLA class, source and hour.';
