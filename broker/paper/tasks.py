"""Our own checkable tasks: generated from a seed, recognised again from their own text.

A prompt names its item ("Order #48213: ..."), and an item is a pure function of task and seed,
so a seller that reads a prompt can make the item anew and knows what a right answer is; there
is no channel between buyer and seller but the prompt.
"""

from __future__ import annotations

import random
import re
from functools import lru_cache

from msgspec import Struct

from broker.paper.kinds import KINDS, TASKS

_NOUNS = {kind.noun: task for task, kind in KINDS.items()}
_NAMED = re.compile(rf"\b({'|'.join(_NOUNS)}) #(\d{{1,18}}): ")


class TaskItem(Struct, frozen=True, kw_only=True):
    """A prompt, its right answer and some wrong ones. `difficulty` is 0 (easy) to 1."""

    id: str
    task: str
    prompt: str
    answer: str
    difficulty: float
    wrong_answers: tuple[str, ...]


@lru_cache(maxsize=8192)
def generate(task: str, seed: int) -> TaskItem:
    """The item of `task` (one of `TASKS`) with this seed (0 or more, below 10**18).

    Raises
    ------
    KeyError
        No such task.
    """
    kind = KINDS[task]
    rng = random.Random(f"{task}:{seed}")
    difficulty = kind.easiest + (kind.hardest - kind.easiest) * rng.random() ** kind.skew
    draft = kind.draft(rng, difficulty)
    return TaskItem(
        id=f"{task}-{seed}",
        task=task,
        prompt=f"{kind.noun} #{seed}: {draft.body}",
        answer=draft.answer,
        difficulty=difficulty,
        wrong_answers=draft.wrong_answers,
    )


def recognise(prompt: str) -> TaskItem | None:
    """The item that `prompt` contains whole, the last one if there are more."""
    for named in reversed(list(_NAMED.finditer(prompt))):
        item = generate(_NOUNS[named.group(1)], int(named.group(2)))
        if prompt.startswith(item.prompt, named.start()):
            return item
    return None


def check(item: TaskItem, text: str) -> bool:
    """Whether `text`, a model's whole reply, answers `item` rightly."""
    return KINDS[item.task].judge(item.prompt, item.answer, text)


__all__ = ["TASKS", "TaskItem", "check", "generate", "recognise"]
