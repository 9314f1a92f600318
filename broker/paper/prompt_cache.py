"""Which prompt prefixes a provider still holds: blocks of 128 tokens, from 1,024 on."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b

from broker.paper.tokens import CHARS_PER_TOKEN

MIN_TOKENS = 1024
BLOCK_TOKENS = 128


class PromptCache:
    """Least recently used prefixes, forgotten after `keep_s` seconds."""

    def __init__(self, *, keep_s: float = 300.0, most: int = 20_000) -> None:
        self._seen: OrderedDict[bytes, float] = OrderedDict()
        self._keep_s = keep_s
        self._most = most

    def look_up(self, model: str, prompt: str, now_s: float) -> int:
        """Leading tokens of `prompt` seen lately, in whole blocks; remembers `prompt`."""
        block = BLOCK_TOKENS * CHARS_PER_TOKEN
        n_blocks = len(prompt) // block
        if n_blocks * BLOCK_TOKENS < MIN_TOKENS:
            return 0
        digest = blake2b(model.encode(), digest_size=12)
        held = 0
        for i in range(n_blocks):
            digest.update(prompt[i * block : (i + 1) * block].encode())
            name = digest.digest()
            if held == i and now_s - self._seen.get(name, -1e18) <= self._keep_s:
                held = i + 1
            self._seen[name] = now_s
            self._seen.move_to_end(name)
        while len(self._seen) > self._most:
            self._seen.popitem(last=False)
        n_tokens = held * BLOCK_TOKENS
        return n_tokens if n_tokens >= MIN_TOKENS else 0
