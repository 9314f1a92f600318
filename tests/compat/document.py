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
    """The page: a table of surface × dialect columns, then why what is refused is refused."""
    counts = tally(found)
    columns = [(surface, dialect) for surface in PATHS for dialect in PINS]
    by_place = {(c.feature, c.surface, c.dialect): c for c in found}
    reasons: list[str] = []
    rows = []
    for feature in FEATURES:
        row = [feature.name]
        for surface, dialect in columns:
            cell = by_place.get((feature.name, surface, dialect))
            row.append("" if cell is None else _shown(cell, reasons))
        rows.append("| " + " | ".join(row) + " |")
    heads = [f"{_NAMES[surface]} → {dialect}" for surface, dialect in columns]
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
        "| feature | " + " | ".join(heads) + " |",
        "|---" * (len(columns) + 1) + "|",
        *rows,
        "",
        *(f"{i}. {reason}" for i, reason in enumerate(reasons, 1)),
        "",
        "An empty cell: the surface's format has no word for it. A capability is a model's:",
        "the paper market's Claudes are those of 2024. Images, reasoning and cache hints are yes",
        "where a model that has them answered; what sellers are sent for them, and the dialects",
        "that no seller here speaks (Gemini, Vertex, Bedrock, Cohere), golden files hold",
        "(`tests/golden/providers`).",
        "",
    ]
    return "\n".join(lines)


def _shown(cell: Cell, reasons: list[str]) -> str:
    if cell.state == "yes":
        return "yes"
    if cell.why not in reasons:
        reasons.append(cell.why)
    return f"{cell.state} ({reasons.index(cell.why) + 1})"
