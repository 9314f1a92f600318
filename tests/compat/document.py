"""docs/compatibility.md, made of the matrix."""

from __future__ import annotations

from pathlib import Path

from tests.compat.features import FEATURES, PATHS
from tests.compat.matrix import PINS, Cell, tally

DOCUMENT = Path(__file__).parents[2] / "docs" / "compatibility.md"
_NAMES = {
    "chat": "OpenAI chat",
    "responses": "OpenAI responses",
    "messages": "Anthropic messages",
    "embeddings": "OpenAI embeddings",
}


def document(found: list[Cell]) -> str:
    """The page: a table for each surface, a column a dialect; then the reasons of refusals."""
    counts = tally(found)
    by_place = {(c.feature, c.surface, c.dialect): c for c in found}
    reasons: list[str] = []
    tables: list[str] = []
    for surface, path in PATHS.items():
        tables += [f"## {_NAMES[surface]} (`{path}`)", "", "| feature | " + " | ".join(PINS) + " |"]
        tables.append("|---" * (len(PINS) + 1) + "|")
        for feature in (f for f in FEATURES if surface in f.bodies):
            row = [_shown(by_place[feature.name, surface, dialect], reasons) for dialect in PINS]
            tables.append("| " + " | ".join([feature.name, *row]) + " |")
        tables.append("")
    lines = [
        "# What works with what",
        "",
        "Each surface an app may speak, crossed with each dialect that sellers of the paper market",
        "speak. A cell is a request over real HTTP to an offer of that dialect, its answer read as",
        "an app reads it. Made by `make compat`; a test holds it to be current.",
        "",
        f"{counts['cells']} cells: {counts['yes']} yes, {counts['refused']} refused with a reason, "
        f"{counts['failed']} failed.",
        "",
        *tables,
        "## Why not",
        "",
        *(f"{i}. {reason}" for i, reason in enumerate(reasons, 1)),
        "",
        "A capability is a model's: a cell tells of the models that were asked ("
        + ", ".join(f"`{pin}`" for pins in PINS.values() for pin in pins)
        + ").",
        "Images, reasoning and cache hints are yes where the model answered; what sellers are sent",
        "for them is held by golden files (`tests/golden/providers`).",
        "",
    ]
    return "\n".join(lines)


def _shown(cell: Cell, reasons: list[str]) -> str:
    if cell.state == "yes":
        return "yes"
    if cell.why not in reasons:
        reasons.append(cell.why)
    return f"{cell.state} ({reasons.index(cell.why) + 1})"
