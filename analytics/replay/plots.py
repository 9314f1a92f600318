"""Figures of docs/replay.md, drawn from docs/replay.json. Needs matplotlib (an extra)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

ENDINGS: Final = ("svg", "png")
NOT_SHOWN: Final = ("random", "round-robin", "litellm-simple-shuffle", "litellm-usage-based")


def draw(found: dict[str, Any], folder: Path) -> list[Path]:
    """Write every figure whose section is there; paths written, none without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return []
    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.hashsalt": "replay", "font.size": 9, "figure.dpi": 110})
    written: list[Path] = []
    if "online" in found:
        written += _saved(_hindsight(found["online"]), folder / "replay-hindsight")
    if "rivals" in found:
        written += _saved(_rivals(found["rivals"]), folder / "replay-policies")
    return written


def _saved(figure: Any, stem: Path) -> list[Path]:
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_suffix(f".{ending}") for ending in ENDINGS]
    for path in paths:
        metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        figure.savefig(path, bbox_inches="tight", metadata=metadata)
    return paths


def _hindsight(runs: list[dict[str, Any]]) -> Any:
    """Cost over hindsight's against the share of answers judged, a line a target."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.2))
    axes = figure.subplots()
    for name in sorted({(run["set"], run["target"]) for run in runs}):
        mine = [run for run in runs if (run["set"], run["target"]) == name]
        share = [100.0 * run["feedback"] for run in mine]
        lines = [run["policies"][0] for run in mine]
        cost = [line["usd_vs_hull"] for line in lines]
        away = [
            [line["usd_vs_hull"] - line["usd_vs_hull_ci95"][0] for line in lines],
            [line["usd_vs_hull_ci95"][1] - line["usd_vs_hull"] for line in lines],
        ]
        axes.errorbar(share, cost, yerr=away, marker="o", capsize=3, label=f"{name[0]}, {name[1]}")
    axes.axhline(1.0, color="grey", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xticks([5, 20, 100], ["5 %", "20 %", "100 %"])
    axes.set_xlabel("answers that are judged")
    axes.set_ylabel("cost, multiple of the best fixed mixture\nin hindsight")
    axes.legend(frameon=False)
    return figure


def _rivals(runs: list[dict[str, Any]]) -> Any:
    """Quality against cost, a panel a target."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.2))
    panels = figure.subplots(1, len(runs), squeeze=False)[0]
    for axes, run in zip(panels, runs, strict=True):
        for line in run["policies"]:
            name = line["policy"]
            if name in NOT_SHOWN:
                continue
            ours = name.startswith("broker")
            x, y = line["usd_per_1k"], line["quality"]
            axes.plot(x, y, "o" if ours else ".", color="C3" if ours else "C0")
            axes.annotate(name, (x, y), fontsize=6, xytext=(3, 2), textcoords="offset points")
        axes.axhline(run["target"], color="grey", linewidth=0.8)
        axes.set_xscale("log")
        axes.set_title(f"{run['set']}, promised {run['target']}", fontsize=8)
        axes.set_xlabel("$ per 1,000 requests")
    panels[0].set_ylabel("share of good answers")
    return figure
