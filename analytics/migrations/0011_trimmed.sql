-- What was dropped of a conversation that fitted no offer, where the key lets it be shortened.

ALTER TABLE market_raw.decisions${cluster}
    ADD COLUMN IF NOT EXISTS trimmed_messages Int64 DEFAULT 0 CODEC(T64, ZSTD),
    ADD COLUMN IF NOT EXISTS trimmed_tokens Int64 DEFAULT 0 CODEC(T64, ZSTD);

ALTER TABLE market_raw.decisions_feed${cluster}
    ADD COLUMN IF NOT EXISTS trimmed_messages Int64 DEFAULT 0,
    ADD COLUMN IF NOT EXISTS trimmed_tokens Int64 DEFAULT 0;
