"""Kinds of generated tasks, one a file, each able to write a prompt and to judge an answer.

Every kind draws from the given generator alone, so an item is a pure function of its seed.
Difficulty runs from 0 to 1 and shows in the text (more steps, fields, labels, lines).
"""

from __future__ import annotations

from broker.paper.kinds import classify, code, extract, math
from broker.paper.kinds.kind import Draft, Kind

KINDS: dict[str, Kind] = {
    "math": Kind("Order", math.draft, math.judge, 0.02, 0.80, 1.5, 55),
    "extract": Kind("Ticket", extract.draft, extract.judge, 0.0, 0.65, 1.5, 0),
    "classify": Kind("Message", classify.draft, classify.judge, 0.0, 0.60, 1.4, 0),
    "code": Kind("Snippet", code.draft, code.judge, 0.05, 0.80, 1.3, 35),
}
TASKS = tuple(KINDS)

__all__ = ["KINDS", "TASKS", "Draft", "Kind"]
