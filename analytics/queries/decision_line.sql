-- Question: What happened to this request, from decision to score, in order?
-- Grain: one row per event: the decision, each ranked bid, each attempt, each score.
-- Cost: the decision by its id (bloom filter), the rest of the day around it by theirs; without the
--   decision the filters of all days.
-- Param: decision_id String | the decision
WITH
    (
        SELECT minOrNull(at) FROM market.decisions WHERE decision_id = {decision_id:String}
    ) AS decided_at,
    ifNull(decided_at - toIntervalDay(1), toDateTime64(0, 6, 'UTC')) AS earliest,
    ifNull(decided_at + toIntervalDay(1), toDateTime64('2299-01-01', 6, 'UTC')) AS latest
SELECT at, event, n, offer, result, cost_usd, ms, detail FROM
(
    SELECT
        0 AS place, at, 'decision' AS event, n_attempts AS n, delivered_offer AS offer,
        failure AS result, toNullable(cost_usd) AS cost_usd, total_ms AS ms,
        format('{} by {}, {} bids, on time: {}, params {}, view {}', task, policy,
            toString(n_bids), ifNull(toString(on_time), 'no deadline'), toString(params_version),
            toString(view_number)) AS detail
    FROM market.decisions WHERE decision_id = {decision_id:String}
        AND at >= earliest AND at <= latest
    UNION ALL
    SELECT
        1, at, 'bid', rank, offer, if(won, 'won', ''), cost_usd, NULL,
        format('score {} usd, P(good) {}, P(on time) {}', toString(round(score_usd, 9)),
            toString(round(p_good, 4)), toString(round(p_on_time, 4)))
    FROM market.bids WHERE decision_id = {decision_id:String}
        AND at >= earliest AND at <= latest
    UNION ALL
    SELECT
        2, at, if(hedge, 'hedge', 'attempt'), attempt, offer, failure, cost_usd, total_ms,
        format('first token {} ms, {} in, {} out {}', ifNull(toString(ttft_ms), '-'),
            toString(input_tokens), toString(output_tokens), reason)
    FROM market.attempts WHERE decision_id = {decision_id:String}
        AND at >= earliest AND at <= latest
    UNION ALL
    SELECT
        3, at, 'score', 0, offer, source, NULL, NULL, format('quality {}', toString(quality))
    FROM market.feedback WHERE decision_id = {decision_id:String}
)
ORDER BY place, n, at
