"""Remakes docs/replay.md: the standard replays, their tables and figures.

    python -m analytics.replay.document --data ../shared/data [SECTION ...]

A section is one question with the runs that answer it; what they found is kept in
docs/replay.json, from which page and figures are drawn, so that a section can be run again by
itself. Only data whose licence lets figures be published take part (`LICENSED`).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final

import msgspec

from analytics import latency_replay
from analytics.replay import budget_mode
from analytics.replay.beliefs import default_cache
from analytics.replay.plots import draw
from analytics.replay.rendering import page
from analytics.replay.report import as_json
from analytics.replay.run import replay
from analytics.replay.settings import ReplaySettings
from bidding.params import Params

LICENSED: Final = ("gsm", "math-l5", "routellm_mmlu")
ROOT: Final = Path(__file__).resolve().parents[2]
MIX: Final = ("gsm", "math-l5")
TARGETS: Final = ((MIX, 0.75), (("gsm",), 0.90), (("gsm",), 0.94))
FEEDBACK: Final = (1.0, 0.2, 0.05)
N_SEEDS: Final = 20
N_RIVAL_SEEDS: Final = 3
SHOCKS: Final = ("degrade", "price", "newcomer", "outage")
CANARY: Final = {"sets": ("gsm",), "target": 0.9, "seeds": 1, "requests": 1000}
"""A replay so short that a test can run it, to tell whether the page is of this code."""

Line = dict[str, Any]


def offline(data: Path) -> list[ReplaySettings]:
    """Everything learnt first."""
    common = {"data": data, "mode": "offline", "seeds": 10, "cache": default_cache()}
    return [standard(**common, sets=MIX), standard(**common, sets=("routellm_mmlu",))]


def online(data: Path) -> list[ReplaySettings]:
    """The broker alone, at every target and share of feedback."""
    return [
        standard(data=data, sets=sets, target=target, feedback=share, seeds=N_SEEDS)
        for sets, target in TARGETS
        for share in FEEDBACK
    ]


def rivals(data: Path) -> list[ReplaySettings]:
    """All policies, at each target with feedback on a fifth."""
    return [
        standard(data=data, sets=sets, target=target, seeds=N_RIVAL_SEEDS, policies=())
        for sets, target in TARGETS
    ]


def shocks(data: Path) -> list[ReplaySettings]:
    """What goes wrong in mid-stream."""
    return [
        standard(
            data=data,
            market="spring2024" if shock == "outage" else "zeroeval_wide",
            target=0.9,
            shock=shock,
            seeds=N_SEEDS,
        )
        for shock in SHOCKS
    ]


def deadline(data: Path) -> list[ReplaySettings]:
    """Good and on time within a second; promised what the best fixed offer attains, or less."""
    names = ("broker", "best-fixed-offer", "best-fixed-mixture")
    common = {"data": data, "market": "spring2024", "seeds": N_SEEDS, "policies": names}
    return [standard(**common, target=target, ttft_s=1.0) for target in (0.9, 0.94)]


REPLAYS: Final[dict[str, Callable[[Path], list[ReplaySettings]]]] = {
    "offline": offline,
    "online": online,
    "rivals": rivals,
    "shocks": shocks,
    "deadline": deadline,
}
SECTIONS: Final = (*REPLAYS, "latency", "budget")


def canary(data: Path) -> Line:
    """Cost and quality of a short replay."""
    report = replay(standard(data=data, **CANARY))
    figures = report.policy("broker")
    return {name: figures[name].mean for name in ("usd_per_1k", "quality")}


def run_section(section: str, data: Path) -> Any:
    """What the section's runs found, as values that JSON can hold."""
    if section == "latency":
        return latency_replay.report(data, Params().latency)
    if section == "budget":
        return msgspec.to_builtins(budget_mode.report(data, MIX))
    with ProcessPoolExecutor(max_workers=min(os.cpu_count() or 1, 2)) as pool:
        return list(pool.map(_found, REPLAYS[section](data)))


def _found(settings: ReplaySettings) -> Line:
    found: Line = msgspec.json.decode(as_json(replay(settings)))
    found["policies"] = [
        {name: value for name, value in line.items() if value is not None}
        for line in found["policies"]
    ]
    return found


def standard(**given: Any) -> ReplaySettings:
    """A replay whose figures may be published. Raises `ValueError` where a licence forbids it."""
    given.setdefault("policies", ("broker",) if given.get("mode") != "offline" else ())
    settings = ReplaySettings(**given)
    unlicensed = [name for name in settings.sets if name not in LICENSED]
    if unlicensed:
        raise ValueError(f"figures of {unlicensed} may not be published")
    return settings


def write(found: dict[str, Any], folder: Path) -> None:
    """The page and what it is drawn from."""
    encoded = msgspec.json.format(msgspec.json.encode(found), indent=1)
    (folder / "replay.json").write_bytes(encoded + b"\n")
    (folder / "replay.md").write_text(page(found))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sections asked for (all, by default) and write page and figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    arguments = parser.parse_args(argv)
    unknown = [name for name in arguments.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"no section {unknown}; there are {list(SECTIONS)}")
    kept = arguments.docs / "replay.json"
    found: dict[str, Any] = msgspec.json.decode(kept.read_bytes()) if kept.is_file() else {}
    for section in arguments.sections or SECTIONS:
        sys.stderr.write(f"{section}\n")
        found[section] = run_section(section, arguments.data)
        found["canary"] = canary(arguments.data)
        write(found, arguments.docs)
    draw(found, arguments.docs / "figures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
