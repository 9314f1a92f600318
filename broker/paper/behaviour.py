"""What a seller does, without any socket: right or wrong, what it writes, how long it takes.

Whether a model is right about an item is drawn from their two names alone: the same at every
provider of the model, at every asking, and for `counterfactual`, which therefore says exactly
what a model that was not asked would have delivered. Latency is drawn per call.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from broker.paper.draws import normal, uniform
from broker.paper.kinds import KINDS
from broker.paper.market_data import N_DIFFICULTIES, MarketData
from broker.paper.tasks import TaskItem
from broker.paper.tokens import CHARS_PER_TOKEN, count_tokens, prompt_tokens

LENGTH_LOG_SD = 0.3
_CENTRES = (np.arange(N_DIFFICULTIES) + 0.5) / N_DIFFICULTIES
_FILLER = (
    "Let us go through this one part at a time and keep track of what we have. "
    "First we look at what is given and what is being asked for. "
    "Next we apply each change in the order in which it is stated. "
    "We note the value that this leaves us with before moving on. "
    "Nothing in the rest of the text changes that, so we carry it forward. "
    "Checking the last part once more gives the same value as before. "
)
_PLAIN = (
    "Thank you for the question. Here is a short overview of the main points. "
    "There are a few things worth weighing before a choice is made. "
    "The first is cost, the second is time, and the third is how sure one needs to be. "
    "In most cases a simple approach that can be checked is the better one. "
)


class Answer(NamedTuple):
    """A model's answer to an item; `good` is whether it is right."""

    text: str
    reasoning_tokens: int
    good: bool

    @property
    def output_tokens(self) -> int:
        """Tokens billed as output."""
        return count_tokens(self.text) + self.reasoning_tokens


class Counterfactual(NamedTuple):
    """What a model delivers for an item asked as a single user message."""

    good: bool
    input_tokens: int
    output_tokens: int


class Timing(NamedTuple):
    """Milliseconds to the first token and per further token."""

    ttft_ms: float
    tpot_ms: float


class Behaviour:
    """The sellers' behaviour, a pure function of `data` and `seed`."""

    def __init__(self, data: MarketData, seed: int) -> None:
        self._skills = data.skills
        self._shapes = {offer: data.shapes[name] for offer, name in data.shape_of.items()}
        self._rates: Mapping[str, np.ndarray] = {
            model: np.array(skill.rates) for model, skill in data.skills.items()
        }
        self._seed = seed

    def right_share(self, model: str, difficulty: float) -> float:
        """Share of items of this difficulty (0..1) that `model` gets right."""
        return float(np.interp(difficulty, _CENTRES, self._rates[model]))

    def is_right(self, model: str, item: TaskItem, points: float = 0.0, nth: int = 0) -> bool:
        """Whether `model` is right; quality lower by `points` percentage points flips some.

        `nth` is the index among several choices of one reply, each with luck of its own.
        """
        share = self.right_share(model, item.difficulty) - points / 100
        return uniform(self._seed, "right", item.id, model, nth) < share

    def answer(
        self, model: str, item: TaskItem, *, points: float = 0.0, nth: int = 0, terse: bool = False
    ) -> Answer:
        """What `model` replies to `item`; `terse` leaves out the working (JSON mode)."""
        good = self.is_right(model, item, points, nth)
        pick = int(uniform(self._seed, "wrong", item.id, model, nth) * len(item.wrong_answers))
        stated = item.answer if good else item.wrong_answers[pick]
        if terse and item.task != "extract":
            stated = json.dumps({"answer": stated})
        elif item.task != "extract":
            stated = f"Answer: {stated}"
        n_working = 0 if terse else self._length(model, item.id, KINDS[item.task].working_tokens)
        text = f"{filler(_FILLER, n_working)}\n{stated}" if n_working else stated
        return Answer(text, self._reasoning_tokens(model, item.id, count_tokens(text)), good)

    def plain_answer(self, model: str, prompt: str, nth: int = 0) -> Answer:
        """A plausible reply to a prompt that is none of ours; nobody can say if it is good."""
        key = f"{uniform(prompt)}:{nth}"
        text = filler(_PLAIN, self._length(model, key, 60))
        return Answer(text, self._reasoning_tokens(model, key, count_tokens(text)), False)

    def counterfactual(self, model: str, item: TaskItem) -> Counterfactual:
        """What any healthy seller of `model` delivers for `item.prompt`, and the tokens billed."""
        answer = self.answer(model, item)
        return Counterfactual(answer.good, prompt_tokens([item.prompt]), answer.output_tokens)

    def timing(self, offer: str, nth_call: int, load: float = 0.0) -> Timing:
        """Latency of an offer's `nth_call`, slower the fuller the provider is (`load` of 1)."""
        shape = self._shapes[offer]
        slow = 1.0 + load * load
        z_ttft = normal(self._seed, "ttft", offer, nth_call)
        z_tpot = normal(self._seed, "tpot", offer, nth_call)
        return Timing(
            slow * math.exp(shape.ttft_log_ms + shape.ttft_log_sd * z_ttft),
            slow * math.exp(shape.tpot_log_ms + shape.tpot_log_sd * z_tpot),
        )

    def _length(self, model: str, key: str, base: int) -> int:
        spread = math.exp(LENGTH_LOG_SD * normal(self._seed, "length", key, model))
        return round(base * self._skills[model].verbosity * spread)

    def _reasoning_tokens(self, model: str, key: str, visible: int) -> int:
        ratio = self._skills[model].reasoning_ratio
        if not ratio:
            return 0
        spread = math.exp(LENGTH_LOG_SD * normal(self._seed, "reasoning", key, model))
        return round((20 + visible) * ratio * spread)


def filler(text: str, n_tokens: int) -> str:
    """About `n_tokens` of prose without figures, cut at a word."""
    wanted = n_tokens * CHARS_PER_TOKEN
    long = text * (wanted // len(text) + 1)
    return long[:wanted].rsplit(" ", 1)[0]
