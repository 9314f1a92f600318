-- Question: Who wins auctions, who loses, and by how much?
-- Grain: one row per offer that was ranked.
-- Cost: ranked bids of the period's decisions.
-- Param: since DateTime = 3h | from when
-- Param: until DateTime = now | up to when
-- Param: task String = | only this kind of task
SELECT
    offer,
    count() AS ranked,
    countIf(rank = 1) AS won,
    round(won / ranked, 4) AS won_share,
    round(avg(rank), 2) AS mean_rank,
    round(avgIf(score_usd - least_score_usd, rank > 1), 9) AS mean_gap_usd,
    round(avg(cost_usd), 9) AS mean_cost_usd,
    round(avg(p_good), 4) AS mean_p_good,
    round(avg(p_on_time), 4) AS mean_p_on_time
FROM market.bids
WHERE at >= {since:DateTime} AND at < {until:DateTime}
    AND ({task:String} = '' OR task = {task:String})
GROUP BY offer
ORDER BY won DESC, ranked DESC, offer
