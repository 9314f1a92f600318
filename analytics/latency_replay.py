"""Are latency promises kept? Real timed calls in time order through the real estimator.

    python -m analytics.latency_replay --data ../shared/data --json

`thefastest`: each round of probes in a region is promised from all rounds before it (as
`thefastest_next_day`: all of a day at its midnight), then scored and learned, in time order.
`llmperf`: a run is a stream, five calls at a time; each call is promised from those that had
ended. Everything goes through `LatencyEstimator.fold` and `.quotes`, as in production. Settings
were picked on the days before `REPORT_FROM` (and the first half of each llmperf run); what is
reported is later. Intervals are 95 % bootstrap intervals over days and regions (runs for
llmperf).
"""

from __future__ import annotations

import argparse
import csv
import gzip
import itertools
import json
import math
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bidding.estimators.latency import LatencyEstimator
from bidding.estimators.latency_params import LatencyParams
from bidding.estimators.on_time import p_on_time, promised_share, ttft_quantile_ms
from bidding.outcome import OutcomeBatch

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEVELS: Final = (0.5, 0.9, 0.95, 0.99)
DEADLINES_MS: Final = (500.0, 1000.0, 2000.0)
REPORT_FROM: Final = datetime(2024, 4, 22, tzinfo=UTC).timestamp()
LLMPERF_REPORT_FROM_SEQ: Final = 38
LLMPERF_CONCURRENCY: Final = 5
_DAY_S: Final = 86_400.0


class Calls(NamedTuple):
    """Timed calls in time order, arrays (n,); `series` is the offer, `endpoint` its group."""

    at_s: Floats
    series: Ints
    endpoint: Ints
    place: Ints
    ttft_ms: Floats
    total_ms: Floats
    input_tokens: Floats
    output_tokens: Floats
    seq: Ints

    def batch(self, index: Ints, promised: Floats) -> OutcomeBatch:
        zeros = np.zeros(len(index))
        return OutcomeBatch(
            row=self.series[index],
            at_s=self.at_s[index],
            failure=zeros.astype(np.int64),
            ttft_ms=self.ttft_ms[index],
            total_ms=self.total_ms[index],
            waited_ms=np.full(len(index), np.nan),
            input_tokens=self.input_tokens[index],
            output_tokens=self.output_tokens[index],
            n_inflight=zeros,
            trust=np.ones(len(index)),
            ttft_promised=promised[index],
        )


class Scores(NamedTuple):
    """Promises and what came of them: (n, levels), (n, deadlines) and (n,)."""

    at: Ints
    quantile_ms: Floats
    chance: Floats
    log_ms: Floats


def load_thefastest(data: Path) -> Calls:
    """Probes of `thefastest/samples.csv.gz`, one series per endpoint and region."""
    rows = [r for r in _rows(data / "thefastest" / "samples.csv.gz") if r["ttft_s"]]
    rows = [r for r in rows if float(r["ttft_s"]) > 0]
    started = [datetime.fromisoformat(r["time_utc"]).timestamp() for r in rows]
    names = [f"{r['provider']}/{r['model']}" for r in rows]
    return _calls(
        rows,
        at_s=np.array(started) + np.array([float(r["total_s"] or r["ttft_s"]) for r in rows]),
        series=[f"{n}@{r['region']}" for n, r in zip(names, rows, strict=True)],
        endpoint=names,
        place=[r["region"] for r in rows],
        total="total_s",
        input_tokens=np.full(len(rows), 20.0),
        seq=np.zeros(len(rows), dtype=np.int64),
    )


def load_llmperf(data: Path) -> Calls:
    """Successful calls of `llmperf/requests.csv.gz`; end times spread over each run."""
    rows = [r for r in _rows(data / "llmperf" / "requests.csv.gz") if r["ttft_s"]]
    rows.sort(key=lambda r: (int(r["run_unix"]), r["endpoint"], int(r["seq"])))
    seq = np.array([int(r["seq"]) for r in rows])
    return _calls(
        rows,
        at_s=np.array([float(r["run_unix"]) for r in rows]) - 2.0 * (75 - seq),
        series=[r["endpoint"] for r in rows],
        endpoint=[r["endpoint"] for r in rows],
        place=[r["endpoint"] for r in rows],
        total="e2e_s",
        input_tokens=np.array([float(r["in_tokens"]) for r in rows]),
        seq=seq,
        sort=False,
    )


def _rows(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", newline="") as file:
        return list(csv.DictReader(file))


def _calls(
    rows: list[dict[str, str]],
    *,
    at_s: Floats,
    series: list[str],
    endpoint: list[str],
    place: list[str],
    total: str,
    input_tokens: Floats,
    seq: Ints,
    sort: bool = True,
) -> Calls:
    order = np.argsort(at_s, kind="stable") if sort else np.arange(len(rows))
    index = [np.unique(names, return_inverse=True)[1] for names in (series, endpoint, place)]
    ttft = np.array([float(r["ttft_s"]) for r in rows]) * 1e3
    whole = np.array([float(r[total] or "nan") for r in rows]) * 1e3
    out = np.array([float(r["out_tokens"] or "0") for r in rows])
    columns = (at_s, *index, ttft, whole, input_tokens, out, seq)
    return Calls(*(column[order] for column in columns))


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
        scored.append(score)
        quantiles.append(quantile[:, calls.series[score]].T)
        chances.append(chance[:, calls.series[score]].T)
    index = np.concatenate(scored)
    return Scores(
        index, np.concatenate(quantiles), np.concatenate(chances), np.log(calls.ttft_ms[index])
    )


def figures(calls: Calls, scores: Scores, keep: NDArray[np.bool_]) -> dict[str, object]:
    """Attainment, calibration, sharpness and the winner's curse over the calls in `keep`."""
    index = scores.at[keep]
    kept = Scores(index, scores.quantile_ms[keep], scores.chance[keep], scores.log_ms[keep])
    ms = calls.ttft_ms[index]
    met = ms[:, None] <= kept.quantile_ms
    clusters = calls.place[index] + 1000 * np.floor(calls.at_s[index] / _DAY_S).astype(np.int64)
    on_time = ms[:, None] <= np.array(DEADLINES_MS)
    result: dict[str, object] = {
        "n": len(index),
        "attained": {str(q): _share(met[:, k], clusters) for k, q in enumerate(LEVELS)},
        "per_offer_gap": _per_offer(met, calls.endpoint[index]),
        "per_series_gap": _per_offer(met, calls.series[index]),
        "pinball_log_s": _mean(_pinball(kept), clusters),
        "ece": _ece(kept.chance.ravel(), on_time.ravel()),
        "ece_at_ms": {
            f"{d:g}": _ece(kept.chance[:, k], on_time[:, k]) for k, d in enumerate(DEADLINES_MS)
        },
    }
    return result


def winners_curse(
    calls: Calls, scores: Scores, keep: NDArray[np.bool_]
) -> dict[str, dict[str, float]]:
    """Pick, among the offers of a place and day, the one that barely clears the bar.

    For each bar and deadline the offer with the least chance not below the bar is chosen, as a
    buyer to whom slow means cheap would; `promised` and `kept` are means over the choices.
    """
    index = scores.at[keep]
    chance = scores.chance[keep]
    on_time = calls.ttft_ms[index][:, None] <= np.array(DEADLINES_MS)
    when = calls.place[index] + 1000 * np.round(calls.at_s[index] / 3600.0).astype(np.int64)
    found = {}
    for bar in LEVELS:
        promised, delivered = [], []
        for this in np.unique(when):
            here = np.flatnonzero(when == this)
            for k in range(len(DEADLINES_MS)):
                clears = here[chance[here, k] >= bar]
                if len(clears):
                    pick = clears[np.argmin(chance[clears, k])]
                    promised.append(chance[pick, k])
                    delivered.append(on_time[pick, k])
        found[str(bar)] = {
            "n": len(promised),
            "promised": float(np.mean(promised)),
            "kept": float(np.mean(delivered)),
        }
    return found


def _pinball(scores: Scores) -> Floats:
    short = scores.log_ms[:, None] - np.log(scores.quantile_ms)
    levels = np.array(LEVELS)
    loss: Floats = np.maximum(levels * short, (levels - 1.0) * short).mean(axis=1)
    return loss


def _per_offer(met: NDArray[np.bool_], offer: Ints) -> dict[str, float]:
    names, n = np.unique(offer, return_counts=True)
    names = names[n >= 8]
    gaps = np.array([np.abs(met[offer == name].mean(axis=0) - LEVELS) for name in names])
    means = gaps.mean(axis=0) if len(gaps) else np.full(len(LEVELS), np.nan)
    return {"n_offers": len(names)} | {str(q): float(means[k]) for k, q in enumerate(LEVELS)}


def _ece(chance: Floats, on_time: NDArray[np.bool_]) -> float:
    bins = np.minimum((chance * 10).astype(np.int64), 9)
    gaps = [
        np.sum(bins == b) * abs(np.mean(on_time[bins == b]) - np.mean(chance[bins == b]))
        for b in np.unique(bins)
    ]
    return float(np.sum(gaps) / len(chance))


def _share(met: NDArray[np.bool_], clusters: Ints) -> dict[str, object]:
    return _mean(met.astype(np.float64), clusters)


def _mean(values: Floats, clusters: Ints) -> dict[str, object]:
    _, members = np.unique(clusters, return_inverse=True)
    sums, n = np.bincount(members, weights=values), np.bincount(members)
    rng = np.random.default_rng(0)
    picks = rng.integers(0, len(n), (1000, len(n)))
    means = sums[picks].sum(axis=1) / n[picks].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


def report(data: Path, params: LatencyParams, *, early: bool = False) -> dict[str, object]:
    """All figures; `early` scores the part on which settings may be picked instead."""
    found: dict[str, object] = {"part": "early" if early else "late"}
    fastest = load_thefastest(data)
    for name, steps in (("thefastest", next_round), ("thefastest_next_day", next_day)):
        scores = run(fastest, steps, params)
        keep = (fastest.at_s[scores.at] >= REPORT_FROM) != early
        found[name] = figures(fastest, scores, keep) | {
            "winners_curse": winners_curse(fastest, scores, keep)
        }
    perf = load_llmperf(data)
    scores = run(perf, stream, params)
    keep = (perf.seq[scores.at] >= LLMPERF_REPORT_FROM_SEQ) != early
    found["llmperf"] = figures(perf, scores, keep)
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--early", action="store_true", help="score the part settings come from")
    parser.add_argument("--json", action="store_true", help="one line instead of a tree")
    args = parser.parse_args(argv)
    found = report(args.data, LatencyParams(), early=args.early)
    json.dump(found, sys.stdout, indent=None if args.json else 2)
    sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
