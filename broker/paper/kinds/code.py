"""Code-output prediction: a small Python program; harder ones have more statements and loops."""

from __future__ import annotations

import random

from broker.paper.kinds.kind import Draft, judge_integer

judge = judge_integer


def draft(rng: random.Random, difficulty: float) -> Draft:
    """A program of 2 to 11 statements that prints one integer."""
    x = rng.randint(2, 20)
    lines = [f"x = {x}"]
    before = x
    for _ in range(1 + int(difficulty * 10)):
        before = x
        n, step = rng.randint(2, 9), rng.randrange(4)
        if step == 0:
            lines.append(f"x = x * {n} - {n + 1}")
            x = x * n - (n + 1)
        elif step == 1:
            modulus = rng.randint(11, 97)
            lines.append(f"x = (x + {n}) % {modulus}")
            x = (x + n) % modulus
        elif step == 2:
            lines.append(f"for i in range({n}):\n    x += i")
            x += n * (n - 1) // 2
        else:
            lines.append(f"if x % 2 == 0:\n    x //= 2\nelse:\n    x += {n}")
            x = x // 2 if x % 2 == 0 else x + n
    program = "\n".join([*lines, "print(x)"])
    body = (
        f"What does this Python program print?\n```python\n{program}\n```\n"
        "Finish with 'Answer: <number>'."
    )
    wrong = dict.fromkeys([before, x + 1, x - 2, x + 3])
    wrong.pop(x, None)
    return Draft(body, str(x), tuple(str(w) for w in wrong))
