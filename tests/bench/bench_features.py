"""How long prompt features take: 1 kB prompts never seen, and cached ones.

Prompts are made of common words, numbers and marks in a new order each time, as real ones are.
"""

from __future__ import annotations

import random
import statistics
import time

from broker.features import FeatureCache

COMMON = (
    "the quick model answers a question about prices and numbers when every customer asks how "
    "many apples are left after selling half of them at two markets in one week please explain "
    "your reasoning step by step return a table with columns name value and total write code "
    "that reads a file computes the average and prints the result why does water boil sooner on "
    "mountains compare both theories list three advantages of each summarise the following text"
)
MARKS = ("12", "3.5", "$40,", "x = 7", "don't", "(a)", "17%", "`print`", "it's", "\n")


def prompt_of_1kb(rng: random.Random) -> str:
    common = COMMON.split()
    words: list[str] = []
    while sum(map(len, words)) + len(words) < 1024:
        words.append(rng.choice(MARKS if rng.random() < 0.1 else common))
    return " ".join(words)[:1024]


def figures() -> dict[str, float]:
    """Median microseconds for a new prompt of 1 kB and for a cached one."""
    rng = random.Random(1)
    cache = FeatureCache.load()
    if not cache.available:
        return {}
    prompts = [prompt_of_1kb(rng) for _ in range(2000)]
    for prompt in prompts[:200]:
        cache.features(prompt)
    fresh = [_timed_us(cache, prompt) for prompt in prompts[200:]]
    cached = [_timed_us(cache, prompt) for prompt in prompts[1000:]]
    return {
        "features_1kb_p50_us": statistics.median(fresh),
        "features_cached_p50_us": statistics.median(cached),
    }


def _timed_us(cache: FeatureCache, prompt: str) -> float:
    start = time.perf_counter()
    cache.features(prompt)
    return (time.perf_counter() - start) * 1e6


if __name__ == "__main__":
    print(figures())
