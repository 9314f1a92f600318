"""The command line of the replay: flags into settings, the report into a table or one JSON line.

`broker replay` calls `main` with the arguments it was given.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from analytics import latency_replay
from analytics.replay import budget_mode
from analytics.replay.beliefs import default_cache
from analytics.replay.errors import DatasetMissing, ReplayError
from analytics.replay.report import ReplayReport, as_json
from analytics.replay.run import replay
from analytics.replay.settings import ReplaySettings
from bidding.errors import BadParams
from bidding.params import Params

COLUMNS = (
    ("usd_per_1k", "$/1k", "{:.4f}"),
    ("quality", "quality", "{:.4f}"),
    ("good_and_on_time", "good, on time", "{:.4f}"),
    ("usd_vs_hull", "× hindsight", "{:.2f}"),
    ("short_windows", "short windows", "{:.1%}"),
    ("gap_closed", "gap closed", "{:.3f}"),
    ("quality_share", "of best", "{:.3f}"),
    ("cost_share", "of its cost", "{:.3f}"),
    ("usd_at_98", "$/1k at 98 %", "{:.3f}"),
    ("cost_share_for_half_gap", "half gap", "{:.3f}"),
    ("cost_share_for_80_gap", "80 % gap", "{:.3f}"),
    ("ece", "ECE", "{:.3f}"),
    ("recovery_requests", "recovery", "{:.0f}"),
    ("lost_attempts", "lost", "{:.1f}"),
    ("tries_aside", "tries", "{:.1f}"),
)

TABLE_WIDTH = 200
"""Characters of a table that goes into a file."""


def parser() -> argparse.ArgumentParser:
    """Flags of `broker replay`."""
    found = argparse.ArgumentParser(
        prog="broker replay", description="Real markets through the real engine."
    )
    add = found.add_argument
    add("--data", type=Path, required=True, help="folder that may be learnt from")
    add("--test-data", type=Path, help="folder scored on, same layout (default: half of --data)")
    add("--market", help="spring2024, winter2023, zeroeval_wide (default: the widest for --set)")
    add("--set", default="gsm", help="quality sets, comma-separated: gsm,math-l5")
    add("--mode", choices=("offline", "online", "latency", "budget"), default="online")
    add("--target", type=float, help="promised share of good answers")
    add("--value-usd", type=float, help="worth of a good answer, in place of a promise")
    add("--ttft", type=float, help="deadline for the first token, seconds")
    add("--percentile", type=float, default=0.95, help="share to be on time")
    add("--feedback", type=float, default=0.2, help="share of answers that are judged")
    add("--seeds", type=int, default=20)
    add("--requests", type=int, default=10_000)
    add("--shock", choices=("price", "degrade", "newcomer", "outage"))
    add("--policies", default="", help="only these, comma-separated")
    add("--half", choices=("test", "learning"), default="test", help="half of --data to stream")
    add("--param", action="append", default=[], metavar="GROUP.NAME=VALUE")
    add("--cache", type=Path, help="folder for fits (default: the user's cache folder)")
    add("--json", action="store_true", help="one JSON object on the last line, nothing else")
    return found


def settings_of(arguments: argparse.Namespace) -> ReplaySettings:
    """Settings from parsed flags. Raises `msgspec.ValidationError` or `BadParams`."""
    params = _params(arguments)
    return msgspec.convert(
        {
            "data": arguments.data,
            "test_data": arguments.test_data,
            "half": arguments.half,
            "market": arguments.market,
            "sets": tuple(_names(arguments.set)),
            "mode": arguments.mode,
            "target": arguments.target,
            "value_usd": arguments.value_usd,
            "ttft_s": arguments.ttft,
            "percentile": arguments.percentile,
            "feedback": arguments.feedback,
            "seeds": arguments.seeds,
            "requests": arguments.requests,
            "shock": arguments.shock,
            "cache": arguments.cache or default_cache(),
            "policies": tuple(_names(arguments.policies)),
            "params": params,
        },
        ReplaySettings,
    )


def _params(arguments: argparse.Namespace) -> Params:
    """The default params with every `--param` applied. Raises `BadParams`."""
    change: dict[str, Any] = {}
    for assignment in arguments.param:
        path, _, value = assignment.partition("=")
        group, _, name = path.partition(".")
        change.setdefault(group, {})[name] = msgspec.json.decode(value or "null")
    return Params().patched(change, version=1) if change else Params()


def main(argv: Sequence[str]) -> int:
    """Run the command; the exit code."""
    arguments = parser().parse_args(argv)
    try:
        if arguments.mode == "latency":
            return _latency(arguments)
        if arguments.mode == "budget":
            return _budget(arguments)
        settings = settings_of(arguments)
        if arguments.json:
            report = replay(settings)
            sys.stdout.write(as_json(report).decode() + "\n")
            return 0
        console = Console(stderr=True)
        with Progress(
            TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console
        ) as bar:
            task = bar.add_task("", total=None)
            report = replay(
                settings,
                lambda message, done: bar.update(
                    task, description=message, total=None if done is None else 1.0, completed=done
                ),
            )
    except (ReplayError, BadParams, msgspec.ValidationError, msgspec.DecodeError) as error:
        sys.stderr.write(f"broker replay: {error}\n")
        return 2
    shown = Console(width=None if sys.stdout.isatty() else TABLE_WIDTH)
    shown.print(as_table(report))
    for row in report.unseen:
        numbers = ", ".join(f"{k} {v:.3f}" for k, v in row.items() if isinstance(v, float))
        shown.print(f"{row['learnt']} → {row['unseen']}: {numbers}")
    return 0


def _latency(arguments: argparse.Namespace) -> int:
    """Print how latency promises were kept; exit code 1 where what is wanted does not hold."""
    data = arguments.data
    for name in ("thefastest/samples.csv.gz", "llmperf/requests.csv.gz"):
        if not (data / name).is_file():
            raise DatasetMissing(f"latency promises are scored on {name}; not under {data}")
    found = latency_replay.report(
        data,
        _params(arguments).latency,
        early=arguments.half == "learning",
        test_data=arguments.test_data,
    )
    encoded = msgspec.json.encode(found)
    text = encoded if arguments.json else msgspec.json.format(encoded, indent=2)
    sys.stdout.write(text.decode() + "\n")
    return 0 if found["holds"] else 1


def _budget(arguments: argparse.Namespace) -> int:
    """Print how days of a budget went; exit code 1 where the bounds do not hold."""
    found = budget_mode.report(
        arguments.data,
        tuple(_names(arguments.set)),
        learning=arguments.half == "learning",
    )
    encoded = msgspec.json.encode(found)
    text = encoded if arguments.json else msgspec.json.format(encoded, indent=2)
    sys.stdout.write(text.decode() + "\n")
    return 0 if found.holds else 1


def as_table(report: ReplayReport) -> Table:
    """The report for people: only columns some policy has a figure for."""
    title = f"{report.market} · {report.set} · {report.mode}"
    if report.target is not None:
        title += f" · target {report.target:g}"
    if report.shock is not None:
        title += f" · shock: {report.shock}"
    over = "seeds" if report.n_splits is None else "splits"
    caption = f"mean over {report.seeds} {over} ± half of the 95 % interval"
    if report.reserve_binding:
        caption += "; the reserve is binding: the promise costs more than it may"
    table = Table(title=title, caption=caption)
    table.add_column("policy")
    shown = [c for c in COLUMNS if any(c[0] in p.figures for p in report.policies)]
    for _, head, _ in shown:
        table.add_column(head, justify="right")
    for one in report.policies:
        cells = []
        for name, _, form in shown:
            found = one.figures.get(name)
            cells.append(
                ""
                if found is None
                else f"{form.format(found.mean)} ±{form.format((found.high - found.low) / 2)}"
            )
        table.add_row(one.policy, *cells)
    return table


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
