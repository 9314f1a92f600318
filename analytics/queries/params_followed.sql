-- Question: What followed each change of the bandit's parameters?
-- Grain: one row per measure of a version put in force, or tried as a canary. A version in force
--   stands against the one before it, both as long as the shorter was in force, an hour at least:
--   before and after, so whatever else changed then is in it and it proves no cause. A canary stands
--   against the requests outside it meanwhile, by lot. Both within SLA classes that either side had,
--   each with one weight for both sides (Cochran, Mantel, Haenszel), so a change of mix is no effect.
--   low to high is the 95 % interval of the difference: of shares and quality Newcombe's from
--   Wilson's at the effective number, of spend Welch's. Scores count for the version that bought.
-- Cost: projections by_params of decisions and feedback: ten minutes x SLA classes, at most 4 x
--   hours of them a version.
-- Param: since DateTime = 30d | changes from when
-- Param: until DateTime = now | up to when; what came later is not looked at
-- Param: hours UInt32 = 24 | most hours on either side of a change
-- Param: version UInt64 = 0 | only this version; 0: all
WITH
    toInt64(toUnixTimestamp({until:DateTime})) AS until_s,
    toInt64({hours:UInt32}) * 3600 AS most_s,
    put AS
    (
        SELECT h.version AS version, any(h.event) AS event, min(toInt64(toUnixTimestamp(h.at))) AS at_s
        FROM market.params_history AS h
        WHERE h.scope = 'global' AND h.at <= {until:DateTime}
        GROUP BY version
    ),
    in_force AS
    (
        SELECT
            version, event, at_s,
            lagInFrame(version, 1, 0) OVER known AS against,
            lagInFrame(at_s, 1, 0) OVER known AS against_at_s,
            leadInFrame(at_s, 1, until_s) OVER known AS next_at_s,
            greatest(3600, least(most_s, at_s - against_at_s, next_at_s - at_s)) AS side_s
        FROM put
        WINDOW known AS (ORDER BY version ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
    ),
    tried AS
    (
        SELECT
            h.version AS version,
            argMax(h.event, h.revision) AS newest,
            min(toInt64(toUnixTimestamp(h.at))) AS at_s,
            if(newest = 'canary', until_s, max(toInt64(toUnixTimestamp(h.at)))) AS end_s,
            (SELECT groupArray((p.at_s, p.version)) FROM put AS p) AS known
        FROM market.params_history AS h
        WHERE h.scope = 'canary' AND h.at <= {until:DateTime}
        GROUP BY version
    ),
    changes AS
    (
        SELECT version, 'in force' AS kind, event, at_s, against, '' AS arm,
            at_s - side_s AS from_s, at_s + 600 AS against_to_s, at_s + side_s AS to_s
        FROM in_force
        WHERE {version:UInt64} IN (0, version) AND at_s >= toUnixTimestamp({since:DateTime})
        UNION ALL
        SELECT version, 'canary' AS kind, if(newest = 'canary', 'running', newest) AS event, at_s,
            arrayMax(p -> if(p.1 <= at_s, p.2, 0), arrayPushBack(known, (0, 0))) AS against,
            concat('v', toString(version)) AS arm,
            at_s AS from_s, least(end_s, at_s + most_s) AS against_to_s, against_to_s + 600 AS to_s
        FROM tried
        WHERE {version:UInt64} IN (0, version) AND at_s >= toUnixTimestamp({since:DateTime})
    ),
    -- As a value, so that it is made once however often it is looked at.
    (
        SELECT groupArray((version, kind, event, at_s, against, arm, from_s, against_to_s, to_s))
        FROM changes
    ) AS known_changes,
    asked AS
    (
        SELECT c.1 AS version, c.2 AS kind, c.3 AS event, c.4 AS at_s, c.5 AS against, c.6 AS arm,
            c.7 AS from_s, c.8 AS against_to_s, c.9 AS to_s
        FROM (SELECT arrayJoin(known_changes) AS c)
    ),
    (SELECT min(intDiv(from_s, 600) * 600) FROM asked) AS first_s,
    (SELECT arrayConcat(groupArray(version), groupArray(against)) FROM asked) AS looked_at,
    sides AS
    (
        SELECT version, kind, to_s, side.1 AS ours, side.2 AS bought_under, side.3 AS bought_arm,
            intDiv(side.4, 600) * 600 AS least_s, side.5 AS last_s
        FROM asked
        ARRAY JOIN [
            (false, against, '', from_s, against_to_s),
            (true, version, arm, if(kind = 'canary', from_s, at_s), to_s)] AS side
    ),
    -- Each change, side and class: what was delivered, and how many scores came to what.
    requests AS
    (
        SELECT
            s.version AS version, s.kind AS kind, s.ours AS ours,
            replaceRegexpOne(d.sla_class, '~v[0-9]+$', '') AS class,
            sum(d.n) AS n_all, sum(d.n_ok) AS n_ok, sum(d.cost_nusd) / 1e6 AS usd_per_1k,
            sum(toFloat64(d.cost_square_sum)) / 1e12 AS usd_per_1k_square,
            sum(d.n_deadline) AS n_deadline, sum(d.n_on_time) AS n_on_time,
            sum(d.n_ttft) AS n_ttft, sum(d.n_ttft_kept) AS n_ttft_kept,
            sum(d.n_latency) AS n_latency, sum(d.n_latency_kept) AS n_latency_kept
        FROM
        (
            SELECT * FROM market.params_delivery AS p
            WHERE p.set_apart = '' AND has(looked_at, p.params_version)
                AND p.since >= toDateTime(first_s, 'UTC')
        ) AS d
        INNER JOIN sides AS s ON s.bought_under = d.params_version AND s.bought_arm = d.arm
        WHERE toInt64(toUnixTimestamp(d.since)) >= s.least_s
            AND toInt64(toUnixTimestamp(d.since)) < s.last_s
        GROUP BY version, kind, ours, class
    ),
    scores AS
    (
        SELECT
            s.version AS version, s.kind AS kind, s.ours AS ours,
            replaceRegexpOne(f.sla_class, '~v[0-9]+$', '') AS class,
            sum(f.n) AS n_scores, sum(f.quality_sum_e6) / 1e6 AS quality
        FROM
        (
            SELECT * FROM market.params_scores AS p
            WHERE has(looked_at, p.params_version)
                AND p.since >= toDateTime(first_s, 'UTC')
        ) AS f
        INNER JOIN sides AS s ON s.bought_under = f.params_version
            AND s.bought_arm = extract(f.sla_class, '~(v[0-9]+)$')
        WHERE toInt64(toUnixTimestamp(f.since)) >= s.least_s
            AND toInt64(toUnixTimestamp(f.since)) < s.to_s
        GROUP BY version, kind, ours, class
    ),
    -- Long: a measure's number, sum and sum of squares on one side in one class.
    told AS
    (
        SELECT version, kind, ours, class, m.1 AS measure, m.2 AS n, m.3 AS total, m.4 AS squares
        FROM requests
        ARRAY JOIN [
            ('spend_usd_per_1k', toFloat64(n_all), usd_per_1k, usd_per_1k_square),
            ('on_time_share', toFloat64(n_deadline), toFloat64(n_on_time), nan),
            ('ttft_kept_share', toFloat64(n_ttft), toFloat64(n_ttft_kept), nan),
            ('latency_kept_share', toFloat64(n_latency), toFloat64(n_latency_kept), nan),
            ('failed_share', toFloat64(n_all), toFloat64(n_all - n_ok), nan)] AS m
        UNION ALL
        SELECT version, kind, ours, class, 'quality', toFloat64(n_scores), quality, nan FROM scores
    ),
    paired AS
    (
        SELECT
            version, kind, measure, class,
            sumIf(n, ours) AS n1, sumIf(n, NOT ours) AS n0,
            sumIf(total, ours) / n1 AS mean1, sumIf(total, NOT ours) / n0 AS mean0,
            greatest(0, sumIf(squares, ours) / n1 - mean1 * mean1) * n1 / (n1 - 1) AS var1,
            greatest(0, sumIf(squares, NOT ours) / n0 - mean0 * mean0) * n0 / (n0 - 1) AS var0,
            -- A spread of one request is not known, so such a class says nothing of spend.
            if(least(n0, n1) >= if(measure = 'spend_usd_per_1k', 2, 1), n0 * n1 / (n0 + n1), 0) AS w
        FROM told
        GROUP BY version, kind, measure, class
    ),
    summed AS
    (
        SELECT
            version, kind, measure,
            sum(n0) AS n_against, sum(n1) AS n_ours,
            sumIf(n0 + n1, w > 0) AS n_compared,
            nullIf(sum(w), 0) AS all_w,
            sumIf(w * mean0, w > 0) / all_w AS p0,
            sumIf(w * mean1, w > 0) / all_w AS p1,
            all_w * all_w / sumIf(w * w / n0, w > 0) AS e0,
            all_w * all_w / sumIf(w * w / n1, w > 0) AS e1,
            sumIf(w * w * (var0 / n0 + var1 / n1), w > 0) / (all_w * all_w) AS var,
            sumIf(pow(w * w * var0 / n0, 2) / (n0 - 1) + pow(w * w * var1 / n1, 2) / (n1 - 1), w > 0)
                / pow(all_w, 4) AS var_of_var
        FROM paired
        GROUP BY version, kind, measure
    ),
    -- Wilson's intervals, by middle and half; degrees of freedom by Welch and Satterthwaite.
    spread AS
    (
        SELECT
            *,
            1.959964 AS z,
            greatest(2, if(var_of_var > 0, var * var / var_of_var, 1e9)) AS dof,
            (p0 + z * z / (2 * e0)) / (1 + z * z / e0) AS middle0,
            (p1 + z * z / (2 * e1)) / (1 + z * z / e1) AS middle1,
            z / (1 + z * z / e0) * sqrt(p0 * (1 - p0) / e0 + z * z / (4 * e0 * e0)) AS half0,
            z / (1 + z * z / e1) * sqrt(p1 * (1 - p1) / e1 + z * z / (4 * e1 * e1)) AS half1
        FROM summed
    ),
    weighed AS
    (
        SELECT
            *,
            p1 - p0 AS d,
            -- Student's quantile from the normal's (Cornish and Fisher; Abramowitz & Stegun 26.7.5).
            sqrt(var) * (z + (pow(z, 3) + z) / (4 * dof)
                + (5 * pow(z, 5) + 16 * pow(z, 3) + 3 * z) / (96 * dof * dof)
                + (3 * pow(z, 7) + 19 * pow(z, 5) + 17 * pow(z, 3) - 15 * z) / (384 * pow(dof, 3)))
                AS half,
            if(measure = 'spend_usd_per_1k', d - half,
                d - sqrt(pow(p1 - middle1 + half1, 2) + pow(middle0 + half0 - p0, 2))) AS least,
            if(measure = 'spend_usd_per_1k', d + half,
                d + sqrt(pow(middle1 + half1 - p1, 2) + pow(p0 - middle0 + half0, 2))) AS most
        FROM spread
    )
SELECT
    c.version AS version,
    c.kind AS kind,
    c.event AS event,
    toDateTime(c.at_s, 'UTC') AS at,
    c.against AS against_version,
    round(if(c.kind = 'canary', c.against_to_s - c.at_s, c.to_s - c.at_s) / 3600, 2) AS hours_a_side,
    c.measure AS measure,
    toUInt64(ifNull(w.n_against, 0)) AS n_against,
    toUInt64(ifNull(w.n_ours, 0)) AS n,
    round(w.n_compared / nullIf(w.n_against + w.n_ours, 0), 4) AS compared_share,
    round(w.p0, 6) AS value_against,
    round(w.p1, 6) AS value,
    round(w.d, 6) AS difference,
    round(w.least, 6) AS low,
    round(w.most, 6) AS high,
    multiIf(low > 0, 'more', high < 0, 'less', low <= high, 'open', '') AS told
FROM
(
    SELECT *, measure FROM asked
    ARRAY JOIN ['spend_usd_per_1k', 'quality', 'on_time_share', 'ttft_kept_share',
        'latency_kept_share', 'failed_share'] AS measure
) AS c
LEFT JOIN weighed AS w ON w.version = c.version AND w.kind = c.kind AND w.measure = c.measure
ORDER BY at DESC, kind, version DESC,
    indexOf(['spend_usd_per_1k', 'quality', 'on_time_share', 'ttft_kept_share',
        'latency_kept_share', 'failed_share'], measure)
