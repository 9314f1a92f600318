"""Features of a request's prompt, for the auction: what the app last asked, in numbers.

Judged is the last turn of the user's: it holds the question, and is what the quality model was
taught on. The weights are loaded beside the work, once a worker; until then, without the extra
`[features]` or with `gateway.prompt_features` off there are none, and the market answers for the
task's ordinary prompt. A long prompt not seen before is read on a thread of its own.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from broker.features import OFF_LOOP_CHARS, FeatureCache, Features
from broker.wire.neutral import NeutralRequest, Text

logger = logging.getLogger(__name__)

_NONE: Final[Features] = ()


class PromptReader:
    """One worker's; `read` is for the event loop."""

    def __init__(self, cache: FeatureCache | None = None) -> None:
        self._cache = cache
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prompts")

    def load_beside(self) -> None:
        """Load the weights on a thread of its own."""
        threading.Thread(target=self._load, name="prompt-weights", daemon=True).start()

    def close(self) -> None:
        """Read no more."""
        self._cache = None
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def read(self, request: NeutralRequest) -> Features:
        """Features of the last thing the user said; empty where there are none."""
        cache = self._cache
        if cache is None:
            return _NONE
        text = asked_last(request)
        if not text:
            return _NONE
        known = cache.cached(text)
        if known is not None:
            return known
        if len(text) <= OFF_LOOP_CHARS:
            return cache.features(text) or _NONE
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, cache.features, text) or _NONE

    def _load(self) -> None:
        cache = FeatureCache.load()
        if cache.available:
            self._cache = cache
        else:
            logger.info("no prompt features: the extra [features] is not installed")


def asked_last(request: NeutralRequest) -> str:
    """The text of the user's last turn that has any."""
    for message in reversed(request.messages):
        if message.role == "user":
            text = "\n".join(part.text for part in message.parts if isinstance(part, Text))
            if text:
                return text
    return ""
