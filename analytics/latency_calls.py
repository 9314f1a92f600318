"""Timed calls to real endpoints, as the latency replays read them from their files."""

from __future__ import annotations

import csv
import gzip
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bidding.outcome import OutcomeBatch

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_LEAST_TOKENS: Final = 8
"""Of shorter answers the time per token says little."""


class Calls(NamedTuple):
    """Timed calls in time order, arrays (n,); `series` is the offer, `endpoint` its group.

    `held` marks the calls that come from the data to be scored on.
    """

    at_s: Floats
    series: Ints
    endpoint: Ints
    place: Ints
    ttft_ms: Floats
    total_ms: Floats
    input_tokens: Floats
    output_tokens: Floats
    seq: Ints
    held: Bools

    @property
    def per_token_ms(self) -> Floats:
        """Time per further token; NaN where too few came, or all at once."""
        rest, further = self.total_ms - self.ttft_ms, self.output_tokens - 1.0
        known = (rest > 0.0) & (self.output_tokens >= _LEAST_TOKENS)
        return np.where(known, rest, np.nan) / np.maximum(further, 1.0)

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


def load_thefastest(data: Path, test_data: Path | None = None) -> Calls:
    """Probes of `thefastest/samples.csv.gz`, one series per endpoint and region."""
    rows = [
        r
        for r in _rows("thefastest/samples.csv.gz", data, test_data)
        if r["ttft_s"] and float(r["ttft_s"]) > 0
    ]
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


def load_llmperf(data: Path, test_data: Path | None = None) -> Calls:
    """Successful calls of `llmperf/requests.csv.gz`; end times spread over each run."""
    rows = [r for r in _rows("llmperf/requests.csv.gz", data, test_data) if r["ttft_s"]]
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


def _rows(name: str, data: Path, test_data: Path | None) -> list[dict[str, str]]:
    """Rows of both folders, each once; `held` says that it is to be scored on."""
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for folder, held in ((data, ""), (test_data, "yes")):
        if folder is not None and (folder / name).is_file():
            with gzip.open(folder / name, "rt", newline="") as file:
                for row in csv.DictReader(file):
                    found[tuple(row.values())] = row | {"held": held}
    return list(found.values())


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
    held = np.array([bool(r["held"]) for r in rows])
    return Calls(
        at_s=at_s[order],
        series=index[0][order],
        endpoint=index[1][order],
        place=index[2][order],
        ttft_ms=ttft[order],
        total_ms=whole[order],
        input_tokens=input_tokens[order],
        output_tokens=out[order],
        seq=seq[order],
        held=held[order],
    )
