"""Classification: which desk a message belongs to; harder ones have more labels and decoys."""

from __future__ import annotations

import random
import re

from broker.paper.kinds.kind import Draft, stated_answer

_DESKS = {
    "billing": "I was charged twice for the same month",
    "shipping": "my parcel has not arrived yet",
    "returns": "I would like to send the jacket back",
    "login": "the site no longer accepts my password",
    "privacy": "please erase everything you hold about me",
    "repair": "the machine makes a grinding noise since Monday",
    "warranty": "it broke after three months, is that covered",
    "pricing": "what would two hundred of them cost",
    "careers": "are you looking for a welder at the moment",
    "press": "our paper would like to interview your founder",
    "feedback": "the new colours are lovely, thank you",
    "outage": "nothing loads at all for anybody in our office",
}
_LABELS = re.compile(r"from these labels: ([a-z, ]+)\.")


def draft(rng: random.Random, difficulty: float) -> Draft:
    """A message and 3 to 12 labels; past the middle it mentions other desks' business too."""
    labels = rng.sample(sorted(_DESKS), 3 + int(difficulty * 14))
    answer = labels[0]
    others = labels[1:]
    said = [f"Hello, {_DESKS[answer]}."]
    for other in others[: int(difficulty * 6)]:
        said.insert(0, f"Last year I wrote that {_DESKS[other]}, which has been settled.")
    rng.shuffle(labels)
    body = (
        f'"{" ".join(said)}" Which desk should handle this now? Choose one '
        f"from these labels: {', '.join(labels)}. Finish with 'Answer: <label>'."
    )
    return Draft(body, answer, tuple(others))


def judge(prompt: str, answer: str, text: str) -> bool:
    """Whether the answer stated in `text` names the right label and no other."""
    found = _LABELS.search(prompt)
    labels = found.group(1).split(", ") if found else [answer]
    stated = set(re.findall(r"[a-z]+", stated_answer(text).lower()))
    return stated & set(labels) == {answer}
