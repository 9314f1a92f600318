-- Question: How have list prices and asks moved, and what was withdrawn?
-- Grain: one row per price report.
-- Cost: table of prices: one row a change.
-- Param: since DateTime = 365d | from when
-- Param: until DateTime = now | up to when
-- Param: offer String = | only this offer
SELECT
    at, offer, input_usd_per_mtok, output_usd_per_mtok, cache_read_usd_per_mtok, request_usd,
    old_input_usd_per_mtok, old_output_usd_per_mtok,
    round(100 * (input_usd_per_mtok / nullIf(old_input_usd_per_mtok, 0) - 1), 1)
        AS input_change_percent,
    round(100 * (output_usd_per_mtok / nullIf(old_output_usd_per_mtok, 0) - 1), 1)
        AS output_change_percent,
    source, quarantined, withdrawn
FROM market.prices
WHERE at >= {since:DateTime} AND at < {until:DateTime}
    AND ({offer:String} = '' OR offer = {offer:String})
ORDER BY at DESC, offer
