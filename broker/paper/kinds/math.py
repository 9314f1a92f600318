"""Arithmetic word problems: a stock that changes step by step; harder ones have more steps."""

from __future__ import annotations

import random

from broker.paper.kinds.kind import Draft, judge_integer

_GOODS = ("crates", "lamps", "tickets", "bolts", "jars", "books", "tiles", "chairs")
_PLACES = ("A warehouse", "The shop in Delft", "A depot", "The school", "A workshop", "The club")

judge = judge_integer


def draft(rng: random.Random, difficulty: float) -> Draft:
    """A chain of 1 to 11 changes whose numbers grow with difficulty."""
    goods, place = rng.choice(_GOODS), rng.choice(_PLACES)
    largest = 9 + int(90 * difficulty)
    stock = rng.randint(5, 10 + largest)
    parts = [f"{place} starts with {stock} {goods}."]
    slip = 0
    for _ in range(1 + int(difficulty * 10)):
        before = stock
        n = rng.randint(2, largest)
        step = rng.randrange(4)
        if step == 0:
            stock += n
            parts.append(f"Then {n} more {goods} arrive.")
        elif step == 1 and stock > n:
            stock -= n
            parts.append(f"Then {n} {goods} are sold.")
        elif step == 2 and stock < 5000:
            factor = rng.randint(2, 3)
            stock *= factor
            parts.append(f"Then the number of {goods} grows to {factor} times what it was.")
        else:
            per_box, boxes = rng.randint(2, 9), rng.randint(2, 3 + largest // 6)
            stock += per_box * boxes
            parts.append(f"Then {boxes} boxes with {per_box} {goods} each are brought in.")
        slip = stock - before
    parts.append(f"How many {goods} are there at the end? Finish with 'Answer: <number>'.")
    wrong = dict.fromkeys([stock - slip, stock + 10, stock - 1, stock + 2, stock + 1])
    wrong.pop(stock, None)
    return Draft(" ".join(parts), str(stock), tuple(str(w) for w in wrong))
