"""The gateway's way from a prompt to features: cached, bounded, and no work where none can be done.

The cache is keyed by a digest of what the features are made of (the prompt's beginning, its
end and its length), so that it holds no prompt and a long conversation costs no more than a
short one. Without the extra `[features]` there are none, and the market answers for the task's
ordinary prompt.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import suppress
from hashlib import blake2b
from typing import Final

from analytics.embedding import HEAD_CHARS, TAIL_CHARS, PromptFeatures, load_prompt_features
from analytics.errors import EmbeddingUnavailable

Features = tuple[float, ...]

_DIGITS: Final = 4
"""Kept after the point: what a record carries of a prompt, and what the auction reads."""

MAX_CACHED: Final = 4096
"""Prompts remembered: about 4 MB."""

OFF_LOOP_CHARS: Final = 512
"""Prompts longer than this are better served off the event loop when not cached."""


class FeatureCache:
    """Features of prompts, least recently used ones forgotten. For any thread."""

    def __init__(self, source: PromptFeatures | None, max_cached: int = MAX_CACHED) -> None:
        self._source = source
        self._max_cached = max_cached
        self._known: OrderedDict[bytes, Features] = OrderedDict()
        self._lock = threading.Lock()
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

    def cached(self, prompt: str) -> Features | None:
        """The features if they are known already."""
        key = _key(prompt)
        found = self._known.get(key)
        if found is not None:
            with suppress(KeyError):  # another thread may just have forgotten it
                self._known.move_to_end(key)
            self.n_hits += 1
        return found

    def features(self, prompt: str) -> Features | None:
        """The prompt's N_FEATURES features; None without weights or without a prompt."""
        if self._source is None or not prompt:
            return None
        found = self.cached(prompt)
        if found is None:
            with self._lock:
                self.n_misses += 1
                found = tuple(self._source.features(prompt).round(_DIGITS).tolist())
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
