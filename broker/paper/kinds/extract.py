"""Extraction to JSON: fields out of a rambling note; harder notes have more of them, and decoys."""

from __future__ import annotations

import json
import random

from broker.paper.kinds.kind import Draft, first_json_object

_NAMES = ("Mara Vos", "Ian Reed", "Lena Okafor", "Tom Adler", "Yuki Sato", "Ana Prieto")
_CITIES = ("Utrecht", "Leeds", "Porto", "Graz", "Turku", "Ghent", "Lyon", "Split")
_ITEMS = ("kettle", "desk lamp", "raincoat", "tripod", "blender", "backpack")
_COLOURS = ("blue", "green", "red", "black", "white")
_CARRIERS = ("Falcon Post", "NorthLine", "Swiftvan")


def draft(rng: random.Random, difficulty: float) -> Draft:
    """A note with 2 to 8 wanted fields."""
    pool = [
        ("customer", rng.choice(_NAMES), "{} wrote to us."),
        ("city", rng.choice(_CITIES), "The parcel goes to {}."),
        ("item", rng.choice(_ITEMS), "It is about a {}."),
        ("quantity", rng.randint(1, 40), "They want {} of them."),
        ("colour", rng.choice(_COLOURS), "The colour has to be {}."),
        ("amount", rng.randint(11, 990), "They already paid {} euros."),
        ("carrier", rng.choice(_CARRIERS), "Please send it with {}."),
        ("floor", rng.randint(1, 30), "Delivery is to floor {}."),
    ]
    rng.shuffle(pool)
    wanted = pool[: 2 + int(difficulty * 9)]
    sentences = [text.format(value) for _, value, text in wanted]
    if difficulty > 0.3:
        sentences.append(f"Earlier they had asked about {rng.choice(_CITIES)}, but no longer.")
    if difficulty > 0.5:
        sentences.append(f"An older order of {rng.randint(41, 90)} pieces was cancelled.")
    rng.shuffle(sentences)
    fields = ", ".join(name for name, _, _ in wanted)
    answer = {name: value for name, value, _ in wanted}
    wrong = []
    for name, value, _ in wanted[:3]:
        spoiled = value + 1 if isinstance(value, int) else "unknown"
        wrong.append(json.dumps(answer | {name: spoiled}))
    body = f"{' '.join(sentences)} Reply with one JSON object with exactly these keys: {fields}."
    return Draft(body, json.dumps(answer), tuple(wrong))


def judge(prompt: str, answer: str, text: str) -> bool:
    """Whether the first JSON object in `text` has exactly the wanted values."""
    return bool(first_json_object(text) == json.loads(answer))
