-- The tightest budget that a request was paid from, or was refused for: a JSON object.

ALTER TABLE market_raw.decisions${cluster}
    ADD COLUMN IF NOT EXISTS budget String CODEC(ZSTD);

ALTER TABLE market_raw.decisions_feed${cluster}
    ADD COLUMN IF NOT EXISTS budget String;
