"""The same luck for everybody: which prompts come, which answers are judged, how fast sellers are.

A stream is drawn once per seed and shared by all policies, so that they differ by what they
buy, not by what they were dealt. Prompts are drawn with replacement; the time of a request is
its place in the stream, mapped on the span of the latency samples, so that a slow day of a
seller is slow for whoever buys there then.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analytics.replay.files import Floats
from analytics.replay.world import World
from bidding.columns import Bools, Ints

LATENCY_NEIGHBOURS = 5
"""A request's latency is drawn among so many samples around its time."""


@dataclass(frozen=True, slots=True)
class Stream:
    """One seed's requests; arrays have shape (n,) unless stated.

    Attributes
    ----------
    prompt : row of the world's questions
    labelled : whether the answer's quality is told
    luck : uniform in [0, 1): decides a degraded model's answers
    draw : seed of each decision
    ttft_s : (n, n_offers) seconds to the first token; infinite for a failed attempt, or (0, 0)
    """

    seed: int
    prompt: Ints
    labelled: Bools
    luck: Floats
    draw: list[int]
    ttft_s: Floats

    def __len__(self) -> int:
        return len(self.prompt)


def make_stream(world: World, seed: int, n: int, feedback: float) -> Stream:
    """The stream of `seed`: `n` requests, `feedback` of whose answers are judged."""
    rng = np.random.Generator(np.random.PCG64([20240424, seed]))
    prompt = rng.integers(0, len(world.questions.items), n)
    labelled = rng.random(n) < feedback
    luck = rng.random(n)
    draw = rng.integers(0, 2**62, n).tolist()
    return Stream(seed, prompt, labelled, luck, draw, _ttft_s(world, rng, n))


def _ttft_s(world: World, rng: np.random.Generator, n: int) -> Floats:
    if not world.has_latency:
        return np.zeros((0, 0))
    ttft = np.empty((n, len(world.offer_ids)))
    place = (np.arange(n) + 0.5) / n
    for column, series in enumerate(world.ttft_s):
        spread = min(LATENCY_NEIGHBOURS, len(series))
        near = np.floor(place * len(series)).astype(np.int64) - spread // 2
        near = np.clip(near, 0, len(series) - spread) + rng.integers(0, spread, n)
        ttft[:, column] = series[near]
    return ttft
