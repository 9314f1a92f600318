-- Question: From which offer to which do requests fall back, and why?
-- Grain: one row per failed offer, next offer and failure class.
-- Cost: attempts of the period that were not alone, six columns.
-- Param: since DateTime = 6h | from when
-- Param: until DateTime = now | up to when
SELECT
    offers[i] AS from_offer, offers[i + 1] AS to_offer, failures[i] AS failure,
    count() AS times,
    round(countIf(failures[i + 1] = 'ok') / count(), 4) AS answered_share
FROM
(
    SELECT
        arrayMap(x -> x.2, arraySort(groupArray((attempt, offer)))) AS offers,
        arrayMap(x -> x.2, arraySort(groupArray((attempt, failure)))) AS failures
    FROM market.attempts
    WHERE at >= {since:DateTime} AND at < {until:DateTime} AND source = 'gateway' AND NOT hedge
        AND decision_id IN
        (
            SELECT decision_id FROM market.attempts
            WHERE at >= {since:DateTime} AND at < {until:DateTime} AND attempt > 1
        )
    GROUP BY decision_id
    HAVING length(offers) > 1
)
ARRAY JOIN range(1, length(offers)) AS i
GROUP BY from_offer, to_offer, failure
ORDER BY times DESC, from_offer, to_offer, failure
