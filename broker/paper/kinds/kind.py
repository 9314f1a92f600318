"""What a kind of task is made of, and how a final answer is found in a model's prose."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any, NamedTuple


class Draft(NamedTuple):
    """A prompt's body, its answer and at least one plausible wrong answer."""

    body: str
    answer: str
    wrong_answers: tuple[str, ...]


class Kind(NamedTuple):
    """A kind of task.

    Difficulty of an item is `easiest + (hardest - easiest) * u ** skew` for uniform u;
    `working_tokens` is how much an average model writes before it answers.
    """

    noun: str
    draft: Callable[[random.Random, float], Draft]
    judge: Callable[[str, str, str], bool]
    easiest: float
    hardest: float
    skew: float
    working_tokens: int


_FINAL = re.compile(r"answer(?:\s+is)?\s*[:=]?\s*", re.IGNORECASE)
_INTEGER = re.compile(r"-?\d[\d,]*")


def stated_answer(text: str) -> str:
    """What follows the last "Answer:", or the `answer` of a JSON reply, or all of it."""
    found = first_json_object(text)
    if found is not None and "answer" in found:
        return str(found["answer"])
    marks = list(_FINAL.finditer(text))
    return text[marks[-1].end() :] if marks else text


def last_integer(text: str) -> int | None:
    """The last integer stated in `text`, thousands separators allowed.

    Examples
    --------
    >>> last_integer("first 12, then 1,204.")
    1204
    """
    found = _INTEGER.findall(text)
    return int(found[-1].replace(",", "")) if found else None


def first_json_object(text: str) -> dict[str, Any] | None:
    """The first JSON object in `text`, prose and code fences around it ignored."""
    start = text.find("{")
    if start < 0:
        return None
    try:
        found, _ = json.JSONDecoder().raw_decode(text, start)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def judge_integer(prompt: str, answer: str, text: str) -> bool:
    """Whether `text` ends on the integer `answer`."""
    return last_integer(stated_answer(text)) == int(answer)
