-- Offers that sellers or price lists withdraw: told beside prices, as a change of its own.

ALTER TABLE market_raw.prices${cluster}
    ADD COLUMN IF NOT EXISTS withdrawn Bool DEFAULT JSONExtractBool(record, 'withdrawn');

ALTER TABLE market_raw.prices_feed${cluster}
    ADD COLUMN IF NOT EXISTS withdrawn Bool DEFAULT JSONExtractBool(record, 'withdrawn');

CREATE OR REPLACE VIEW market.prices${cluster}
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
    withdrawn Bool
        COMMENT 'the offer is said to be sold no longer; prices are its last',
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
    withdrawn,
    _log AS log,
    _partition AS log_partition,
    _offset AS log_offset,
    _stored_at AS stored_at
FROM market_raw.prices
COMMENT 'List prices, spot asks and withdrawals, whenever a source reported a change.';
