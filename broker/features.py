"""The gateway's way from a prompt to features: cached, bounded, and no work where none can be done.

The cache is keyed by a digest of what the features are made of (the prompt's beginning, its
end and its length), so that it holds no prompt and a long conversation costs no more than a
short one. Without the extra `[features]` there are none, and the market answers for the task's
ordinary prompt.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b
from typing import Final

from analytics.embedding import HEAD_CHARS, TAIL_CHARS, PromptFeatures, load_prompt_features
from analytics.errors import EmbeddingUnavailable
from bidding.features import Floats

MAX_CACHED: Final = 4096
"""Prompts remembered: about 4 MB."""

OFF_LOOP_CHARS: Final = 512
"""Prompts longer than this are better served off the event loop when not cached."""


class FeatureCache:
    """Features of prompts, least recently used ones forgotten. For one thread at a time."""

    def __init__(self, source: PromptFeatures | None, max_cached: int = MAX_CACHED) -> None:
        self._source = source
        self._max_cached = max_cached
        self._known: OrderedDict[bytes, Floats] = OrderedDict()
        self.n_hits = 0
        self.n_misses = 0

    @classmethod
    def load(cls) -> FeatureCache:
        """With the shipped weights if they are installed, else one that has no features."""
        try:
            return cls(load_prompt_features())
        except EmbeddingUnavailable:
            return cls(None)

    @property
    def available(self) -> bool:
        return self._source is not None

    def cached(self, prompt: str) -> Floats | None:
        """The features if they are known already."""
        key = _key(prompt)
        found = self._known.get(key)
        if found is not None:
            self._known.move_to_end(key)
            self.n_hits += 1
        return found

    def features(self, prompt: str) -> Floats | None:
        """The prompt's features, shape (N_FEATURES,); None without weights or without a prompt."""
        if self._source is None or not prompt:
            return None
        found = self.cached(prompt)
        if found is None:
            self.n_misses += 1
            found = self._source.features(prompt)
            found.setflags(write=False)
            self._known[_key(prompt)] = found
            if len(self._known) > self._max_cached:
                self._known.popitem(last=False)
        return found


def _key(prompt: str) -> bytes:
    n_chars = len(prompt)
    seen = (
        prompt if n_chars <= HEAD_CHARS + TAIL_CHARS else prompt[:HEAD_CHARS] + prompt[-TAIL_CHARS:]
    )
    digest = blake2b(seen.encode("utf-8", "surrogatepass"), digest_size=16)
    digest.update(n_chars.to_bytes(8, "little"))
    return digest.digest()
