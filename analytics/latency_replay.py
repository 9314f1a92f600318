"""Are latency promises kept? Real timed calls in time order through the real estimator.

    python -m analytics.latency_replay --data ../shared/data --json

`thefastest`: each round of probes in a region is promised from all rounds before it (as
`thefastest_next_day`: all of a day at its midnight), then scored and learned, in time order.
`llmperf`: a run is a stream, five calls at a time; each call is promised from those that had
ended. Everything goes through `LatencyEstimator.fold` and `.quotes`. Settings were picked on the
days before `REPORT_FROM` (and the first half of each llmperf run); what is reported is later, or
all of `--test-data`, which is promised from `--data` and from itself as it passes. Intervals are
95 % bootstrap intervals over days and regions (runs for llmperf), and over offers. What is
wanted of the figures is in `latency_bounds`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from analytics.latency_bounds import verdict
from analytics.latency_calls import Bools, Calls, Floats, Ints, load_llmperf, load_thefastest
from bidding.estimators.latency import LatencyEstimator
from bidding.estimators.latency_model import size_of_output
from bidding.estimators.latency_params import LatencyParams
from bidding.estimators.latency_pool import LatencyColumns
from bidding.estimators.on_time import (
    p_on_time,
    promised_share,
    total_quantile_ms,
    ttft_quantile_ms,
)

LEVELS: Final = (0.5, 0.9, 0.95, 0.99)
DEADLINES_MS: Final = (500.0, 1000.0, 2000.0)
REPORT_FROM: Final = datetime(2024, 4, 22, tzinfo=UTC).timestamp()
LLMPERF_REPORT_FROM_SEQ: Final = 38
LLMPERF_CONCURRENCY: Final = 5
_DAY_S: Final = 86_400.0


class Scores(NamedTuple):
    """Promises and what came of them: (n, levels), (n, deadlines) and (n,).

    `per_token_ms` and `total_ms` are quantiles promised of the time per further token and of
    the whole answer, given its length; all (n, levels).
    """

    at: Ints
    quantile_ms: Floats
    chance: Floats
    log_ms: Floats
    per_token_ms: Floats
    total_ms: Floats


def next_day(calls: Calls) -> Iterator[tuple[Ints, Ints, float]]:
    """(learn, then score, promised at): each day is promised at its midnight, UTC."""
    day = np.floor(calls.at_s / _DAY_S)
    for this in np.unique(day)[1:]:
        previous = np.max(day[day < this])
        yield np.flatnonzero(day == previous), np.flatnonzero(day == this), float(this * _DAY_S)


def next_round(calls: Calls) -> Iterator[tuple[Ints, Ints, float]]:
    """A promise before each round of probes in a region, from all rounds before it."""
    run = np.cumsum(np.diff(calls.at_s, prepend=calls.at_s[0]) > 600.0)
    _, members = np.unique(run * 1000 + calls.place, return_inverse=True)
    began = np.full(members.max() + 1, np.inf)
    np.minimum.at(began, members, calls.at_s)
    order = np.argsort(began)
    for before, this in itertools.pairwise(order):
        yield np.flatnonzero(members == before), np.flatnonzero(members == this), float(began[this])


def stream(calls: Calls) -> Iterator[tuple[Ints, Ints, float]]:
    """Each call promised once all but the `LLMPERF_CONCURRENCY` before it are known."""
    for at in range(len(calls.at_s)):
        known = at - LLMPERF_CONCURRENCY
        learn = np.arange(max(known, 0), known + 1) if known >= 0 else np.zeros(0, dtype=np.int64)
        yield learn, np.array([at]), float(calls.at_s[at])


def run(
    calls: Calls,
    steps: Callable[[Calls], Iterator[tuple[Ints, Ints, float]]],
    params: LatencyParams,
) -> Scores:
    """Promise and score all of `calls`, step by step."""
    estimator = LatencyEstimator(params)
    estimator.grow(int(calls.series.max()) + 1)
    for series, endpoint in zip(calls.series, calls.endpoint, strict=True):
        estimator.set_group(int(series), int(endpoint))
    scored, quantiles, chances = [], [], []
    per_token, total = np.full((2, len(calls.at_s), len(LEVELS)), np.nan)
    promised = np.full(len(calls.at_s), np.nan)
    for learn, score, now_s in steps(calls):
        estimator.fold(calls.batch(learn, promised))
        columns = estimator.quotes(now_s)
        tokens = float(calls.input_tokens[score[0]])
        out = np.ones(estimator.n_rows)
        quantile = np.stack([ttft_quantile_ms(columns, q, tokens) for q in LEVELS])
        chance = np.stack(
            [
                p_on_time(
                    columns,
                    ttft_deadline_ms=deadline,
                    latency_deadline_ms=None,
                    input_tokens=tokens,
                    output_tokens=out,
                )
                for deadline in DEADLINES_MS
            ]
        )
        for i in score:
            share = promised_share(
                columns, int(calls.series[i]), float(calls.ttft_ms[i]), float(calls.input_tokens[i])
            )
            promised[i] = math.nan if share is None else share
            per_token[i], total[i] = _lengthy(columns, calls, int(i))
        scored.append(score)
        quantiles.append(quantile[:, calls.series[score]].T)
        chances.append(chance[:, calls.series[score]].T)
    index = np.concatenate(scored)
    return Scores(
        index,
        np.concatenate(quantiles),
        np.concatenate(chances),
        np.log(calls.ttft_ms[index]),
        per_token[index],
        total[index],
    )


def _lengthy(columns: LatencyColumns, calls: Calls, i: int) -> tuple[Floats, Floats]:
    """Quantiles of time per token and of the whole of call `i`, each (levels,)."""
    row, tokens = calls.series[i], calls.output_tokens[i]
    slope = columns.tpot_per_log_output[row] * size_of_output(np.array(tokens))
    z = np.interp(LEVELS, columns.total_cdf, columns.z_grid)
    each = np.exp(columns.tpot_log_ms[row] + slope + columns.tpot_log_sd[row] * z)
    out = np.full(len(columns.ttft_log_ms), tokens)
    size = float(calls.input_tokens[i])
    whole = np.array([total_quantile_ms(columns, q, size, out)[row] for q in LEVELS])
    return each, whole


def figures(calls: Calls, scores: Scores, keep: Bools) -> dict[str, object]:
    """Attainment, calibration and sharpness over the calls in `keep`."""
    index = scores.at[keep]
    kept = Scores(
        index,
        scores.quantile_ms[keep],
        scores.chance[keep],
        scores.log_ms[keep],
        scores.per_token_ms[keep],
        scores.total_ms[keep],
    )
    ms = calls.ttft_ms[index]
    met = ms[:, None] <= kept.quantile_ms
    days = np.floor(calls.at_s[index] / _DAY_S).astype(np.int64)
    clusters = calls.place[index] + 1000 * days
    on_time = ms[:, None] <= np.array(DEADLINES_MS)
    result: dict[str, object] = {
        "n": len(index),
        "attained": _attained(met, clusters, calls.endpoint[index]),
        "by_day": {
            f"{datetime.fromtimestamp(day * _DAY_S, UTC):%Y-%m-%d}": _plain(met[here])
            for day in np.unique(days)
            for here in [days == day]
        },
        "by_half_of_offers": [_plain(met[calls.endpoint[index] % 2 == half]) for half in (0, 1)],
        "per_offer_gap": _per_offer(met, calls.endpoint[index]),
        "per_series_gap": _per_offer(met, calls.series[index]),
        "pinball_log_s": _mean(_pinball(kept.log_ms, kept.quantile_ms), clusters),
        "ece": _ece(kept.chance.ravel(), on_time.ravel()),
        "ece_at_ms": {
            f"{d:g}": _ece(kept.chance[:, k], on_time[:, k]) for k, d in enumerate(DEADLINES_MS)
        },
    }
    for name, seen, quantile in (
        ("per_token", calls.per_token_ms[index], kept.per_token_ms),
        ("whole_answer", calls.total_ms[index], kept.total_ms),
    ):
        known = np.isfinite(seen) & (seen > 0.0) & np.isfinite(quantile).all(axis=1)
        result[name] = {
            "n": int(known.sum()),
            "attained": _plain(seen[known, None] <= quantile[known]),
            "pinball_log": float(_pinball(np.log(seen[known]), quantile[known]).mean()),
        }
    return result


def _attained(met: Bools, clusters: Ints, offers: Ints) -> dict[str, dict[str, float]]:
    found = {}
    for k, q in enumerate(LEVELS):
        share = _mean(met[:, k].astype(np.float64), clusters)
        over = _mean(met[:, k].astype(np.float64), offers)
        found[str(q)] = share | {"low_offers": over["low"], "high_offers": over["high"]}
    return found


def _plain(met: Bools) -> dict[str, float]:
    return {"n": len(met)} | {str(q): float(met[:, k].mean()) for k, q in enumerate(LEVELS)}


def winners_curse(calls: Calls, scores: Scores, keep: Bools) -> dict[str, dict[str, float]]:
    """Pick, among the offers of a place and day, the one that barely clears the bar.

    For each bar and deadline the offer with the least chance not below the bar is chosen, as a
    buyer to whom slow means cheap would; `promised` and `kept` are means over the choices.
    """
    index = scores.at[keep]
    chance = scores.chance[keep]
    on_time = calls.ttft_ms[index][:, None] <= np.array(DEADLINES_MS)
    when = calls.place[index] + 1000 * np.round(calls.at_s[index] / 3600.0).astype(np.int64)
    found: dict[str, dict[str, float]] = {}
    every: list[tuple[float, float]] = []
    for bar in LEVELS:
        promised: list[float] = []
        delivered: list[float] = []
        for this in np.unique(when):
            here = np.flatnonzero(when == this)
            for k in range(len(DEADLINES_MS)):
                clears = here[chance[here, k] >= bar]
                if len(clears):
                    pick = clears[np.argmin(chance[clears, k])]
                    promised.append(float(chance[pick, k]))
                    delivered.append(float(on_time[pick, k]))
        every += zip(promised, delivered, strict=True)
        found[str(bar)] = _kept(promised, delivered)
    return found | {"all": _kept([p for p, _ in every], [d for _, d in every])}


def _kept(promised: list[float], delivered: list[float]) -> dict[str, float]:
    if not promised:
        return {"n": 0}
    return {
        "n": len(promised),
        "promised": float(np.mean(promised)),
        "kept": float(np.mean(delivered)),
    }


def _pinball(log_ms: Floats, quantile_ms: Floats) -> Floats:
    short = log_ms[:, None] - np.log(quantile_ms)
    levels = np.array(LEVELS)
    loss: Floats = np.maximum(levels * short, (levels - 1.0) * short).mean(axis=1)
    return loss


def _per_offer(met: Bools, offer: Ints) -> dict[str, float]:
    names, n = np.unique(offer, return_counts=True)
    names = names[n >= 8]
    gaps = np.array([np.abs(met[offer == name].mean(axis=0) - LEVELS) for name in names])
    means = gaps.mean(axis=0) if len(gaps) else np.full(len(LEVELS), np.nan)
    return {"n_offers": len(names)} | {str(q): float(means[k]) for k, q in enumerate(LEVELS)}


def _ece(chance: Floats, on_time: Bools) -> float:
    bins = np.minimum((chance * 10).astype(np.int64), 9)
    gaps = [
        np.sum(bins == b) * abs(np.mean(on_time[bins == b]) - np.mean(chance[bins == b]))
        for b in np.unique(bins)
    ]
    return float(np.sum(gaps) / len(chance))


def _mean(values: Floats, clusters: Ints) -> dict[str, float]:
    _, members = np.unique(clusters, return_inverse=True)
    sums, n = np.bincount(members, weights=values), np.bincount(members)
    rng = np.random.default_rng(0)
    picks = rng.integers(0, len(n), (1000, len(n)))
    means = sums[picks].sum(axis=1) / n[picks].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


def report(
    data: Path,
    params: LatencyParams,
    *,
    early: bool = False,
    test_data: Path | None = None,
) -> dict[str, object]:
    """All figures, and under `holds` and `wanted` what is wanted of them.

    Parameters
    ----------
    data : Path
        What may be learnt from; without `test_data` its later part is scored.
    early : bool
        Score the part that settings may be picked on instead.
    test_data : Path, optional
        Scored alone, in time order; where it lacks a set, that of `data` is.
    """
    found: dict[str, object] = {"part": "early" if early else "late"}
    fastest = load_thefastest(data, test_data)
    late = fastest.held if fastest.held.any() else fastest.at_s >= REPORT_FROM
    for name, steps in (("thefastest", next_round), ("thefastest_next_day", next_day)):
        scores = run(fastest, steps, params)
        keep = late[scores.at] != early
        found[name] = figures(fastest, scores, keep) | {
            "winners_curse": winners_curse(fastest, scores, keep)
        }
    perf = load_llmperf(data, test_data)
    late = perf.held if perf.held.any() else perf.seq >= LLMPERF_REPORT_FROM_SEQ
    scores = run(perf, stream, params)
    found["llmperf"] = figures(perf, scores, late[scores.at] != early)
    return found | verdict(found)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--test-data", type=Path, help="same layout; scored alone")
    parser.add_argument("--early", action="store_true", help="score the part settings come from")
    parser.add_argument("--json", action="store_true", help="one line instead of a tree")
    args = parser.parse_args(argv)
    found = report(args.data, LatencyParams(), early=args.early, test_data=args.test_data)
    json.dump(found, sys.stdout, indent=None if args.json else 2)
    sys.stdout.write("\n")
    return 0 if found["holds"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
